//! `linkgate policy prove`: what holds for every request that could ever be asked, or one for which it does not.
//!
//! Three ends beside success, each with its own exit code: something is broken (6), something is neither proved nor
//! broken, for want of an answer or of a solver (9), or the input is invalid (3). Nothing undecided ever passes.

use std::{num::NonZeroUsize, path::PathBuf};

use super::SetArgs;
use crate::cli::{context::Context, outcome::Failure};

const HELP: &str = "\
Proves, for every permission, with and without a link, and for all users, links and moments, what the file of invariants
says; with --against too that the set allows nothing that an older set refuses. What does not hold is shown by a request
for which it does not: in words, and as a line for `linkgate decide`.

Needs the solver cvc5 (Debian, Ubuntu: apt-get install cvc5; other systems: a release from
https://github.com/cvc5/cvc5/releases). The variable CVC5 names another binary.

Exit codes: 6, something is broken; 9, something was neither proved nor broken (no solver, out of time), which is no pass;
3, policies or invariants are invalid.";

/// Prove invariants for all requests, or show a request that breaks one
#[derive(clap::Args, Debug)]
#[command(after_long_help = HELP)]
pub struct ProveArgs {
    #[command(flatten)]
    set: SetArgs,
    /// What must hold [default: invariants.toml of the set's folder, else the built-in one]
    #[arg(long, value_name = "FILE")]
    invariants: Option<PathBuf>,
    /// An older set: prove too that the set allows nothing that this one refuses
    #[arg(long, value_name = "DIR")]
    against: Option<PathBuf>,
    /// Longest time for one question to the solver, in milliseconds
    #[arg(long, value_name = "N", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    timeout_ms: u64,
    /// Solvers at a time [default: one a processor]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Write the outcome as JUnit XML too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

#[cfg(feature = "prove")]
pub use with_solver::run;

/// Without the feature the command says so: a pipeline that asks for a proof must not go on without one.
#[cfg(not(feature = "prove"))]
pub fn run(args: &ProveArgs, _: &Context) -> Result<(), Failure> {
    let ProveArgs { set: _, invariants: _, against: _, timeout_ms: _, jobs: _, junit: _ } = args;
    let message =
        "this linkgate was built without `prove`, nothing was proved: use one that is built with default features";
    Err(Failure::new(crate::cli::outcome::Exit::Undecided, message))
}

#[cfg(feature = "prove")]
mod with_solver {
    use std::{
        fmt::Write as _,
        sync::Arc,
        time::{Duration, Instant},
    };

    use indicatif::{ProgressBar, ProgressStyle};
    use serde::Serialize;

    use super::{
        super::{
            junit::{self, Case, Suite},
            load, name_of,
        },
        Context, Failure, NonZeroUsize, ProveArgs,
    };
    use crate::{
        cli::outcome::Exit,
        policy::{
            PolicyErrors,
            prove::{Confirmed, Counterexample, Invariants, OUTSIDE, Proof, SolverSettings, State, Verdict, prove},
        },
    };

    /// What to do where the set's folder has no invariants.
    const LACKS_OWN: &str = " (the folder has no invariants.toml; to have your own, begin with the shipped one: \
        policies/invariants.toml of what `linkgate demo --dir DIR` writes)";
    const SUITE: &str = "linkgate policy prove";

    /// What `--json` prints.
    #[derive(Serialize)]
    struct Report<'a> {
        policies: &'a str,
        version: &'a str,
        against: Option<String>,
        invariants: &'a str,
        /// Shipped invariants that the file does not have.
        not_asked: &'a [String],
        state: State,
        seconds: f64,
        #[serde(flatten)]
        proof: &'a Proof,
        outside: [&'static str; OUTSIDE.len()],
    }

    pub fn run(args: &ProveArgs, context: &Context) -> Result<(), Failure> {
        let began = Instant::now();
        let dir = args.set.dir(context);
        let set = Arc::new(load(dir.as_deref())?);
        let older = args.against.as_deref().map(|dir| load(Some(dir)).map(Arc::new)).transpose()?;
        // A file as a whole has no lines to show: it is told once.
        let invalid = |errors: PolicyErrors| match errors.problems.as_slice() {
            [one] if one.line().is_none() => Failure::new(Exit::Invalid, one),
            _ => Failure::new(Exit::Invalid, format!("{errors}\n\n{}", errors.render())),
        };
        let invariants = Invariants::load(&set, dir.as_deref(), args.invariants.as_deref()).map_err(invalid)?;
        let settings = SolverSettings {
            binary: std::env::var_os("CVC5").filter(|name| !name.is_empty()).unwrap_or_else(|| "cvc5".into()),
            timeout: Duration::from_millis(args.timeout_ms),
        };
        let jobs = args.jobs.or(std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
        let bar = progress_bar();
        let told = |finished, all| {
            bar.set_length(u64::try_from(all).unwrap_or(u64::MAX));
            bar.set_position(u64::try_from(finished).unwrap_or(u64::MAX));
        };
        let proving = prove(set.clone(), &invariants, older, settings, jobs, told);
        let proof = interruptible(jobs, async { proving.await.map_err(|error| undecided(&error.to_string())) });
        bar.finish_and_clear();
        let seconds = began.elapsed().as_secs_f64();
        if let Some(path) = &args.junit {
            junit::write(path, SUITE, &[Suite { name: SUITE.to_owned(), cases: cases(&proof) }])?;
        }
        let proof = proof?;
        let name = name_of(dir.as_deref());
        let report = Report {
            policies: &name,
            version: set.version(),
            against: args.against.as_ref().map(|dir| dir.display().to_string()),
            invariants: &invariants.file,
            not_asked: &invariants.missing,
            state: proof.state(),
            seconds,
            proof: &proof,
            outside: OUTSIDE,
        };
        let ask_again = dir.as_ref().map(|dir| format!(" --policies {}", quoted(&dir.display().to_string())));
        let lacks_own = dir.is_some() && args.invariants.is_none() && invariants.is_built_in();
        context.console.show(&report, text(&report, &ask_again.unwrap_or_default(), lacks_own))?;
        let count = |state| proof.verdicts.iter().filter(|verdict| verdict.state == state).count();
        let all = proof.verdicts.len();
        match proof.state() {
            State::Proved => Ok(()),
            State::Broken => {
                Err(Failure::new(Exit::Verification, format!("{} of {all} do not hold", count(State::Broken))))
            }
            State::Undecided => {
                Err(undecided(&format!("{} of {all} were neither proved nor broken", count(State::Undecided))))
            }
        }
    }

    fn undecided(what: &str) -> Failure {
        Failure::new(Exit::Undecided, format!("{what}; this is no pass"))
    }

    /// Runs it on its own threads until it is done or a signal asks for the end. Either way no solver is left behind.
    fn interruptible<T>(jobs: NonZeroUsize, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let threads = jobs.get().min(crate::policy::prove::MAX_JOBS);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
        let done = runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            tokio::select! {
                biased;
                _ = interrupt.recv() => Err(undecided("interrupted")),
                _ = terminate.recv() => Err(undecided("interrupted")),
                done = work => done,
            }
        });
        runtime.shutdown_timeout(Duration::from_secs(5));
        done
    }

    fn progress_bar() -> ProgressBar {
        let style = ProgressStyle::with_template("{spinner} proving {wide_bar} {pos}/{len} {elapsed}");
        // Drawn on standard error, and only where that is a terminal.
        ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }

    fn cases(proof: &Result<Proof, Failure>) -> Vec<Case> {
        let first = |text: String| (text.lines().next().unwrap_or_default().to_owned(), text);
        match proof {
            Err(failure) => {
                vec![Case { name: "all".to_owned(), error: Some(first(failure.message.clone())), ..Case::default() }]
            }
            Ok(proof) => proof
                .verdicts
                .iter()
                .map(|verdict| {
                    let told = || first(format!("{}\n{}", verdict.says, details(verdict, "")));
                    Case {
                        name: verdict.name.clone(),
                        failure: (verdict.state == State::Broken).then(told),
                        error: (verdict.state == State::Undecided).then(told),
                        ..Case::default()
                    }
                })
                .collect(),
        }
    }

    // Writing to a string cannot fail: the results of `write!` are let go.
    fn text(report: &Report<'_>, ask_again: &str, lacks_own: bool) -> String {
        let mut out = format!("policies    {} (version {})\n", report.policies, short(report.version));
        if let Some(older) = &report.against {
            let _ = writeln!(out, "against     {older}");
        }
        let _ = writeln!(out, "invariants  {}{}", report.invariants, if lacks_own { LACKS_OWN } else { "" });
        let _ = writeln!(
            out,
            "solver      {}, {} environments in {:.1} s\n",
            report.proof.solver, report.proof.environments, report.seconds
        );
        for verdict in &report.proof.verdicts {
            let state = match verdict.state {
                State::Proved => "proved",
                State::Broken => "BROKEN",
                State::Undecided => "UNDECIDED",
            };
            let _ = writeln!(out, "{state:<10}  {}: {}", verdict.name, verdict.says);
            out.push_str(&details(verdict, ask_again));
        }
        if !report.not_asked.is_empty() {
            let _ =
                writeln!(out, "\nnot asked, because {} lacks them: {}", report.invariants, report.not_asked.join(", "));
        }
        out.push_str("\nNot part of the proof:\n");
        for outside in report.outside {
            let _ = writeln!(out, "- {outside}");
        }
        out.trim_end().to_owned()
    }

    fn short(version: &str) -> &str {
        version.get(..12).unwrap_or(version)
    }

    /// Everything under a verdict that is not proved.
    fn details(verdict: &Verdict, ask_again: &str) -> String {
        let mut out = String::new();
        for why in &verdict.why {
            let _ = writeln!(out, "            {why}");
        }
        if let Some(example) = &verdict.counterexample {
            out.push_str(&counterexample(example, ask_again));
        }
        if let Some((first, more)) = verdict.places.split_first() {
            let _ = match more.len() {
                0 => writeln!(out, "            where: {first}"),
                more => writeln!(out, "            where: {first}, and {more} more"),
            };
        }
        out
    }

    fn counterexample(example: &Counterexample, ask_again: &str) -> String {
        let told = match example.confirmed {
            Confirmed::BySet => "a request for which it does not hold (confirmed: the policy set decides so)",
            Confirmed::ByCedarOnly => {
                "a request for which it does not hold (confirmed by Cedar for these entities, which the gateway itself \
                 never makes)"
            }
            Confirmed::No => "the solver's request, for which it holds when it is replayed",
        };
        let mut out = format!("            {told}:\n");
        for (what, told) in &example.facts {
            let _ = writeln!(out, "              {what:<10}{told}");
        }
        if !example.policies.is_empty() {
            let _ = writeln!(out, "              {:<10}{}", "policies", example.policies.join(", "));
        }
        if let Some(gateway) = &example.gateway {
            let _ = writeln!(out, "              {:<10}{gateway} (its gates outside of Cedar included)", "gateway");
        }
        if let Some(question) = &example.question {
            let line = quoted(&question.to_string());
            let _ = writeln!(out, "              {:<10}echo {line} | linkgate decide{ask_again}", "again");
        }
        out
    }

    /// For a shell.
    fn quoted(text: &str) -> String {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
        if !text.is_empty() && text.chars().all(plain) {
            return text.to_owned();
        }
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
