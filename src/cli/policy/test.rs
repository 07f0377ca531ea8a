//! `linkgate policy test`: decision tables against the very decision of the gateway, and what no table has looked at.

use std::path::PathBuf;

use super::{
    SetArgs,
    junit::{self, Case, Suite},
    name_of,
};
use crate::{
    cli::{
        context::Context,
        outcome::{Exit, Failure, count},
    },
    policy::suite::{self, CaseReport, Coverage, CoverageKind, Mismatch, SuiteReport},
};

/// Names that are listed of what is not covered, in one group.
const LISTED: usize = 8;

const HELP: &str = r#"Tests stand in `tests/*.toml` of the policy folder:

  switch_on = ["export-needs-mfa"]       # rules that stand commented out in guardrails/, on for this file alone

  [defaults]                             # facts of every case here: those of `linkgate decide --help`
  user.roles = ["partner_msp_full"]
  link.access_role = "msp_full"

  [[case]]
  name = "without MFA nothing is exported"
  mfa = false
  allow = ["billing.read"]               # permissions, wildcards or scopes, one or several
  deny = ["billing.export"]
  reason = "guardrail"                   # of the denials: reason, code, gate, and exactly the policies that
  policies = "export-needs-mfa"          # determined them (of the allowed ones in a case that denies nothing)

  [[matrix]]
  name = "what each role may do"
  columns = "link.access_role"           # the fact that the heads of the columns give
  table = """
  permission       msp_full  auditor
  billing.read     yes       yes
  billing.write    yes       .
  """

A cell is yes, no, a reason, a code, or `.` for the reason `permission`. `link = false` means that there is no link.
`now` is 2026-06-01T12:00:00Z unless a test says otherwise. Exit code 6 where a decision is not as expected or the
coverage is too low, 3 where the set or a test file is not valid."#;

/// Run the decision tables of a policy set, and report what they cover
#[derive(clap::Args, Debug)]
#[command(after_long_help = HELP)]
pub struct TestArgs {
    #[command(flatten)]
    set: SetArgs,
    /// Folder of tests, or one file [default: tests/ of the policy folder; for the built-in set its own tests]
    #[arg(long, value_name = "PATH")]
    tests: Option<PathBuf>,
    /// Run only cases whose name or file contains this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Write the result as JUnit XML, one test case a case
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Fail where less than so many percent of the roles, permissions, gates or rules were decisive in a test
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, default_missing_value = "100", conflicts_with = "only")]
    require_coverage: Option<usize>,
    /// List everything that is not covered
    #[arg(long)]
    uncovered: bool,
}

pub fn run(args: &TestArgs, context: &Context) -> Result<(), Failure> {
    let dir = args.set.dir(context);
    let report = suite::run(dir.as_deref(), args.tests.as_deref(), args.only.as_deref()).map_err(|errors| {
        Failure::new(
            Exit::Invalid,
            format!("{} in the policy set or its tests\n\n{}", count(errors.problems.len(), "error"), errors.render()),
        )
    })?;
    if let Some(path) = &args.junit {
        junit::write(path, "linkgate policy test", &suites(&report))?;
    }
    let low = args.require_coverage.filter(|wanted| report.coverage.least() < *wanted);
    context.console.show(&report, text(&report, &name_of(dir.as_deref()), low.is_some(), args.uncovered))?;
    if report.cases().next().is_none() {
        return Err(Failure::new(Exit::Verification, "no case was run: nothing was tested"));
    }
    match (report.failures(), low) {
        (0, None) => Ok(()),
        (0, Some(wanted)) => Err(Failure::new(
            Exit::Verification,
            format!("the coverage is {} %, and {wanted} % are required", report.coverage.least()),
        )),
        (failures, _) => {
            let all = report.decisions();
            Err(Failure::new(Exit::Verification, format!("{failures} of {all} decisions are not as expected")))
        }
    }
}

fn text(report: &SuiteReport, name: &str, low: bool, uncovered: bool) -> String {
    let mut lines = Vec::new();
    for file in &report.files {
        for case in file.cases.iter().filter(|case| !case.failures.is_empty()) {
            lines.push(failed(case));
        }
        let failures: usize = file.cases.iter().map(|case| case.failures.len()).sum();
        let decisions: usize = file.cases.iter().map(|case| case.decisions).sum();
        let on = if file.switched_on.is_empty() {
            String::new()
        } else {
            format!(", with {} switched on", file.switched_on.join(", "))
        };
        let result = if failures == 0 { "as expected".to_owned() } else { format!("{failures} NOT as expected") };
        lines.push(format!(
            "{}: {}, {}, {result}{on}",
            file.file,
            count(file.cases.len(), "case"),
            count(decisions, "decision")
        ));
    }
    lines.push(format!("\ncoverage of {name} (version {})", report.version.get(..12).unwrap_or_default()));
    lines.push(coverage(&report.coverage, low || uncovered, uncovered));
    lines.join("\n")
}

/// A failed case: expected and got under each other, and what is needed to see why.
fn failed(case: &CaseReport) -> String {
    let mut lines = vec![format!("FAILED {}: {}", case.place, case.name)];
    for one in &case.failures {
        lines.push(mismatch(one));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn mismatch(one: &Mismatch) -> String {
    let mut lines = vec![
        format!("  {}  ({})", one.permission, one.place),
        format!("    - expected  {}", one.expected),
        format!("    + got       {}", one.got),
    ];
    for (id, place) in &one.policies {
        lines.push(format!("      {id}: {place}"));
    }
    let closed: Vec<&str> = one.closed.iter().map(|gate| gate.gate).collect();
    if closed.len() > 1 {
        lines.push(format!("      closed gates, in the order in which they are told: {}", closed.join(", ")));
    }
    lines.join("\n")
}

fn coverage(coverage: &Coverage, list: bool, all: bool) -> String {
    let mut lines = Vec::new();
    for kind in &coverage.kinds {
        lines.push(format!("  {:>3} %  {} ({} of {})", kind.percent(), kind.name, kind.covered, kind.total));
        if list || kind.missing.keys().any(|group| group == "never decisive") {
            lines.extend(missing(kind, list, all));
        }
    }
    lines.join("\n")
}

/// A guardrail that no test ever made decisive is always named.
fn missing(kind: &CoverageKind, list: bool, all: bool) -> Vec<String> {
    let groups = kind.missing.iter().filter(|(group, _)| list || *group == "never decisive");
    let text = groups.map(|(group, names)| {
        let shown: Vec<&str> = names.iter().map(String::as_str).take(if all { usize::MAX } else { LISTED }).collect();
        let more = names.len().saturating_sub(shown.len());
        let more = if more == 0 { String::new() } else { format!(" and {more} more (`--uncovered` lists them)") };
        format!("           {group}: {}{more}", shown.join(", "))
    });
    text.collect()
}

fn suites(report: &SuiteReport) -> Vec<Suite> {
    let case = |case: &CaseReport| Case {
        name: case.name.clone(),
        failure: case.failures.first().map(|first| {
            let message = format!("{}: expected {}, got {}", first.permission, first.expected, first.got);
            (message, failed(case))
        }),
        ..Case::default()
    };
    let files = report.files.iter();
    files.map(|file| Suite { name: file.file.clone(), cases: file.cases.iter().map(case).collect() }).collect()
}
