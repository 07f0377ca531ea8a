//! What in a condition can fail while it is evaluated, although strict validation let it pass.
//!
//! Cedar skips a policy that fails, so a `forbid` that fails forbids nothing; here such a set is not loaded. After strict
//! validation three things are left that can fail: arithmetic beyond 64 bits, extension functions, and attributes of
//! entities that are not among those of the question. Numbers are followed as ranges: linkgate hands instants of the
//! years 0 to 9999 to Cedar and no others (`facts::datetime`), so that `context.now.offset(duration("1h"))` is known to
//! be safe. What is not recognised counts as able to fail.
//!
//! It does not follow guards: `a != 0 && b + a > 0` is judged as if both sides stood alone. `prove` does, and knows
//! nothing of entities that are not given: where the two differ it says so (`prove::differ`).

use std::{ops::Range, str::FromStr};

use cedar_policy::{Context, Entities, EntityUid, EvalResult, Expression, Request, eval_expression};
use cedar_policy_core::ast::{BinaryOp, Expr, ExprKind, Literal, UnaryOp, Var};

use super::facts::{FIRST, LAST};

/// Deeper conditions are refused: the walk is recursive, and no person reads them.
const MAX_DEPTH: usize = 400;
const DAY_MS: i128 = 86_400_000;

/// One thing that can fail, and where it stands in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) span: Option<Range<usize>>,
    /// Goes on after "it can fail: ".
    pub(super) what: String,
    pub(super) help: &'static str,
}

impl Fault {
    /// It is about an entity that Cedar may not be given. What proves over all requests takes every entity to be known.
    #[cfg(feature = "prove")]
    pub(super) fn is_of_an_unknown_entity(&self) -> bool {
        self.help == KNOWN_ENTITIES
    }

    /// Too much of it to be looked at by anything here that recurses.
    pub(super) fn is_unbounded(&self) -> bool {
        self.help == TOO_DEEP
    }
}

const NO_ARITHMETIC: &str = "compare without calculating, such as `context.now < datetime(\"2027-01-01\")` or \
     `context.now.toTime() >= duration(\"8h\")`; instants moved by a literal, `context.now.offset(duration(\"-30d\"))`, \
     are fine too";
const KNOWN_ENTITIES: &str = "only `principal`, `resource` and `resource.tenant` are known while a request is decided: \
     compare with the entity, such as `resource.tenant == Tenant::\"...\"`, and read attributes of these";
const LITERAL: &str = "give it a literal in quotes: what a literal means is known when the set is loaded";
const UNKNOWN: &str = "write the condition without it";

/// Everything in the condition that can fail.
pub(super) fn faults(condition: &Expr) -> Vec<Fault> {
    let mut walk = Walk { faults: Vec::new() };
    walk.range(condition, 0);
    walk.faults
}

/// The values that a number, an instant (in ms since 1970) or a duration (in ms) can take; everything for what is none.
pub(super) fn range(expr: &Expr) -> (i64, i64) {
    let mut walk = Walk { faults: Vec::new() };
    walk.range(expr, 0).cut()
}

/// Bounds in 128 bits, so that what leaves 64 can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span(i128, i128);

const ANY: Span = Span(i64::MIN as i128, i64::MAX as i128);

impl Span {
    fn fits(self) -> bool {
        self.0 >= ANY.0 && self.1 <= ANY.1
    }

    fn cut(self) -> (i64, i64) {
        let cut = |value: i128| i64::try_from(value.clamp(ANY.0, ANY.1)).unwrap_or_default();
        (cut(self.0), cut(self.1))
    }

    fn union(self, other: Self) -> Self {
        Self(self.0.min(other.0), self.1.max(other.1))
    }

    fn times(self, other: Self) -> Self {
        // Each factor has 64 bits, so no product of two leaves 128.
        let products = [self.0 * other.0, self.0 * other.1, self.1 * other.0, self.1 * other.1];
        products.into_iter().fold(Self(i128::MAX, i128::MIN), |span, one| span.union(Self(one, one)))
    }
}

struct Walk {
    faults: Vec<Fault>,
}

