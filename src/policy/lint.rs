//! What is valid and yet cannot be meant: rules that never or always match, that others make idle, that name nobody.
//!
//! Said only where it is certain (`logic`); each is a warning. What must not be loaded at all is decided elsewhere: strict
//! validation (`written`) and rules that can fail (`faults`).

use cedar_policy::{
    Context, Effect, Entities, EntityUid, EvalResult, Expression, Policy, PrincipalConstraint, Request,
    ResourceConstraint, eval_expression,
};
use cedar_policy_core::ast::{Expr, ExprKind, Literal, Var};

use super::{
    formula::Formula,
    logic::{Atoms, Budget, Known, variables},
    problem::Problem,
    schema::{Vocabulary, uid},
    slices::names,
    written::Written,
};
use crate::domain::{Permission, PermissionSet, TenantId};

/// Steps of all comparisons together; a fraction of a second, whatever the set's size.
const BUDGET: usize = 400_000;
/// What one comparison costs before its first step: two conditions are read as formulas.
const PER_COMPARISON: usize = 40;

/// Every finding on the hand-written rules. `idle`: ids that Cedar's validator has called impossible already.
pub(super) fn look(words: &Vocabulary, own: &[Written], by_hand: &[Written], idle: &[String]) -> Vec<Problem> {
    look_within(Budget(BUDGET), words, own, by_hand, idle)
}

fn look_within(
    budget: Budget,
    words: &Vocabulary,
    own: &[Written],
    by_hand: &[Written],
    idle: &[String],
) -> Vec<Problem> {
    let mut lint = Lint { words, budget, found: Vec::new() };
    let rules: Vec<_> = own.iter().chain(by_hand).map(|written| Rule::new(words, written)).collect();
    let (generated, hand) = rules.split_at(own.len());
    for (at, rule) in hand.iter().enumerate() {
        lint.entities(rule);
        let never = idle.contains(&rule.written.id) || lint.never(rule);
        if never || !rule.is_sound() {
            continue;
        }
        lint.always(rule);
        lint.shadowed(rule, at, generated, hand);
    }
    if lint.budget.is_spent()
        && let Some(rule) = hand.first()
    {
        let message = "the set is too large to compare every rule with every other: more may never match or be covered";
        lint.found.push(Problem::of_file(rule.written.source.name.clone(), message));
    }
    lint.found
}

struct Rule<'a> {
    written: &'a Written,
    /// What its scope takes.
    actions: PermissionSet,
    condition: Option<&'a Expr>,
    /// The condition reads the action, so each action has a formula of its own.
    by_action: bool,
}

impl<'a> Rule<'a> {
    fn new(words: &Vocabulary, written: &'a Written) -> Self {
        let condition = written.policy.as_ref().non_scope_constraints();
        Self {
            actions: Permission::all().filter(|one| names(words, &written.policy, *one)).collect(),
            by_action: condition.is_some_and(|expr| variables(expr).any(|variable| variable == Var::Action)),
            written,
            condition,
        }
    }

    fn forbids(&self) -> bool {
        self.written.policy.effect() == Effect::Forbid
    }

    /// It cannot fail, so whether it matches is what its formula says.
    fn is_sound(&self) -> bool {
        self.written.faults.is_empty()
    }

    /// When it matches, for one action.
    fn formula(&self, atoms: &mut Atoms, known: &dyn Known) -> Formula {
        let scope = scope_formula(&self.written.policy, atoms);
        match self.condition {
            Some(condition) => scope.and(atoms.formula(condition, known)),
            None => scope,
        }
    }
}

struct Lint<'a> {
    words: &'a Vocabulary,
    budget: Budget,
    found: Vec<Problem>,
}

