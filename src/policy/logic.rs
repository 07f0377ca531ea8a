//! Conditions as formulas over facts, and whether one can be true at all.
//!
//! A condition is cut into atoms: comparisons, tests and flags that are looked at no further, beyond that two of them
//! may exclude each other (`x == "a"` and `x == "b"`, `x < 3` and `x > 5`). Atoms are taken to be independent otherwise,
//! so "cannot be true" and "is always true" are certain, and whatever is not certain comes out as "may be". The resource
//! is a `Link` throughout: a question without a link is refused whatever policies say.

use std::collections::HashMap;

use cedar_policy_core::ast::{BinaryOp, Expr, ExprKind, Literal, UnaryOp, Var};

use super::{faults::range, formula::Formula};

/// With more facts than this in one comparison nothing is claimed: each step of a search looks at all of them.
const MAX_ATOMS: usize = 64;

/// What an atom says, as far as others may contradict it. The text is that of the term which is compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Meaning {
    /// Looked at no further.
    Plain(String),
    /// term == this constant
    Equals(String, String),
    /// term < this number; instants and durations in milliseconds
    Below(String, i64),
}

/// What is known of a leaf of a condition beforehand, such as its value for one link.
pub(super) trait Known {
    fn value(&self, leaf: &Expr) -> Option<bool>;
}

/// The atoms that formulas share: the same text is the same fact.
#[derive(Debug, Default)]
pub(super) struct Atoms {
    meanings: Vec<Meaning>,
    index: HashMap<Meaning, usize>,
}

impl Atoms {
    fn atom(&mut self, meaning: Meaning) -> Formula {
        let next = self.meanings.len();
        let at = *self.index.entry(meaning.clone()).or_insert(next);
        if at == next {
            self.meanings.push(meaning);
        }
        Formula::Atom(at)
    }

    /// A fact that stands in no condition, such as a scope's `principal == ...`.
    pub(super) fn equals(&mut self, term: &str, constant: String) -> Formula {
        self.atom(Meaning::Equals(term.to_owned(), constant))
    }

    pub(super) fn plain(&mut self, text: String) -> Formula {
        self.atom(Meaning::Plain(text))
    }

    /// The condition as a formula. The caller has bounded its depth (`faults`).
    pub(super) fn formula(&mut self, expr: &Expr, known: &dyn Known) -> Formula {
        match expr.expr_kind() {
            ExprKind::Lit(Literal::Bool(value)) => Formula::Const(*value),
            ExprKind::And { left, right } => self.formula(left, known).and(self.formula(right, known)),
            ExprKind::Or { left, right } => self.formula(left, known).or(self.formula(right, known)),
            ExprKind::UnaryApp { op: UnaryOp::Not, arg } => self.formula(arg, known).negated(),
            ExprKind::If { test_expr, then_expr, else_expr } => {
                let test = self.formula(test_expr, known);
                let (yes, no) = (self.formula(then_expr, known), self.formula(else_expr, known));
                Formula::choice(test, yes, no)
            }
            _ => match known.value(expr) {
                Some(value) => Formula::Const(value),
                None => self.leaf(expr, known),
            },
        }
    }

    fn leaf(&mut self, expr: &Expr, known: &dyn Known) -> Formula {
        match expr.expr_kind() {
            ExprKind::Is { expr: inner, entity_type } => match inner.expr_kind() {
                ExprKind::Var(Var::Resource) => Formula::Const(entity_type.to_string() == "Link"),
                ExprKind::Var(Var::Principal) => Formula::Const(entity_type.to_string() == "PartnerUser"),
                _ => self.plain(expr.to_string()),
            },
            ExprKind::BinaryApp { op, arg1, arg2 } => match op {
                BinaryOp::Eq => self.equality(expr, arg1, arg2, known),
                BinaryOp::Less => self.below(expr, arg1, arg2, false),
                BinaryOp::LessEq => self.below(expr, arg1, arg2, true),
                BinaryOp::In => self.membership(arg1, arg2),
                _ => self.plain(expr.to_string()),
            },
            _ => self.plain(expr.to_string()),
        }
    }

    fn equality(&mut self, expr: &Expr, left: &Expr, right: &Expr, known: &dyn Known) -> Formula {
        let (term, constant) = if is_closed(right) { (left, right) } else { (right, left) };
        if !is_closed(constant) {
            let mut sides = [left.to_string(), right.to_string()];
            sides.sort();
            return self.plain(sides.join(" == "));
        }
        if let ExprKind::Lit(Literal::Bool(value)) = constant.expr_kind() {
            let formula = self.formula(term, known);
            return if *value { formula } else { formula.negated() };
        }
        if let (ExprKind::Var(Var::Resource), ExprKind::Lit(Literal::EntityUID(uid))) =
            (term.expr_kind(), constant.expr_kind())
            && uid.entity_type().to_string() != "Link"
        {
            return Formula::Const(false);
        }
        if let Some(value) = point(constant) {
            return match value.checked_add(1) {
                Some(next) => self.threshold(term, value).negated().and(self.threshold(term, next)),
                None => self.plain(expr.to_string()),
            };
        }
        match constant.expr_kind() {
            ExprKind::Lit(Literal::String(text)) => self.equals(&term.to_string(), text.to_string()),
            // As ids are spelt everywhere: one entity has one text.
            ExprKind::Lit(Literal::EntityUID(uid)) => self.equals(&term.to_string(), uid.to_string()),
            // Two texts of another kind may mean the same: `decimal("1.0")` and `decimal("1.00")`.
            _ => self.plain(expr.to_string()),
        }
    }