impl Walk {
    fn report(&mut self, at: &Expr, what: impl Into<String>, help: &'static str) {
        let span = at.source_loc().map(|loc| loc.start()..loc.end());
        self.faults.push(Fault { span, what: what.into(), help });
    }

    /// A result that leaves 64 bits is an error of Cedar's.
    fn checked(&mut self, at: &Expr, span: Span, what: &str) -> Span {
        if !span.fits() {
            self.report(at, format!("{what} can leave the range of 64 bits"), NO_ARITHMETIC);
        }
        let (low, high) = span.cut();
        Span(low.into(), high.into())
    }

    fn range(&mut self, expr: &Expr, depth: usize) -> Span {
        if depth > MAX_DEPTH {
            if self.faults.iter().all(|fault| fault.help != TOO_DEEP) {
                self.report(expr, format!("it is nested deeper than {MAX_DEPTH} levels"), TOO_DEEP);
            }
            return ANY;
        }
        let next = depth + 1;
        match expr.expr_kind() {
            ExprKind::Lit(Literal::Long(value)) => Span((*value).into(), (*value).into()),
            ExprKind::Lit(_) | ExprKind::Var(_) => ANY,
            ExprKind::If { test_expr, then_expr, else_expr } => {
                self.range(test_expr, next);
                self.range(then_expr, next).union(self.range(else_expr, next))
            }
            ExprKind::And { left, right } | ExprKind::Or { left, right } => {
                self.range(left, next);
                self.range(right, next);
                ANY
            }
            ExprKind::UnaryApp { op, arg } => {
                let Span(low, high) = self.range(arg, next);
                if *op == UnaryOp::Neg { self.checked(expr, Span(-high, -low), "`-`") } else { ANY }
            }
            ExprKind::BinaryApp { op, arg1, arg2 } => {
                let (left, right) = (self.range(arg1, next), self.range(arg2, next));
                self.binary(expr, *op, left, right)
            }
            ExprKind::ExtensionFunctionApp { fn_name, args } => {
                let spans: Vec<_> = args.iter().map(|arg| self.range(arg, next)).collect();
                self.function(expr, &fn_name.to_string(), args, &spans)
            }
            ExprKind::GetAttr { expr: base, attr } => {
                self.range(base, next);
                if !is_known(base) {
                    let what = format!("the entity whose `{attr}` is read may not be known");
                    self.report(expr, what, KNOWN_ENTITIES);
                }
                attribute(base, attr)
            }
            ExprKind::HasAttr { expr: base, .. }
            | ExprKind::ExtHasAttr { expr: base, .. }
            | ExprKind::Like { expr: base, .. }
            | ExprKind::Is { expr: base, .. } => {
                self.range(base, next);
                ANY
            }
            ExprKind::Set(items) => {
                items.iter().for_each(|item| {
                    self.range(item, next);
                });
                ANY
            }
            ExprKind::Record(fields) => {
                fields.values().for_each(|value| {
                    self.range(value, next);
                });
                ANY
            }
            _ => {
                self.report(expr, "this form is not known to be safe", UNKNOWN);
                ANY
            }
        }
    }

    fn binary(&mut self, expr: &Expr, op: BinaryOp, left: Span, right: Span) -> Span {
        match op {
            BinaryOp::Add => self.checked(expr, Span(left.0 + right.0, left.1 + right.1), "`+`"),
            BinaryOp::Sub => self.checked(expr, Span(left.0 - right.1, left.1 - right.0), "`-`"),
            BinaryOp::Mul => self.checked(expr, left.times(right), "`*`"),
            BinaryOp::GetTag => {
                self.report(expr, "a tag is read, and linkgate gives no entity any", UNKNOWN);
                ANY
            }
            BinaryOp::Eq
            | BinaryOp::Less
            | BinaryOp::LessEq
            | BinaryOp::In
            | BinaryOp::Contains
            | BinaryOp::ContainsAll
            | BinaryOp::ContainsAny
            | BinaryOp::HasTag => ANY,
        }
    }

