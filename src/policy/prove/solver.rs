//! The solver: cvc5 in a process of its own for each question, bounded in time, memory and output.
//!
//! A fresh process costs some 20 ms and leaves nothing behind: no state of an earlier question, no half-read answer. It
//! ends by its own limit (`--tlimit`), by the kernel's (CPU time, address space), or is killed: after a grace period, or
//! when the question is dropped (ctrl-c). It is given an environment without the gateway's secrets.
//!
//! Nothing but a clean `unsat` is a proof: any other answer, a failing exit status, too much output or silence is an
//! error. A solver that hangs or cannot be started is not asked again ([`Health`]).

use std::{
    ffi::OsString,
    process::{ExitStatus, Stdio},
    sync::{Arc, OnceLock},
    time::Duration,
};

use cedar_policy_symcc::{
    SmtLibScript,
    solver::{Decision, DecisionWithModel, Solver, SolverError},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// Most address space of one solver; the shipped questions take some 100 MB.
const MAX_MEMORY_BYTES: u64 = 4 << 30;
/// Most that a solver may write: a model of a counterexample has some kilobytes.
const MAX_ANSWER_BYTES: u64 = 16 << 20;
const MAX_COMPLAINT_BYTES: u64 = 4 << 10;
/// What a solver gets beyond its own time limit before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// How to install the solver; part of every message that says that it is missing.
pub const HOW_TO_INSTALL: &str = "install cvc5 (Debian, Ubuntu: apt-get install cvc5; other systems: a release from \
     https://github.com/cvc5/cvc5/releases), or name the binary by the variable CVC5";

/// Which solver, and for how long.
#[derive(Clone, Debug)]
pub struct SolverSettings {
    /// A name to look for in PATH, or a path.
    pub binary: OsString,
    /// Longest time for one question.
    pub timeout: Duration,
}

/// The solver cannot be used at all, for any question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("the solver `{binary}` cannot be started ({error}): {HOW_TO_INSTALL}")]
    Missing { binary: String, error: String },
    #[error(
        "the solver `{binary}` did not end within {seconds} s of its time limit and was killed; it was not asked again"
    )]
    Hangs { binary: String, seconds: u64 },
    #[error("the solver `{binary}` does not pass a first test ({error}): {HOW_TO_INSTALL}")]
    Wrong { binary: String, error: String },
}

/// Shared by all questions: set once, by the first that finds the solver unusable.
pub(super) type Health = OnceLock<Unusable>;

/// One solver for one question after the other, each in its own process.
#[derive(Clone, Debug)]
pub(super) struct Cvc5 {
    settings: Arc<SolverSettings>,
    health: Arc<Health>,
    /// The question as it is being written.
    script: Vec<u8>,
}

impl Cvc5 {
    pub(super) fn new(settings: Arc<SolverSettings>, health: Arc<Health>) -> Self {
        Self { settings, health, script: Vec::new() }
    }

    /// Asks two questions whose answers are known, and gives the solver's version: what starts under the right name but
    /// is no solver must not decide anything.
    pub(super) async fn probe(&mut self) -> Result<String, Unusable> {
        let binary = self.binary();
        let wrong = |error: String| Unusable::Wrong { binary: binary.clone(), error };
        let mut version = String::new();
        for (wanted, than) in [("sat", ">"), ("unsat", "<")] {
            self.script = format!("(set-logic ALL)(declare-const x Int)(assert (> x 0))(assert ({than} x 0))").into();
            match self.ask(Some("(get-info :version)")).await {
                Ok((word, rest)) if word == wanted => version.push_str(&rest),
                Ok((word, _)) => return Err(wrong(format!("it answered `{word}` where the answer is {wanted}"))),
                Err(error) => return Err(self.health.get().cloned().unwrap_or_else(|| wrong(error))),
            }
        }
        let number = version.trim().trim_start_matches("(:version").trim_end_matches(')').trim().trim_matches('"');
        Ok(number.chars().filter(|letter| !letter.is_control()).take(64).collect())
    }

    fn binary(&self) -> String {
        self.settings.binary.to_string_lossy().into_owned()
    }

    /// Puts the script to a new process. The first line of the answer, and what follows where it is `sat`.
    async fn ask(&mut self, if_sat: Option<&str>) -> Result<(String, String), String> {
        let mut script = std::mem::take(&mut self.script);
        if self.health.get().is_some() {
            return Err("not asked: the solver failed before".to_owned());
        }
        script.extend_from_slice(b"\n(check-sat)\n");
        let mut child = self.start()?;
        let longest = self.settings.timeout + GRACE;
        let Ok(done) = timeout(longest, converse(&mut child, &script, if_sat)).await else {
            // Fails only for a process that has just ended by itself.
            let _ = child.kill().await;
            let hangs = Unusable::Hangs { binary: self.binary(), seconds: GRACE.as_secs() };
            return Err(self.health.get_or_init(|| hangs).to_string());
        };
        let _ = child.kill().await;
        done.map_err(|error| format!("reading the solver's answer failed: {error}"))?.judge(self.settings.timeout)
    }