    /// `left < right`, or with `or_equal` `left <= right`, where one of them is a constant.
    fn below(&mut self, expr: &Expr, left: &Expr, right: &Expr, or_equal: bool) -> Formula {
        let step = |value: i64, by: bool| if by { value.checked_add(1) } else { Some(value) };
        match (point(left), point(right)) {
            (None, Some(bound)) => match step(bound, or_equal) {
                Some(bound) => self.threshold(left, bound),
                None => Formula::Const(true),
            },
            // c < t is !(t < c + 1), c <= t is !(t < c).
            (Some(bound), None) => match step(bound, !or_equal) {
                Some(bound) => self.threshold(right, bound).negated(),
                None => Formula::Const(false),
            },
            _ => self.plain(expr.to_string()),
        }
    }

    /// `term < bound`, as far as the term's range does not say it already.
    fn threshold(&mut self, term: &Expr, bound: i64) -> Formula {
        let (low, high) = range(term);
        if high < bound {
            Formula::Const(true)
        } else if low >= bound {
            Formula::Const(false)
        } else {
            self.atom(Meaning::Below(term.to_string(), bound))
        }
    }

    /// A link is in its own tenant and no other, a user in their own partner and no other.
    fn membership(&mut self, member: &Expr, group: &Expr) -> Formula {
        if let ExprKind::Set(items) = group.expr_kind() {
            return items.iter().fold(Formula::Const(false), |any, item| any.or(self.membership(member, item)));
        }
        let ExprKind::Lit(Literal::EntityUID(uid)) = group.expr_kind() else {
            return self.plain(format!("{member} in {group}"));
        };
        match (member.expr_kind(), uid.entity_type().to_string().as_str()) {
            (ExprKind::Var(Var::Resource), "Tenant") => self.equals("resource.tenant", uid.to_string()),
            (ExprKind::Var(Var::Resource), "Link") => self.equals("resource", uid.to_string()),
            (ExprKind::Var(Var::Principal), "Partner") => self.equals("principal.partner", uid.to_string()),
            (ExprKind::Var(Var::Principal), "PartnerUser") => self.equals("principal", uid.to_string()),
            _ => self.plain(format!("{member} in {group}")),
        }
    }

    /// Whether some assignment makes the formula true. Certain where it is `false`; `true` also where the budget ran out.
    pub(super) fn can_be_true(&self, formula: &Formula, budget: &mut Budget) -> bool {
        if self.meanings.len() > MAX_ATOMS {
            return true;
        }
        let mut known = vec![None; self.meanings.len()];
        self.search(formula, &mut known, budget)
    }

    fn search(&self, formula: &Formula, known: &mut Vec<Option<bool>>, budget: &mut Budget) -> bool {
        if !budget.spend(1) {
            return true;
        }
        let at = match formula.value(known) {
            (Some(value), _) => return value,
            (None, Some(at)) => at,
            // Not reached: what has no value has an open atom.
            (None, None) => return true,
        };
        [true, false].into_iter().any(|value| {
            if let Some(slot) = known.get_mut(at) {
                *slot = Some(value);
            }
            let found = self.is_consistent(known) && self.search(formula, known, budget);
            if let Some(slot) = known.get_mut(at) {
                *slot = None;
            }
            found
        })
    }

    /// Whether the values given to atoms so far can stand together.
    fn is_consistent(&self, known: &[Option<bool>]) -> bool {
        let mut equal: HashMap<&str, &str> = HashMap::new();
        // term: at least, below
        let mut bounds: HashMap<&str, (i64, i128)> = HashMap::new();
        for (meaning, value) in self.meanings.iter().zip(known) {
            match (meaning, value) {
                (Meaning::Equals(term, constant), Some(true)) => {
                    let other = equal.insert(term, constant);
                    if other.is_some_and(|other| other != constant) {
                        return false;
                    }
                }
                (Meaning::Below(term, bound), Some(below)) => {
                    let (low, high) = bounds.entry(term).or_insert((i64::MIN, i128::MAX));
                    if *below {
                        *high = (*high).min(i128::from(*bound));
                    } else {
                        *low = (*low).max(*bound);
                    }
                    if i128::from(*low) >= *high {
                        return false;
                    }
                }
                _ => {}
            }
        }
        true
    }
}

