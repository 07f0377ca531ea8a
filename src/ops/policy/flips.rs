//! Flips: decisions in which two policy sets differ, counted by rule, partner and tenant. For `replay` and `shadow`.

use std::{collections::BTreeMap, io::Write};

use schemars::JsonSchema;
use serde::Serialize;

use crate::domain::{DecisionId, Millis, PartnerId, plain::plain, sheet::harmless};

/// Most groups that are kept apart; the rest are counted as one.
const MAX_GROUPS: usize = 100_000;
/// Decision ids kept of each group.
const EXAMPLES: usize = 3;

/// From refused to allowed first: that is what a reviewer must see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "FlipDirection")]
pub enum Direction {
    DenyToAllow,
    AllowToDeny,
}

impl Direction {
    fn as_str(self) -> &'static str {
        match self {
            Self::DenyToAllow => "deny -> allow",
            Self::AllowToDeny => "allow -> deny",
        }
    }
}

/// What makes flips one group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[schemars(rename = "FlipGroup")]
pub struct Key {
    pub direction: Direction,
    pub partner_id: Option<PartnerId>,
    pub partner_name: Option<String>,
    pub tenant: Option<String>,
    /// What refuses it, then or now: a reason and the policy that determined it.
    pub refused_by: String,
    /// For a request that would now be allowed: the policy that permits it.
    pub permitted_by: Option<String>,
    pub action: String,
}

#[derive(Clone, Debug, Default)]
struct Group {
    count: u64,
    examples: Vec<DecisionId>,
}

/// Counted flips.
#[derive(Clone, Debug, Default)]
pub struct Flips {
    groups: BTreeMap<Key, Group>,
    /// In groups beyond the most that are kept.
    beyond: u64,
}

/// One group as it is printed.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "FlipCount")]
pub struct Row {
    #[serde(flatten)]
    key: Key,
    count: u64,
    /// Some decision ids, for `linkgate explain`.
    examples: Vec<DecisionId>,
}

impl Flips {
    pub fn add(&mut self, key: Key, id: DecisionId) {
        self.merge(key, Group { count: 1, examples: vec![id] });
    }

    fn merge(&mut self, key: Key, more: Group) {
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&key) {
            self.beyond += more.count;
            return;
        }
        let group = self.groups.entry(key).or_default();
        group.count += more.count;
        group.examples.extend(more.examples);
        group.examples.sort_unstable();
        group.examples.truncate(EXAMPLES);
    }

    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.beyond += other.beyond;
        for (key, group) in other.groups {
            self.merge(key, group);
        }
        self
    }

    pub fn total(&self) -> u64 {
        self.beyond + self.groups.values().map(|group| group.count).sum::<u64>()
    }

    /// Of each direction, then those in groups that are not kept apart.
    pub fn counts(&self) -> (u64, u64, u64) {
        let of = |direction| {
            let groups = self.groups.iter().filter(|(key, _)| key.direction == direction);
            groups.map(|(_, group)| group.count).sum()
        };
        (of(Direction::DenyToAllow), of(Direction::AllowToDeny), self.beyond)
    }

    /// By direction, then the most frequent first.
    pub fn rows(self) -> Vec<Row> {
        let row = |(key, Group { count, examples })| Row { key, count, examples };
        let mut rows: Vec<Row> = self.groups.into_iter().map(row).collect();
        rows.sort_by_key(|row| (row.key.direction, std::cmp::Reverse(row.count)));
        rows
    }
}

/// One group as the cells of a table: direction, count, partner, tenant, permission, what refuses, what permits, an example.
pub fn cells(row: &Row) -> [String; 8] {
    let key = &row.key;
    [
        key.direction.as_str().to_owned(),
        row.count.to_string(),
        key.partner_name.clone().or(key.partner_id.map(|id| id.to_string())).unwrap_or_default(),
        key.tenant.clone().unwrap_or_default(),
        key.action.clone(),
        key.refused_by.clone(),
        key.permitted_by.clone().unwrap_or_default(),
        row.examples.first().map(ToString::to_string).unwrap_or_default(),
    ]
}

/// One CSV line a group.
pub fn write_csv(rows: &[&Row], out: impl Write) -> Result<(), csv::Error> {
    let mut out = csv::WriterBuilder::new().quote_style(csv::QuoteStyle::NonNumeric).from_writer(out);
    out.write_record([
        "direction",
        "count",
        "partner_id",
        "partner",
        "tenant",
        "permission",
        "refused_by",
        "permitted_by",
        "examples",
    ])?;
    for row in rows {
        let [direction, count, partner, tenant, action, refused, permitted, _] =
            cells(row).map(|cell| harmless(&plain(&cell)).into_owned());
        let id = row.key.partner_id.map(|id| id.to_string()).unwrap_or_default();
        let examples = row.examples.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        out.write_record([direction, count, id, partner, tenant, action, refused, permitted, examples])?;
    }
    Ok(out.flush()?)
}

/// What a reader must know of what is not there.
pub fn told_missing(since: Millis, missing_before: Option<Millis>) -> Option<String> {
    missing_before.map(|at| {
        format!("warning: the journal's segments here begin at {at}: what was recorded from {since} until then is not looked at")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tenant: &str, direction: Direction) -> Key {
        Key {
            direction,
            partner_id: None,
            partner_name: None,
            tenant: Some(tenant.to_owned()),
            refused_by: "guardrail".to_owned(),
            permitted_by: None,
            action: "a".to_owned(),
        }
    }

    #[test]
    fn groups_are_counted_merged_and_shown_with_openings_first() {
        let (mut one, mut two) = (Flips::default(), Flips::default());
        for _ in 0..5 {
            one.add(key("a", Direction::AllowToDeny), DecisionId::generate());
            two.add(key("a", Direction::AllowToDeny), DecisionId::generate());
        }
        two.add(key("b", Direction::DenyToAllow), DecisionId::generate());
        let both = one.and(two);
        assert_eq!((both.total(), both.counts()), (11, (1, 10, 0)));
        let rows = both.rows();
        assert_eq!((rows[0].key.direction, rows[0].count), (Direction::DenyToAllow, 1));
        assert_eq!((rows[1].count, rows[1].examples.len()), (10, EXAMPLES));
    }
}
