//! Flips as `replay` and `shadow` are asked for them and show them; counted they are in `ops::policy::flips`.

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

pub use crate::ops::policy::flips::{Direction, Flips, Key, Row, told_missing};
use crate::{
    audit::sweep::{Progress, Wanted},
    cli::outcome::{Console, Failure, print},
    config,
    domain::{Millis, PartnerId},
    ops::{
        plain,
        policy::flips::{cells, write_csv},
    },
};

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

/// A table for people, or CSV; `summary` stands before the table.
pub fn show<T: Serialize>(
    console: &Console,
    csv: bool,
    report: &T,
    rows: &[&Row],
    summary: &str,
) -> Result<(), Failure> {
    if csv && !console.json {
        let mut text = Vec::new();
        write_csv(rows, &mut text).map_err(Failure::failed)?;
        return print(&text);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_durations_back_or_instants() {
        assert_eq!(since("2026-01-01").unwrap(), Millis::parse("2026-01-01").unwrap());
        let then = since("7d").unwrap();
        let week = Millis::now().0 - then.0;
        assert!((604_800_000..604_900_000).contains(&week), "{week}");
        assert!(since("yesterday").unwrap_err().contains("7d"));
    }
}
