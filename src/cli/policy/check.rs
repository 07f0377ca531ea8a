//! `linkgate policy check`: is this set valid, and is there anything in it worth a look?

use serde::Serialize;

use super::{SetArgs, load, name_of};
use crate::cli::{context::Context, outcome::Failure};

/// Check a policy set: schema, role table, generated text and guardrails
#[derive(clap::Args, Debug)]
pub struct CheckArgs {
    #[command(flatten)]
    set: SetArgs,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    policies: String,
    version: String,
    warnings: Vec<String>,
}

pub fn run(args: &CheckArgs, context: &Context) -> Result<(), Failure> {
    let dir = args.set.dir(context);
    let bundle = load(dir.as_deref())?;
    let report = Report {
        policies: name_of(dir.as_deref()),
        version: bundle.version().to_owned(),
        warnings: bundle.warnings().to_vec(),
    };
    let mut lines: Vec<String> = report.warnings.iter().map(|text| format!("warning: {text}")).collect();
    lines.push(format!("{}: valid (version {})", report.policies, report.version.get(..12).unwrap_or_default()));
    context.console.show(&report, lines.join("\n"))
}
