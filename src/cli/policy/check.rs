//! `linkgate policy check`: is this set valid, and is there anything in it worth a look?
//!
//! What is refused here cannot be loaded by a server either: there is one `Bundle::load`. Warnings let a set pass, unless
//! `--deny-warnings` says otherwise.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    SetArgs,
    junit::{self, Case, Suite},
    name_of,
};
use crate::{
    cli::{
        context::Context,
        outcome::{Exit, Failure},
    },
    ops::policy::check::{Finding, Report},
};

/// Check a policy set: schema, role table, generated text and guardrails
///
/// Errors: what strict validation refuses, and a `forbid` that can fail (Cedar skips a policy that fails, so it would
/// forbid nothing). Warnings: rules that can never match or always match, that others cover, that name nobody, and every
/// hand-written permit. Exit code 3 where the set cannot be loaded.
#[derive(clap::Args, Debug)]
pub struct CheckArgs {
    #[command(flatten)]
    set: SetArgs,
    /// Write the result as JUnit XML, one test case a file
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Fail on warnings too
    #[arg(long)]
    deny_warnings: bool,
}

pub fn run(args: &CheckArgs, context: &Context) -> Result<(), Failure> {
    let dir = args.set.dir(context);
    let (report, files) = Report::of(dir.as_deref(), name_of(dir.as_deref()));
    if let Some(path) = &args.junit {
        junit::write(path, "linkgate policy check", &[suite(&report, files, args.deny_warnings)])?;
    }
    context.console.show(&report, report.text())?;
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    match (report.errors.len(), report.warnings.len()) {
        (0, 0) => Ok(()),
        (0, warnings) if args.deny_warnings => Err(Failure::new(Exit::Invalid, count(warnings, "warning"))),
        (0, _) => Ok(()),
        (errors, _) => {
            Err(Failure::new(Exit::Invalid, format!("{}: the set cannot be loaded", count(errors, "error"))))
        }
    }
}

fn suite(report: &Report, files: Vec<String>, deny_warnings: bool) -> Suite {
    let mut by_file: BTreeMap<String, (Vec<&Finding>, Vec<&Finding>)> =
        files.into_iter().map(|file| (file, Default::default())).collect();
    for error in &report.errors {
        by_file.entry(error.file.clone()).or_default().0.push(error);
    }
    for warning in &report.warnings {
        let (errors, warnings) = by_file.entry(warning.file.clone()).or_default();
        if deny_warnings { errors.push(warning) } else { warnings.push(warning) }
    }
    let text = |findings: &[&Finding]| findings.iter().map(|one| one.shown.as_str()).collect::<Vec<_>>().join("\n");
    let cases = by_file.into_iter().map(|(name, (errors, warnings))| Case {
        name,
        failure: errors.first().map(|first| (first.message.clone(), text(&errors))),
        output: text(&warnings),
        ..Case::default()
    });
    Suite { name: report.policies.clone(), cases: cases.collect() }
}