    fn start(&self) -> Result<Child, String> {
        let limit = self.settings.timeout.as_millis();
        let mut command = Command::new(&self.settings.binary);
        command.args(["--lang", "smt"]).arg(format!("--tlimit-per={limit}")).arg(format!("--tlimit={}", limit + 500));
        command.env_clear();
        for name in ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn().map_err(|error| {
            let missing = Unusable::Missing { binary: self.binary(), error: error.to_string() };
            self.health.get_or_init(|| missing).to_string()
        })?;
        bound(&child, self.settings.timeout)?;
        Ok(child)
    }
}

/// Limits that the kernel holds, even if this process is gone. Set before the process is told anything.
#[cfg(target_os = "linux")]
fn bound(child: &Child, time: Duration) -> Result<(), String> {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let seconds = (time + GRACE).as_secs() + 1;
    for (resource, most) in [(Resource::As, MAX_MEMORY_BYTES), (Resource::Cpu, seconds), (Resource::Core, 0)] {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        let Some(pid) = pid else { return Ok(()) };
        match prlimit(Some(pid), resource, limit) {
            // Ended already: its answer, if any, is judged as every other.
            Ok(_) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(format!("the solver's limits could not be set: {error}")),
        }
    }
    Ok(())
}

/// Elsewhere the time limits alone hold.
#[cfg(not(target_os = "linux"))]
fn bound(_: &Child, _: Duration) -> Result<(), String> {
    Ok(())
}

/// What a solver said until it ended.
struct Said {
    first: String,
    rest: String,
    complaint: String,
    status: ExitStatus,
}

impl Said {
    fn judge(self, limit: Duration) -> Result<(String, String), String> {
        let complaint = self.complaint.trim();
        match self.first.trim() {
            "unknown" => Ok(("unknown".to_owned(), String::new())),
            word @ ("sat" | "unsat") if self.status.success() => Ok((word.to_owned(), self.rest)),
            _ if complaint.contains("interrupted by timeout") => {
                Err(format!("no answer within {} ms", limit.as_millis()))
            }
            other => {
                let excerpt = |text: &str| text.chars().take(200).collect::<String>();
                Err(format!("the solver answered `{}` and {}: {}", excerpt(other), self.status, excerpt(complaint)))
            }
        }
    }
}

async fn converse(child: &mut Child, script: &[u8], if_sat: Option<&str>) -> std::io::Result<Said> {
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(std::io::Error::other("the solver has no standard streams"));
    };
    let talk = async {
        let mut lines = BufReader::new(stdout.take(MAX_ANSWER_BYTES));
        let (mut first, mut rest) = (String::new(), Vec::new());
        // A solver that does not listen has ended or will be killed; what it says counts, not what it heard.
        let _ = stdin.write_all(script).await;
        let _ = stdin.flush().await;
        lines.read_line(&mut first).await?;
        if let (Some(more), "sat") = (if_sat, first.trim()) {
            let _ = stdin.write_all(more.as_bytes()).await;
        }
        let _ = stdin.write_all(b"\n(exit)\n").await;
        drop(stdin);
        lines.read_to_end(&mut rest).await?;
        if lines.get_ref().limit() == 0 {
            return Err(std::io::Error::other(format!("it is longer than {MAX_ANSWER_BYTES} bytes")));
        }
        let rest = String::from_utf8(rest).map_err(std::io::Error::other)?;
        Ok((first, rest))
    };
    let listen = async {
        let mut complaint = Vec::new();
        stderr.take(MAX_COMPLAINT_BYTES).read_to_end(&mut complaint).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&complaint).into_owned())
    };
    let ((first, rest), complaint) = tokio::try_join!(talk, listen)?;
    Ok(Said { first, rest, complaint, status: child.wait().await? })
}

impl Solver for Cvc5 {
    fn smtlib_input(&mut self) -> &mut (dyn AsyncWrite + Unpin + Send) {
        &mut self.script
    }

    async fn enable_models(&mut self) -> Result<(), SolverError> {
        Ok(self.smtlib_input().set_option("produce-models", "true").await?)
    }

    async fn check_sat(&mut self) -> Result<Decision, SolverError> {
        match self.ask(None).await.map_err(SolverError::Solver)?.0.as_str() {
            "sat" => Ok(Decision::Sat),
            "unsat" => Ok(Decision::Unsat),
            _ => Ok(Decision::Unknown),
        }
    }

    async fn check_sat_with_model(&mut self) -> Result<DecisionWithModel, SolverError> {
        let (word, model) = self.ask(Some("(get-model)")).await.map_err(SolverError::Solver)?;
        match word.as_str() {
            "sat" => Ok(DecisionWithModel::Sat { model }),
            "unsat" => Ok(DecisionWithModel::Unsat),
            _ => Ok(DecisionWithModel::Unknown),
        }
    }
}
