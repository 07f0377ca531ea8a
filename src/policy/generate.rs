//! Writes the Cedar text that the role table and the gates of the contract's section 4 mean.
//!
//! One `permit` a role, one for what overrides give a delegate, one `forbid` a gate. The set is the same for everyone
//! and does not grow with the number of links: a link is the resource, its overrides are sets on it. Because every gate
//! but the role's own is a `forbid`, a hand-written `permit` can add to what a role grants and to nothing else.

use std::fmt::Write as _;

use super::roles::{Roles, as_actions};
use crate::domain::{Gate, LinkRole};

/// Ids that start with it belong to generated policies.
pub(super) const PREFIX: &str = "linkgate.";

/// Raised when the same inputs would give another text or meaning; part of the set's version.
pub(super) const GENERATOR: u32 = 1;

/// One generated gate: its id without the prefix, which gate it states, and the policy after its `@id`.
struct Rule {
    id: &'static str,
    gate: Gate,
    says: &'static str,
    policy: &'static str,
}

const GATES: &[Rule] = &[
    Rule {
        id: "gate.link",
        gate: Gate::Link,
        says: "Only through a link of the caller's own partner.",
        policy: "forbid (principal, action, resource)\nunless { resource is Link && principal.partner == resource.partner };",
    },
    Rule {
        id: "gate.suspension",
        gate: Gate::Suspension,
        says: "No emergency suspension covers user, partner, tenant, link or everything.",
        policy: "forbid (principal, action, resource is Link)\nwhen { principal.suspended || resource.suspended };",
    },
    Rule {
        id: "gate.partner",
        gate: Gate::Partner,
        says: "The partner is active.",
        policy: "forbid (principal, action, resource is Link)\nunless { resource.partner_active };",
    },
    Rule {
        id: "gate.approval",
        gate: Gate::Approval,
        says: "The link is approved.",
        policy: "forbid (principal, action, resource is Link)\nunless { resource.approved };",
    },
    Rule {
        id: "gate.active",
        gate: Gate::Active,
        says: "The link is active.",
        policy: "forbid (principal, action, resource is Link)\nunless { resource.active };",
    },
    Rule {
        id: "gate.started",
        gate: Gate::Started,
        says: "The link has started: its first instant is within.",
        policy: "forbid (principal, action, resource is Link)\nunless { resource.starts <= context.now };",
    },
    Rule {
        id: "gate.ended",
        gate: Gate::Ended,
        says: "The link has not ended: its last instant is without.",
        policy: "forbid (principal, action, resource is Link)\nwhen { resource has ends && resource.ends <= context.now };",
    },
    Rule {
        id: "gate.address",
        gate: Gate::Address,
        says: "The caller's address is within the link's list, if it has one (computed: Cedar cannot iterate networks).",
        policy: "forbid (principal, action, resource is Link)\nunless { context.address_allowed };",
    },
    Rule {
        id: "gate.mfa",
        gate: Gate::Mfa,
        says: "The token shows MFA if the link asks for it.",
        policy: "forbid (principal, action, resource is Link)\nwhen { resource.require_mfa && !context.mfa };",
    },
    Rule {
        id: "gate.user",
        gate: Gate::User,
        says: "The user holds the permission.",
        policy: "forbid (principal, action, resource)\nunless { action in principal.holds };",
    },
    Rule {
        id: "gate.ceiling",
        gate: Gate::Role,
        says: "A link delegated onward grants no more than the links above it.",
        policy: "forbid (principal, action, resource is Link)\nunless { action in resource.ceiling };",
    },
    Rule {
        id: "gate.override",
        gate: Gate::Override,
        says: "No override denies it. Deny beats allow.",
        policy: "forbid (principal, action, resource is Link)\nwhen { action in resource.denied };",
    },
];

/// Id of the generated forbid that states a gate; `None` for gates that no generated policy states.
pub(super) fn gate_id(gate: Gate) -> Option<String> {
    let name = match gate {
        // Its closed state is the absence of a permit; the ceiling has an id of its own.
        Gate::Role | Gate::Guardrail => return None,
        other => GATES.iter().find(|rule| rule.gate == other)?.id,
    };
    Some(format!("{PREFIX}{name}"))
}

/// The gate that a determining `forbid` states: its own for a generated one, `Guardrail` for any other.
pub(super) fn gate_of(id: &str) -> Gate {
    id.strip_prefix(PREFIX)
        .and_then(|name| GATES.iter().find(|rule| rule.id == name))
        .map_or(Gate::Guardrail, |rule| rule.gate)
}

/// Id of the permit of a role.
pub(super) fn role_id(role: LinkRole) -> String {
    format!("{PREFIX}role.{role}")
}

/// Id of the permit that gives a delegate what its overrides set to true.
pub(super) fn grant_id() -> String {
    format!("{PREFIX}grant.{}", LinkRole::Delegate)
}

/// The generated policies as text, in the order in which a person wants to read them.
pub(super) fn generate(roles: &Roles) -> String {
    let mut out = String::from(
        "// Generated from `roles.toml` and the gates of the contract; never edited by hand.\n\n// What each link role grants.\n",
    );
    for (role, entries) in &roles.link_entries {
        let actions: Vec<_> = entries.iter().flat_map(|entry| as_actions(entry)).collect();
        if actions.is_empty() {
            continue;
        }
        let list = actions.iter().map(|action| format!("Action::\"{action}\"")).collect::<Vec<_>>().join(",\n    ");
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "\n@id(\"{}\")\npermit (\n  principal,\n  action in [\n    {list}\n  ],\n  resource is Link\n)\nwhen {{ resource.role == Role::\"{role}\" }};\n",
            role_id(*role)
        );
    }
    let _ = write!(
        out,
        "\n// What its overrides grant a delegate, and nobody else.\n@id(\"{}\")\npermit (principal, action, resource is Link)\nwhen {{ resource.role == Role::\"delegate\" && action in resource.granted }};\n",
        grant_id()
    );
    for rule in GATES {
        let _ = write!(out, "\n// {}\n@id(\"{PREFIX}{}\")\n{}\n", rule.says, rule.id, rule.policy);
    }
    out
}