impl Lint<'_> {
    fn report(&mut self, rule: &Rule<'_>, message: String, help: &str) {
        let written = rule.written;
        self.found.push(Problem::at(&written.source, written.first_line(), message).help(help));
    }

    /// Whether `test` holds for every action that is asked about; `false` also where the budget ran out. Asked once where the
    /// action makes no difference.
    fn for_all(
        &mut self,
        actions: PermissionSet,
        by_action: bool,
        mut test: impl FnMut(&mut Atoms, &dyn Known, &mut Budget) -> bool,
    ) -> bool {
        let asked = actions.iter().take(if by_action { usize::MAX } else { 1 });
        asked.into_iter().all(|permission| {
            if !self.budget.spend(PER_COMPARISON) {
                return false;
            }
            let known = ForAction::new(self.words, permission);
            test(&mut Atoms::default(), &known, &mut self.budget)
        })
    }

    fn never(&mut self, rule: &Rule<'_>) -> bool {
        let id = &rule.written.id;
        if rule.actions.is_empty() {
            let help = "name a permission, or write `action in [...]` for a group that has members";
            self.report(rule, format!("`{id}` can never match: no permission is in its scope"), help);
            return true;
        }
        if !rule.is_sound() {
            return false;
        }
        let never = self.for_all(rule.actions, rule.by_action, |atoms, known, budget| {
            let formula = rule.formula(atoms, known);
            !atoms.can_be_true(&formula, budget)
        });
        if never && speaks_of_tenants(&rule.written.policy) {
            let help = "a request that is judged has a `Link` as its resource: write `resource in Tenant::\"...\"`";
            self.report(rule, format!("`{id}` can never match: its resource is a bare `Tenant`"), help);
        } else if never {
            let help = "its conditions contradict each other, or a value cannot occur; mend it or take it out";
            self.report(rule, format!("`{id}` can never match"), help);
        }
        never
    }

    fn always(&mut self, rule: &Rule<'_>) {
        let id = &rule.written.id;
        if let Some(condition) = rule.condition {
            let always = self.for_all(rule.actions, rule.by_action, |atoms, known, budget| {
                let formula = atoms.formula(condition, known).negated();
                !atoms.can_be_true(&formula, budget)
            });
            if always {
                let help = "leave the condition out if that is meant, and mend it if not";
                self.report(rule, format!("the condition of `{id}` is always true"), help);
            }
        }
        let everything = rule.forbids()
            && rule.actions == PermissionSet::ALL
            && self.for_all(rule.actions, rule.by_action, |atoms, known, budget| {
                let formula = rule.formula(atoms, known).negated();
                !atoms.can_be_true(&formula, budget)
            });
        if everything {
            let help = "to stop everything for a while, suspend access instead: that is lifted by itself";
            self.report(rule, format!("`{id}` always matches: with it no cross-tenant request is allowed"), help);
        }
    }

    /// Rules that change nothing because of others.
    fn shadowed(&mut self, rule: &Rule<'_>, at: usize, generated: &[Rule<'_>], hand: &[Rule<'_>]) {
        let id = &rule.written.id;
        let others =
            || generated.iter().chain(hand.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, r)| r));
        let wider = others().find(|other| {
            other.forbids() == rule.forbids()
                && self.implied(rule, other)
                // Of two that are equal the later one is idle.
                && (other.written.generated || is_before(other, rule, hand) || !self.implied(other, rule))
        });
        if let Some(other) = wider {
            let message = format!("`{id}` is covered by `{}`: it changes nothing", other.written.id);
            let help =
                format!("whatever it matches, {} matches too; take it out, or narrow the other", other.written.place());
            self.report(rule, message, &help);
        }
        if rule.forbids() {
            return;
        }
        if let Some(other) = others().find(|other| other.forbids() && self.implied(rule, other)) {
            let message =
                format!("`{id}` can never permit anything: `{}` forbids all that it matches", other.written.id);
            self.report(rule, message, "deny beats allow; no permit opens a gate, or another rule's prohibition");
        }
    }

    /// Whether `other` certainly matches wherever `rule` does.
    fn implied(&mut self, rule: &Rule<'_>, other: &Rule<'_>) -> bool {
        if !other.is_sound() || !other.actions.contains_all(rule.actions) {
            return false;
        }
        let by_action = rule.by_action || other.by_action;
        self.for_all(rule.actions, by_action, |atoms, known, budget| {
            let formula = rule.formula(atoms, known).and(other.formula(atoms, known).negated());
            !atoms.can_be_true(&formula, budget)
        })
    }

    /// Ids that no entity can have.
    fn entities(&mut self, rule: &Rule<'_>) {
        let source = &rule.written.source;
        let mut named: Vec<_> =
            scope_entities(&rule.written.policy).into_iter().map(|uid| (uid, rule.written.first_line())).collect();
        for part in rule.condition.into_iter().flat_map(Expr::subexpressions) {
            if let ExprKind::Lit(Literal::EntityUID(uid)) = part.expr_kind() {
                let span = part.source_loc().map_or_else(|| rule.written.first_line(), |loc| loc.start()..loc.end());
                named.push((EntityUid::from(uid.as_ref().clone()), span));
            }
        }
        for (uid, span) in named {
            if let Some(help) = impossible_id(&uid) {
                self.found.push(Problem::at(source, span, format!("`{uid}` names nobody")).help(help));
            }
        }
    }
}

