//! Flips: decisions in which two policy sets differ, counted by rule, partner and tenant. For `replay` and `shadow`.

use std::{collections::BTreeMap, io::Write};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::{
    audit::sweep::{Progress, Wanted},
    cli::{
        audit::plain,
        outcome::{Console, Failure},
    },
    config,
    domain::{DecisionId, Millis, PartnerId, sheet::harmless},
};

/// Most groups that are kept apart; the rest are counted as one.
const MAX_GROUPS: usize = 100_000;
/// Decision ids kept of each group.
const EXAMPLES: usize = 3;
/// Groups that a terminal shows; `--json` and `--csv` have all.
const SHOWN: usize = 40;

/// Which records are looked at.
#[derive(Args, Clone, Debug)]
pub struct PeriodArgs {
    /// From this time on: a duration back from now (7d, 12h), RFC 3339, or a date
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = since)]
    pub since: Millis,
    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub until: Option<Millis>,
    /// Only requests of this partner
    #[arg(long, value_name = "UUID")]
    pub partner: Option<PartnerId>,
    /// Only decisions about this tenant
    #[arg(long, value_name = "ID")]
    pub tenant: Option<String>,
    /// Folder of the audit journal [default: the configured one]
    #[arg(long, value_name = "DIR")]
    pub journal: Option<std::path::PathBuf>,
    /// Print one CSV line a group
    #[arg(long)]
    pub csv: bool,
}

impl PeriodArgs {
    pub fn wanted(&self) -> Wanted {
        Wanted { since: Some(self.since), until: self.until, partner_id: self.partner, tenant: self.tenant.clone() }
    }

    pub fn dir(&self, context: &crate::cli::context::Context) -> Result<std::path::PathBuf, Failure> {
        self.journal.clone().map_or_else(|| Ok(context.config()?.audit.dir), Ok)
    }
}

fn since(text: &str) -> Result<Millis, String> {
    match config::parse_duration(text) {
        Ok(back) => {
            let back = i64::try_from(back.as_millis()).unwrap_or(i64::MAX);
            Ok(Millis(Millis::now().0.saturating_sub(back)))
        }
        Err(_) => Millis::parse(text).map_err(|error| format!("{error}, or a duration back from now, such as 7d")),
    }
}

/// From refused to allowed first: that is what a reviewer must see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
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
#[derive(Debug, Serialize)]
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

/// A table for people, or CSV; `summary` stands before the table.
pub fn show<T: Serialize>(
    console: &Console,
    csv: bool,
    report: &T,
    rows: &[&Row],
    summary: &str,
) -> Result<(), Failure> {
    if csv && !console.json {
        return write_csv(rows);
    }
    let mut text = summary.to_owned();
    if !rows.is_empty() {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["flip", "count", "partner", "tenant", "permission", "refused by", "permitted by", "example"]);
        for row in rows.iter().take(SHOWN) {
            table.add_row(cells(row).map(|cell| plain(&cell)));
        }
        text.push_str(&format!("\n{table}"));
    }
    if rows.len() > SHOWN {
        text.push_str(&format!("\nand {} more groups: --json or --csv show all", rows.len() - SHOWN));
    }
    console.show(report, text)
}

fn cells(row: &Row) -> [String; 8] {
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

fn write_csv(rows: &[&Row]) -> Result<(), Failure> {
    let mut out = csv::Writer::from_writer(std::io::stdout().lock());
    let failed = |error: csv::Error| Failure::failed(error);
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
    ])
    .map_err(failed)?;
    for row in rows {
        let [direction, count, partner, tenant, action, refused, permitted, _] =
            cells(row).map(|cell| harmless(&cell).into_owned());
        let id = row.key.partner_id.map(|id| id.to_string()).unwrap_or_default();
        let examples = row.examples.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        out.write_record([direction, count, id, partner, tenant, action, refused, permitted, examples])
            .map_err(failed)?;
    }
    out.flush().and_then(|()| std::io::stdout().flush()).map_err(Failure::from)
}

/// Draws nothing where standard error is no terminal.
pub struct Bar(ProgressBar);

impl Bar {
    pub fn start() -> Self {
        let template = "{spinner} {wide_bar} {bytes}/{total_bytes} {eta}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_style(style))
    }

    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}

impl Progress for Bar {
    fn total(&self, bytes: u64) {
        self.0.set_length(bytes);
    }

    fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }
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

    #[test]
    fn times_are_durations_back_or_instants() {
        assert_eq!(since("2026-01-01").unwrap(), Millis::parse("2026-01-01").unwrap());
        let then = since("7d").unwrap();
        let week = Millis::now().0 - then.0;
        assert!((604_800_000..604_900_000).contains(&week), "{week}");
        assert!(since("yesterday").unwrap_err().contains("7d"));
    }
}
