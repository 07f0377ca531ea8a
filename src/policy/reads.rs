//! Which facts a hand-written policy can look at, found by walking its JSON form.
//!
//! The memo's key holds the values of exactly these facts, so a fact that is missed here would let one caller's answer
//! serve another. Therefore: what is not recognised counts as "reads everything of that variable". Generated policies
//! are not walked; what they read is in every key, or is a gate that has been found open before the memo is asked.

use cedar_policy::{Policy, PrincipalConstraint, ResourceConstraint};
use serde_json::{Map, Value};

/// A set of facts, as flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reads(u16);

impl Reads {
    pub(super) const NOTHING: Self = Self(0);
    /// `context.now`: the answer may change with every instant, so it is not remembered.
    pub(super) const NOW: Self = Self(1);
    pub(super) const IP: Self = Self(1 << 1);
    pub(super) const MFA: Self = Self(1 << 2);
    pub(super) const METHOD: Self = Self(1 << 3);
    pub(super) const ROUTE_CLASS: Self = Self(1 << 4);
    /// Who the user is: issuer, sub, partner.
    pub(super) const PRINCIPAL: Self = Self(1 << 5);
    /// Which link and tenant it is, and what they carry beyond role and sets.
    pub(super) const RESOURCE: Self = Self(1 << 6);
    /// `holds`, `granted`, `denied`, `ceiling` as whole sets.
    pub(super) const SETS: Self = Self(1 << 7);
    const CONTEXT: Self = Self(0b1_1111);
    const EVERYTHING: Self = Self(0b1111_1111);

