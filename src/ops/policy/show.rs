//! What one link, or one role, amounts to: its Cedar text, and a table of what it lets through.

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    domain::{LinkFacts, LinkId, LinkRole, Millis},
    ops::Trouble,
    policy::{Answer, Bundle, Effective, concrete, effective, plain_link, role_text},
};

/// A link or a role under a set. The table speaks of a user who holds every permission.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PolicyText")]
pub struct Report {
    pub policies: String,
    pub version: String,
    pub link: Option<LinkId>,
    pub role: LinkRole,
    /// The instant that the table is for.
    pub at: Millis,
    pub cedar: String,
    pub permissions: Vec<Effective>,
}

impl Report {
    /// Of a stored link, with all that its gates read.
    pub fn of_link(bundle: &Bundle, name: String, facts: &LinkFacts, at: Millis) -> Self {
        Self::of(bundle, name, facts, at, Some(facts.link.id), concrete(bundle, facts))
    }

    /// Of a live link of this role, without limits or overrides of its own.
    pub fn of_role(bundle: &Bundle, name: String, role: LinkRole, at: Millis) -> Result<Self, Trouble> {
        let facts =
            plain_link(role).ok_or_else(|| Trouble::Internal("no link can be made up for a role".to_owned()))?;
        Ok(Self::of(bundle, name, &facts, at, None, role_text(bundle, role)))
    }

    fn of(bundle: &Bundle, name: String, facts: &LinkFacts, at: Millis, link: Option<LinkId>, cedar: String) -> Self {
        Self {
            policies: name,
            version: bundle.version().to_owned(),
            link,
            role: facts.link.role,
            at,
            cedar,
            permissions: effective(bundle, facts, at),
        }
    }

    /// A Cedar file to the end: the table is a comment.
    pub fn text(&self, bundle: &Bundle) -> String {
        let version = self.version.get(..12).unwrap_or_default();
        let mut lines = vec![
            self.cedar.trim_end().to_owned(),
            format!(
                "\n// A user who holds every permission, at {}, by the set {} (version {version}):",
                self.at, self.policies
            ),
        ];
        let width = self.permissions.iter().map(|row| row.permission.name().len()).max().unwrap_or_default();
        for row in &self.permissions {
            let line = format!("//   {:width$}  {:7}  {}", row.permission.name(), answer(row), because(row, bundle));
            lines.push(line.trim_end().to_owned());
        }
        lines.join("\n")
    }
}

fn answer(row: &Effective) -> &'static str {
    match row.answer {
        Answer::Yes => "yes",
        Answer::No => "no",
        Answer::Depends => "depends",
    }
}

fn because(row: &Effective, bundle: &Bundle) -> String {
    let place = |id: &String| {
        let found = bundle.policies().find(|policy| policy.id == id);
        found.map_or_else(|| id.clone(), |policy| format!("{id} ({})", policy.place))
    };
    let mut parts = Vec::new();
    if let Some(gate) = row.gate {
        parts.push(format!("gate {gate}"));
    }
    if !row.on.is_empty() {
        parts.push(row.on.join(", "));
    }
    if !row.rules.is_empty() {
        parts.push(format!("rule {}", row.rules.iter().map(place).collect::<Vec<_>>().join(", ")));
    }
    parts.join("; ")
}