/// How much may still be looked at; a set of any size is checked in bounded time.
#[derive(Debug)]
pub(super) struct Budget(pub(super) usize);

impl Budget {
    /// `false`: there is not so much left.
    pub(super) fn spend(&mut self, steps: usize) -> bool {
        let left = self.0 >= steps;
        self.0 = self.0.saturating_sub(steps);
        left
    }

    pub(super) fn is_spent(&self) -> bool {
        self.0 == 0
    }
}

/// No variable in it.
pub(super) fn is_closed(expr: &Expr) -> bool {
    variables(expr).next().is_none()
}

pub(super) fn variables(expr: &Expr) -> impl Iterator<Item = Var> + '_ {
    expr.subexpressions().filter_map(|part| match part.expr_kind() {
        ExprKind::Var(variable) => Some(*variable),
        _ => None,
    })
}

/// The number, instant or duration that a constant is.
fn point(expr: &Expr) -> Option<i64> {
    if !is_closed(expr) {
        return None;
    }
    match range(expr) {
        (low, high) if low == high => Some(low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;
    impl Known for Nothing {
        fn value(&self, _: &Expr) -> Option<bool> {
            None
        }
    }

    fn can(text: &str) -> bool {
        let mut atoms = Atoms::default();
        let formula = atoms.formula(&text.parse().unwrap(), &Nothing);
        atoms.can_be_true(&formula, &mut Budget(10_000))
    }

    #[test]
    fn a_contradiction_is_found_and_its_sibling_may_be_true() {
        for (never, may) in [
            ("false", "true"),
            ("context.mfa && !context.mfa", "context.mfa || !context.mfa"),
            ("context.mfa == true && context.mfa == false", "context.mfa == true && context.method == \"\""),
            (
                "context.method == \"GET\" && \"POST\" == context.method",
                "context.method == \"GET\" || context.method == \"POST\"",
            ),
            (
                "context.now >= datetime(\"2027-01-03\") && context.now < datetime(\"2026-12-30\")",
                "context.now >= datetime(\"2026-12-30\") && context.now < datetime(\"2027-01-03\")",
            ),
            (
                "context.now < datetime(\"2026-01-01\") && context.now >= datetime(\"2026-01-01\")",
                "context.now <= datetime(\"2026-01-01\") && context.now >= datetime(\"2026-01-01\")",
            ),
            ("context.now.toTime() > duration(\"24h\")", "context.now.toTime() > duration(\"8h\")"),
            ("context.now.toTime().toHours() == 24", "context.now.toTime().toHours() == 23"),
            (
                "context.now.toTime().toHours() == 7 && context.now.toTime().toHours() > 7",
                "context.now.toTime().toHours() == 7 && context.now.toTime().toHours() > 6",
            ),
            (
                "resource in Tenant::\"a\" && resource.tenant == Tenant::\"b\"",
                "resource in Tenant::\"a\" && resource.tenant == Tenant::\"a\"",
            ),
            (
                "resource in [Tenant::\"a\", Tenant::\"b\"] && resource in Tenant::\"c\"",
                "resource in [Tenant::\"a\", Tenant::\"b\"] && resource in Tenant::\"b\"",
            ),
            ("resource is Tenant", "resource is Link"),
            ("resource == Tenant::\"a\"", "resource == Link::\"a\""),
            ("if context.mfa then !context.mfa else context.mfa", "if context.mfa then context.mfa else false"),
            (
                "context.ip.isLoopback() && !context.ip.isLoopback()",
                "context.ip.isLoopback() && !context.ip.isMulticast()",
            ),
            (
                "context.ip == ip(\"10.0.0.1\") && context.ip != ip(\"10.0.0.1\")",
                "context.ip == ip(\"10.0.0.1\") && context.ip == ip(\"10.0.0.1/32\")",
            ),
            (
                "principal.sub like \"a*\" && !(principal.sub like \"a*\")",
                "principal.sub like \"a*\" && !(principal.sub like \"b*\")",
            ),
        ] {
            assert!(!can(never), "{never}");
            assert!(can(may), "{may}");
        }
    }

    #[test]
    fn a_spent_budget_is_never_a_certainty() {
        let mut atoms = Atoms::default();
        let text = (0..20).map(|at| format!("(context.a{at} || context.b{at})")).collect::<Vec<_>>().join(" && ");
        let formula = atoms.formula(&format!("{text} && !context.a0 && !context.b0").parse().unwrap(), &Nothing);
        let mut budget = Budget(3);
        assert!(atoms.can_be_true(&formula, &mut budget));
        assert!(budget.is_spent());
        assert!(!atoms.can_be_true(&formula, &mut Budget(1_000_000)));
    }
}