fn is_before(one: &Rule<'_>, other: &Rule<'_>, hand: &[Rule<'_>]) -> bool {
    let place = |rule: &Rule<'_>| hand.iter().position(|listed| listed.written.id == rule.written.id);
    place(one) < place(other)
}

fn speaks_of_tenants(policy: &Policy) -> bool {
    match policy.resource_constraint() {
        ResourceConstraint::Eq(uid) => uid.type_name().to_string() == "Tenant",
        ResourceConstraint::Is(kind) | ResourceConstraint::IsIn(kind, _) => kind.to_string() == "Tenant",
        ResourceConstraint::Any | ResourceConstraint::In(_) => false,
    }
}

fn scope_entities(policy: &Policy) -> Vec<EntityUid> {
    let mut found = Vec::new();
    if let PrincipalConstraint::Eq(uid) | PrincipalConstraint::In(uid) | PrincipalConstraint::IsIn(_, uid) =
        policy.principal_constraint()
    {
        found.push(uid);
    }
    if let ResourceConstraint::Eq(uid) | ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) =
        policy.resource_constraint()
    {
        found.push(uid);
    }
    found
}

/// What to write instead, where the id is none that linkgate gives to an entity of this type.
fn impossible_id(uid: &EntityUid) -> Option<&'static str> {
    let id = uid.id().unescaped();
    let is_uuid = || uuid::Uuid::parse_str(id).is_ok_and(|uuid| uuid.to_string() == id);
    match uid.type_name().to_string().as_str() {
        "PartnerUser" if !id.contains('|') => {
            Some("a user's id is `issuer|sub`; or write `principal.issuer == \"...\" && principal.sub == \"...\"`")
        }
        "Partner" if !is_uuid() => Some("a partner's id is its UUID, in small letters and with hyphens"),
        "Link" if !is_uuid() => Some("a link's id is its UUID, in small letters and with hyphens"),
        "Tenant" if TenantId::new(id).is_err() => Some("a tenant's id has 1 to 255 characters"),
        _ => None,
    }
}

/// When a policy's scope takes principal and resource; the action is looked at elsewhere.
pub(super) fn scope_formula(policy: &Policy, atoms: &mut Atoms) -> Formula {
    principal_formula(policy, atoms).and(resource_formula(policy, atoms))
}

