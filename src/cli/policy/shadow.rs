//! `linkgate policy shadow report`: where the shadow set said something else than the set in force, and what was let
//! through because `policy.enforce` is false; from the audit journal, by rule, partner and tenant.

use std::{num::NonZero, thread::available_parallelism};

use super::flips::{self, Bar, PeriodArgs, Row};
use crate::{
    cli::{
        context::Context,
        outcome::{Failure, tell},
        trouble::unreadable,
    },
    ops::policy::shadow::{Report, report},
};

/// What a shadow policy set said beside the one in force
#[derive(clap::Args, Debug)]
pub struct ShadowArgs {
    #[command(subcommand)]
    command: ShadowCommand,
}

#[derive(clap::Subcommand, Debug)]
enum ShadowCommand {
    /// Count flips by rule, partner and tenant
    Report(PeriodArgs),
}

pub fn run(args: &ShadowArgs, context: &Context) -> Result<(), Failure> {
    let ShadowCommand::Report(period) = &args.command;
    let journal = period.dir(context)?;
    let threads = available_parallelism().map_or(1, NonZero::get);
    let bar = Bar::start();
    let report = report(&journal, period.since, &period.wanted(), threads, &bar);
    bar.clear();
    let report = report.map_err(|error| unreadable(error.into()))?;
    if let Some(warning) = flips::told_missing(report.since, report.missing_before) {
        tell(warning);
    }
    let rows: Vec<&Row> = report.flips.iter().chain(&report.waived_by).collect();
    flips::show(&context.console, period.csv, &report, &rows, &summary(&report))
}

fn summary(report: &Report) -> String {
    let mut text = format!(
        "{} records since {}, {} with a shadow set: it agreed in {}, and {} decisions differ ({} deny -> allow, {} allow -> deny)",
        report.records,
        report.since,
        report.shadowed,
        report.agreed,
        report.deny_to_allow + report.allow_to_deny + report.ungrouped,
        report.deny_to_allow,
        report.allow_to_deny,
    );
    if report.errors > 0 {
        text.push_str(&format!("\n{} decisions could not be made by the shadow set (policy_error)", report.errors));
    }
    if report.waived > 0 {
        text.push_str(&format!(
            "\n{} decisions were let through because policy.enforce is false (listed as allow -> deny)",
            report.waived
        ));
    }
    if report.versions.len() > 1 {
        text.push_str(&format!("\nthe shadow set changed: {} versions are counted together", report.versions.len()));
    }
    text
}