    #[must_use]
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Everything that the policy can read. A policy without a JSON form reads everything.
pub(super) fn of(policy: &Policy) -> Reads {
    let mut reads = Reads::NOTHING;
    if !matches!(policy.principal_constraint(), PrincipalConstraint::Any | PrincipalConstraint::Is(_)) {
        reads = reads.and(Reads::PRINCIPAL);
    }
    if !matches!(policy.resource_constraint(), ResourceConstraint::Any | ResourceConstraint::Is(_)) {
        reads = reads.and(Reads::RESOURCE);
    }
    match policy.to_json().as_ref().map(|json| json.get("conditions")) {
        Ok(Some(conditions)) => reads.and(walk(conditions)),
        Ok(None) => reads,
        Err(_) => Reads::EVERYTHING,
    }
}

fn walk(value: &Value) -> Reads {
    match value {
        Value::Object(object) => walk_object(object),
        Value::Array(items) => items.iter().fold(Reads::NOTHING, |reads, item| reads.and(walk(item))),
        _ => Reads::NOTHING,
    }
}

fn walk_object(object: &Map<String, Value>) -> Reads {
    if object.len() == 1 {
        if let Some(name) = object.get("Var").and_then(Value::as_str) {
            return whole_variable(name);
        }
        for operator in [".", "has"] {
            let Some(access) = object.get(operator) else { continue };
            let variable = access.pointer("/left/Var").and_then(Value::as_str);
            // `has` takes a path (`resource has tenant.status`) as well; its first step is what is read.
            let attribute = access.get("attr").and_then(|attr| attr.as_str().or_else(|| attr.get(0)?.as_str()));
            if let (Some(variable), Some(attribute)) = (variable, attribute) {
                return one_attribute(variable, attribute);
            }
        }
        // `resource is Link`: the type is always the same by the time that Cedar is asked.
        if let Some(test) = object.get("is")
            && test.pointer("/left/Var").is_some()
            && test.get("in").is_none()
        {
            return Reads::NOTHING;
        }
    }
    object.values().fold(Reads::NOTHING, |reads, inner| reads.and(walk(inner)))
}

fn whole_variable(name: &str) -> Reads {
    match name {
        // The permissions asked are in every key.
        "action" => Reads::NOTHING,
        "context" => Reads::CONTEXT,
        "principal" => Reads::PRINCIPAL.and(Reads::SETS),
        "resource" => Reads::RESOURCE.and(Reads::SETS),
        _ => Reads::EVERYTHING,
    }
}

fn one_attribute(variable: &str, attribute: &str) -> Reads {
    match (variable, attribute) {
        ("context", "now") => Reads::NOW,
        ("context", "ip") => Reads::IP,
        ("context", "mfa") => Reads::MFA,
        ("context", "method") => Reads::METHOD,
        ("context", "route_class") => Reads::ROUTE_CLASS,
        // Gates: always open when Cedar is asked, whoever asks. The role is in every key.
        ("context", "address_allowed")
        | ("principal", "suspended")
        | ("resource", "suspended" | "partner_active" | "approved" | "active" | "role") => Reads::NOTHING,
        ("principal", "holds") | ("resource", "granted" | "denied" | "ceiling") => Reads::SETS,
        _ => whole_variable(variable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(scope: &str, condition: &str) -> Reads {
        let text = format!("@id(\"x\") forbid ({scope}) when {{ {condition} }};");
        of(&Policy::parse(None, text).unwrap())
    }

    const ANY: &str = "principal, action, resource";

    #[test]
    fn finds_the_attributes_of_the_context() {
        assert_eq!(reads(ANY, "context.mfa"), Reads::MFA);
        assert_eq!(reads(ANY, "context has mfa && context.method == \"GET\""), Reads::MFA.and(Reads::METHOD));
        assert_eq!(reads(ANY, "context.ip.isLoopback() || context[\"now\"] < datetime(\"2026-01-01\")"), {
            Reads::IP.and(Reads::NOW)
        });
        assert_eq!(reads(ANY, "context.route_class like \"w*\""), Reads::ROUTE_CLASS);
        assert_eq!(reads(ANY, "if context.address_allowed then true else false"), Reads::NOTHING);
        assert_eq!(reads(ANY, "context == {mfa: true}"), Reads::CONTEXT);
        assert_eq!(reads(ANY, "(if true then context else context).mfa"), Reads::CONTEXT);
    }

    #[test]
    fn finds_who_and_what_is_looked_at() {
        assert_eq!(reads(ANY, "principal.sub == \"a\""), Reads::PRINCIPAL.and(Reads::SETS));
        assert!(reads(ANY, "[principal].contains(principal)").has(Reads::PRINCIPAL));
        assert_eq!(reads("principal in Partner::\"p\", action, resource", "true"), Reads::PRINCIPAL);
        assert_eq!(reads("principal == PartnerUser::\"p\", action, resource", "true"), Reads::PRINCIPAL);
        assert_eq!(reads("principal is PartnerUser, action, resource is Link", "resource is Link"), Reads::NOTHING);
        assert!(reads("principal is PartnerUser in Partner::\"p\", action, resource", "true").has(Reads::PRINCIPAL));
        assert!(reads("principal, action, resource is Link in Tenant::\"t\"", "true").has(Reads::RESOURCE));
        assert!(reads(ANY, "resource in Tenant::\"t\"").has(Reads::RESOURCE));
        assert!(reads(ANY, "resource is Link in Tenant::\"t\"").has(Reads::RESOURCE));
        assert!(reads(ANY, "resource.tenant.status == \"suspended\"").has(Reads::RESOURCE));
        assert!(reads(ANY, "resource has ends").has(Reads::RESOURCE));
        assert!(reads(ANY, "resource has tenant.status").has(Reads::RESOURCE));
        assert_eq!(reads(ANY, "action in principal.holds && !(action in resource.denied)"), Reads::SETS);
        assert_eq!(reads(ANY, "resource.role == Role::\"auditor\" && resource.active"), Reads::NOTHING);
        assert_eq!(reads(ANY, "action == Action::\"partner.tenants.list\""), Reads::NOTHING);
    }

    #[test]
    fn records_that_look_like_operators_hide_nothing() {
        assert_eq!(reads(ANY, "{\"Var\": context.mfa} == {\"Var\": true}"), Reads::MFA);
        assert_eq!(reads(ANY, "{\".\": context.ip.isLoopback()} == {\".\": true}"), Reads::IP);
        assert!(reads(ANY, "{\"is\": principal.sub} == {\"is\": \"x\"}").has(Reads::PRINCIPAL));
    }
}
