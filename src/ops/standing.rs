//! What a link amounts to now: its own gates, those of the links above it, and the permissions that are left when all of
//! them have had their say.

use schemars::JsonSchema;
use serde::Serialize;

use crate::domain::{Gate, Link, LinkFacts, LinkId, Millis, PartnerId, Permission, RoleTable};

/// A link with all that binds it. Guardrails and the user's own permissions come on top.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "LinkStanding")]
pub struct Standing {
    /// Whether it gives access now.
    live: bool,
    /// The first closed gate where it does not.
    closed: Option<&'static str>,
    effective: Vec<&'static str>,
    effective_from: Millis,
    effective_until: Option<Millis>,
    requires_mfa: bool,
    /// Nearest first; empty for a link that was granted directly.
    parents: Vec<Parent>,
}

/// One link above, as it stands by itself.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "LinkAbove")]
pub struct Parent {
    id: LinkId,
    partner_id: PartnerId,
    access_role: &'static str,
    closed: Option<&'static str>,
    until: Option<Millis>,
    allowed_cidrs: Vec<String>,
    require_mfa: bool,
    permissions: Vec<&'static str>,
}

impl Standing {
    pub fn of(facts: &LinkFacts, roles: &RoleTable, now: Millis) -> Self {
        let (effective_from, effective_until) = facts.window();
        let closed = facts.closed_gate(now);
        let parents = facts.ancestors.iter().map(|parent| {
            let alone = alone(&parent.link, parent.partner_active, parent.suspended);
            Parent {
                id: parent.link.id,
                partner_id: parent.link.partner_id,
                access_role: parent.link.role.as_str(),
                closed: alone.closed_gate(now).map(Gate::as_str),
                until: parent.link.end,
                allowed_cidrs: parent.link.allowed_cidrs.iter().map(ToString::to_string).collect(),
                require_mfa: parent.link.require_mfa,
                permissions: alone.effective(roles).iter().map(Permission::name).collect(),
            }
        });
        Self {
            live: closed.is_none(),
            closed: closed.map(Gate::as_str),
            effective: facts.effective(roles).iter().map(Permission::name).collect(),
            effective_from,
            effective_until,
            requires_mfa: facts.requires_mfa(),
            parents: parents.collect(),
        }
    }

    /// What is granted, in one line.
    pub fn granted(&self) -> String {
        if self.effective.is_empty() { "nothing".to_owned() } else { self.effective.join(", ") }
    }

    pub fn text(&self) -> String {
        let until = |end: Option<Millis>| end.map_or_else(|| "ongoing".to_owned(), |end| format!("until {end}"));
        let state = |closed: Option<&str>| closed.map_or_else(|| "open".to_owned(), |gate| format!("closed ({gate})"));
        let mut lines = vec![
            String::new(),
            format!(
                "now        {}",
                self.closed.map_or_else(|| "live".to_owned(), |gate| format!("closed at gate `{gate}`"))
            ),
            format!("effective  {}", self.granted()),
            format!("window     from {}, {}", self.effective_from, until(self.effective_until)),
        ];
        if self.requires_mfa {
            lines.push("mfa        required".to_owned());
        }
        if !self.parents.is_empty() {
            lines.push("parents    nearest first; each binds this link".to_owned());
        }
        for parent in &self.parents {
            let mut line = format!(
                "  {}  partner {}, {}, {}, {}, {} permissions",
                parent.id,
                parent.partner_id,
                parent.access_role,
                state(parent.closed),
                until(parent.until),
                parent.permissions.len()
            );
            if !parent.allowed_cidrs.is_empty() {
                line.push_str(&format!(", from {}", parent.allowed_cidrs.join(" ")));
            }
            if parent.require_mfa {
                line.push_str(", MFA");
            }
            lines.push(line);
        }
        lines.join("\n")
    }
}

/// A parent without what is above it.
fn alone(link: &Link, partner_active: bool, suspended: bool) -> LinkFacts {
    LinkFacts { link: link.clone(), partner_active, suspended, tenant_status: "".into(), ancestors: Box::default() }
}