    fn function(&mut self, expr: &Expr, name: &str, args: &[Expr], spans: &[Span]) -> Span {
        let first = spans.first().copied().unwrap_or(ANY);
        let second = spans.get(1).copied().unwrap_or(ANY);
        match name {
            "ip" | "decimal" | "datetime" | "duration" => self.constructor(expr, name, args),
            "offset" => self.checked(expr, Span(first.0 + second.0, first.1 + second.1), "`.offset`"),
            "durationSince" => self.checked(expr, Span(first.0 - second.1, first.1 - second.0), "`.durationSince`"),
            // Rounds down to midnight.
            "toDate" => self.checked(expr, Span(first.0 - (DAY_MS - 1), first.1), "`.toDate`"),
            "toTime" => Span(0, DAY_MS - 1),
            "toMilliseconds" => first,
            "toSeconds" => Span(first.0 / 1_000, first.1 / 1_000),
            "toMinutes" => Span(first.0 / 60_000, first.1 / 60_000),
            "toHours" => Span(first.0 / 3_600_000, first.1 / 3_600_000),
            "toDays" => Span(first.0 / DAY_MS, first.1 / DAY_MS),
            "isIpv4" | "isIpv6" | "isLoopback" | "isMulticast" | "isInRange" | "lessThan" | "lessThanOrEqual"
            | "greaterThan" | "greaterThanOrEqual" => ANY,
            other => {
                self.report(expr, format!("the function `{other}` is not known to be safe"), UNKNOWN);
                ANY
            }
        }
    }

    fn constructor(&mut self, expr: &Expr, name: &str, args: &[Expr]) -> Span {
        if !matches!(args.first().map(Expr::expr_kind), Some(ExprKind::Lit(Literal::String(_)))) {
            self.report(expr, format!("`{name}(...)` of what is no literal"), LITERAL);
            return ANY;
        }
        let milliseconds = match name {
            "datetime" => number(&format!("{expr}.durationSince(datetime(\"1970-01-01\")).toMilliseconds()")),
            "duration" => number(&format!("{expr}.toMilliseconds()")),
            _ if constant(expr).is_some() => return ANY,
            _ => None,
        };
        match milliseconds {
            Some(value) => Span(value.into(), value.into()),
            None => {
                self.report(expr, format!("`{name}(...)` does not take this text"), LITERAL);
                ANY
            }
        }
    }
}

const TOO_DEEP: &str = "cut the rule into several";

/// Whether attributes of this can be read without fail: the question's own entities, what hangs on them, and records.
fn is_known(base: &Expr) -> bool {
    matches!(base.expr_kind(), ExprKind::Record(_)) || is_of_the_question(base)
}

fn is_of_the_question(expr: &Expr) -> bool {
    match expr.expr_kind() {
        ExprKind::Var(Var::Principal | Var::Resource | Var::Context) => true,
        // The entities behind their attributes are always given; strict validation knows which attributes there are.
        ExprKind::GetAttr { expr, .. } => is_of_the_question(expr),
        ExprKind::If { then_expr, else_expr, .. } => is_of_the_question(then_expr) && is_of_the_question(else_expr),
        _ => false,
    }
}

/// Instants that linkgate itself gives.
fn attribute(base: &Expr, attr: &str) -> Span {
    match (base.expr_kind(), attr) {
        (ExprKind::Var(Var::Context), "now") | (ExprKind::Var(Var::Resource), "starts" | "ends") => {
            Span(FIRST.into(), LAST.into())
        }
        _ => ANY,
    }
}

/// What an expression without variables is, by Cedar itself; `None` where it fails.
pub(super) fn constant(expr: &Expr) -> Option<EvalResult> {
    evaluate(&Expression::from(expr.clone()))
}

fn number(text: &str) -> Option<i64> {
    match evaluate(&Expression::from_str(text).ok()?)? {
        EvalResult::Long(value) => Some(value),
        _ => None,
    }
}