fn principal_formula(policy: &Policy, atoms: &mut Atoms) -> Formula {
    let within = |uid: &EntityUid, atoms: &mut Atoms| match uid.type_name().to_string().as_str() {
        "Partner" => atoms.equals("principal.partner", uid.to_string()),
        "PartnerUser" => atoms.equals("principal", uid.to_string()),
        _ => Formula::Const(false),
    };
    let is_user = |kind: &cedar_policy::EntityTypeName| Formula::Const(kind.to_string() == "PartnerUser");
    match policy.principal_constraint() {
        PrincipalConstraint::Any => Formula::Const(true),
        PrincipalConstraint::Is(kind) => is_user(&kind),
        PrincipalConstraint::In(uid) => within(&uid, atoms),
        PrincipalConstraint::IsIn(kind, uid) => is_user(&kind).and(within(&uid, atoms)),
        PrincipalConstraint::Eq(uid) if uid.type_name().to_string() == "PartnerUser" => {
            atoms.equals("principal", uid.to_string())
        }
        PrincipalConstraint::Eq(_) => Formula::Const(false),
    }
}

fn resource_formula(policy: &Policy, atoms: &mut Atoms) -> Formula {
    let within = |uid: &EntityUid, atoms: &mut Atoms| match uid.type_name().to_string().as_str() {
        "Tenant" => atoms.equals("resource.tenant", uid.to_string()),
        "Link" => atoms.equals("resource", uid.to_string()),
        _ => Formula::Const(false),
    };
    let is_link = |kind: &cedar_policy::EntityTypeName| Formula::Const(kind.to_string() == "Link");
    match policy.resource_constraint() {
        ResourceConstraint::Any => Formula::Const(true),
        ResourceConstraint::Is(kind) => is_link(&kind),
        ResourceConstraint::In(uid) => within(&uid, atoms),
        ResourceConstraint::IsIn(kind, uid) => is_link(&kind).and(within(&uid, atoms)),
        ResourceConstraint::Eq(uid) if uid.type_name().to_string() == "Link" => {
            atoms.equals("resource", uid.to_string())
        }
        ResourceConstraint::Eq(_) => Formula::Const(false),
    }
}

/// Leaves without a variable, or with none but the action: Cedar itself says what they are.
struct ForAction<'a> {
    words: &'a Vocabulary,
    request: Option<Request>,
}

impl<'a> ForAction<'a> {
    fn new(words: &'a Vocabulary, permission: Permission) -> Self {
        let nobody = uid(&words.partner_type, "");
        let request = words
            .action(permission)
            .and_then(|action| Request::new(nobody.clone(), action.uid(), nobody, Context::empty(), None).ok());
        Self { words, request }
    }
}

impl Known for ForAction<'_> {
    fn value(&self, leaf: &Expr) -> Option<bool> {
        if variables(leaf).any(|variable| variable != Var::Action) {
            return None;
        }
        evaluate(self.request.as_ref()?, self.words.groups(), leaf)
    }
}

/// What Cedar says of one leaf; `None` where it fails or is no truth value.
pub(super) fn evaluate(request: &Request, entities: &Entities, leaf: &Expr) -> Option<bool> {
    match eval_expression(request, entities, &Expression::from(leaf.clone())) {
        Ok(EvalResult::Bool(value)) => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{schema, source::Sources, source_file::SourceFile, written},
        *,
    };

    #[test]
    fn a_set_of_any_size_is_looked_at_in_bounded_steps() {
        let (words, _) = schema::parse(&Sources::built_in().schema).unwrap();
        let text: String = (0..40)
            .map(|at| {
                format!("@id(\"r{at}\") forbid (principal, action, resource) when {{ context.method == \"{at}\" || principal.sub == \"{at}\" }};\n")
            })
            .collect();
        let source = SourceFile { name: "many.cedar".to_owned(), text: text.into() };
        let rules = written::parse(&source, false, &mut Vec::new());
        assert_eq!(rules.len(), 40);
        assert_eq!(look(&words, &[], &rules, &[]), []);
        let found = look_within(Budget(500), &words, &[], &rules, &[]);
        assert_eq!(found.len(), 1, "nothing is claimed that was not looked at: {found:?}");
        assert!(found[0].message.contains("too large to compare"), "{found:?}");
    }
}