fn evaluate(expression: &Expression) -> Option<EvalResult> {
    let nobody = EntityUid::from_str("Nobody::\"\"").ok()?;
    let request = Request::new(nobody.clone(), nobody.clone(), nobody, Context::empty(), None).ok()?;
    eval_expression(&request, &Entities::empty(), expression).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(condition: &str) -> Vec<String> {
        let text = format!("@id(\"x\") forbid (principal, action, resource) when {{ {condition} }};");
        let policy = cedar_policy::Policy::parse(None, text).unwrap();
        let condition = policy.as_ref().non_scope_constraints().unwrap().clone();
        faults(&condition).into_iter().map(|fault| fault.what).collect()
    }

    #[test]
    fn what_can_fail_is_found_and_its_safe_sibling_is_not() {
        for (bad, good) in [
            ("9223372036854775807 + 1 > 0", "9223372036854775806 + 1 > 0"),
            ("0 - 9223372036854775807 - 2 > 0", "0 - 9223372036854775807 - 1 < 0"),
            ("4611686018427387904 * 2 > 0", "4611686018427387904 * -2 < 0"),
            ("-(-9223372036854775807 - 1) > 0", "-(9223372036854775807) < 0"),
            (
                "context.now.toTime().toMilliseconds() + 9223372036854775807 > 0",
                "context.now.toTime().toMilliseconds() + 1 > 0",
            ),
            (
                "context.now.offset(duration(\"106751991167d\")) > resource.starts",
                "context.now.offset(duration(\"-30d\")) > resource.starts",
            ),
            (
                "context.now.durationSince(context.other) > duration(\"1h\")",
                "context.now.durationSince(resource.starts) > duration(\"1h\")",
            ),
            ("context.other.toDate() > resource.starts", "context.now.toDate() > resource.starts"),
            ("ip(principal.sub).isLoopback()", "context.ip.isInRange(ip(\"10.0.0.0/8\"))"),
            ("datetime(principal.sub) < context.now", "datetime(\"2026-01-01\") < context.now"),
            ("decimal(principal.sub).lessThan(decimal(\"1.0\"))", "decimal(\"1.0\").lessThan(decimal(\"1.5\"))"),
            ("Tenant::\"a\".status == \"suspended\"", "resource.tenant.status == \"suspended\""),
            (
                "(if context.mfa then resource.tenant else Tenant::\"a\").status == \"\"",
                "{a: Tenant::\"a\"}.a == resource.tenant",
            ),
            ("{a: Tenant::\"a\"}.a.status == \"\"", "{a: context.mfa}.a"),
            ("context.mfa && (resource.getTag(\"a\") == \"b\" || true)", "resource.hasTag(\"a\")"),
        ] {
            assert_eq!(found(bad).len(), 1, "{bad}: {:?}", found(bad));
            assert_eq!(found(good), Vec::<String>::new(), "{good}");
        }
    }

    #[test]
    fn every_fault_of_a_condition_is_told_and_points_at_its_place() {
        let text = "@id(\"x\") forbid (principal, action, resource) when { context.n + 1 > 0 || ip(principal.sub).isLoopback() };";
        let policy = cedar_policy::Policy::parse(None, text).unwrap();
        let faults = faults(policy.as_ref().non_scope_constraints().unwrap());
        let places: Vec<_> = faults.iter().map(|fault| text.get(fault.span.clone().unwrap()).unwrap()).collect();
        assert_eq!(places, ["context.n + 1", "ip(principal.sub).isLoopback()"], "a chain of calls has one place");
    }

    #[test]
    fn ranges_follow_branches_and_units() {
        let of = |text: &str| range(&text.parse::<Expr>().unwrap());
        assert_eq!(of("if context.mfa then 3 else -2"), (-2, 3));
        assert_eq!(of("context.now.toTime().toHours()"), (0, 23));
        assert_eq!(of("context.now"), (FIRST, LAST));
        assert_eq!(of("datetime(\"1970-01-01T00:00:01Z\")"), (1_000, 1_000));
        assert_eq!(of("context.anything"), (i64::MIN, i64::MAX));
    }

    #[test]
    fn a_condition_that_is_nested_too_deeply_is_not_walked_to_its_end() {
        let chain = |length: usize| vec!["context.mfa"; length].join(" && ");
        assert!(found(&chain(MAX_DEPTH / 2)).is_empty());
        assert_eq!(found(&chain(MAX_DEPTH + 10)).len(), 1);
    }
}
