//! Proofs over all requests: invariants of one set, and that a set is no wider than another.
//!
//! Cedar's symbolic compiler turns the policies into formulas, cvc5 looks for a request that breaks one. Reading order:
//! `invariants` reads what shall hold, `entry` one of them, at its `place` in the file; `plan` gathers what is asked,
//! `environment` asks it for one permission with or without a link, `solver` is the process that answers, `example` makes
//! its counterexample readable (`draft`, `tell`), `roles` compares role tables, which the formulas do not see, and `differ`
//! what `policy check` says of the same rules.
//!
//! Nothing passes in silence: every question has an answer in every environment, and what is neither proved nor broken
//! is undecided. What Cedar does not decide is outside of the proof ([`OUTSIDE`]).

mod invariants;

mod entry;
mod place;

mod plan;

mod environment;

mod solver;

mod draft;

mod example;

mod tell;

mod roles;

mod differ;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, num::NonZeroUsize, sync::Arc};

use cedar_policy::RequestEnv;
use serde::Serialize;
use tokio::task::JoinSet;

pub use self::{
    entry::Invariant,
    example::{Confirmed, Counterexample},
    invariants::Invariants,
    solver::{HOW_TO_INSTALL, SolverSettings, Unusable},
};
use self::{
    environment::{Answer, examine},
    example::Claim,
    plan::{Plan, Question, Subject, label},
    solver::{Cvc5, Health},
};
use super::Bundle;

/// What a proof does not cover, for whoever reads its outcome.
pub const OUTSIDE: [&str; 5] = [
    "how the gateway makes the facts: the token's verification, which link and which chain of links it is, emergency \
     suspensions, address lists (`context.address_allowed`), what a user holds and what the links above allow at most, and \
     that instants lie in the years 0 to 9999",
    "the gates in Rust before Cedar, from the link to MFA: they can only refuse more",
    "slices and memo, by which the gateway asks a part of the set or remembers an answer (held by tests)",
    "home requests, public routes, and which permission a route asks for: Cedar is not asked about these",
    "Cedar itself, its symbolic compiler and the solver, which are trusted",
];

/// At most as many solvers at a time, whatever is asked for.
pub const MAX_JOBS: usize = 64;

/// Counterexamples that are tried before one that cannot be replayed is shown.
const MAX_EXAMPLES: usize = 8;

/// What is known of one thing to prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Proved,
    Broken,
    /// Neither: no answer in time, or none that can be used. Never a pass.
    Undecided,
}

/// One invariant, or the comparison with an older set.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    pub name: String,
    pub says: String,
    pub state: State,
    /// Where the solver found it broken or undecided, as `permission through a link`; empty if proved.
    #[serde(rename = "where")]
    pub places: Vec<String>,
    /// Why it is undecided, what is wider, or what another look at the same policies says.
    pub why: Vec<String>,
    pub counterexample: Option<Counterexample>,
}

/// The outcome. `verdicts` has one entry for each invariant, in the file's order, then the comparison if one was asked.
#[derive(Clone, Debug, Serialize)]
pub struct Proof {
    pub solver: String,
    /// Combinations of permission and resource, each asked every question.
    pub environments: usize,
    pub verdicts: Vec<Verdict>,
}

impl Proof {
    /// Broken if anything is; else undecided if anything is.
    pub fn state(&self) -> State {
        let any = |state| self.verdicts.iter().any(|verdict| verdict.state == state);
        if any(State::Broken) {
            State::Broken
        } else if any(State::Undecided) || self.verdicts.is_empty() {
            State::Undecided
        } else {
            State::Proved
        }
    }
}

/// Why there is no outcome at all.
#[derive(Debug, thiserror::Error)]
pub enum NoProof {
    #[error(transparent)]
    Solver(#[from] Unusable),
    /// The sets cannot be compared, or the tools do not take a policy.
    #[error("{0}")]
    Unplanned(String),
    #[error("the schema knows no request: there is nothing to prove")]
    NoEnvironment,
}

impl From<plan::Unplanned> for NoProof {
    fn from(error: plan::Unplanned) -> Self {
        Self::Unplanned(error.to_string())
    }
}

/// Proves the invariants of `set` and, with `against`, that `set` allows nothing that `against` refuses.
///
/// Needs a tokio runtime with time and I/O; `jobs` solvers run at a time. `told` hears of each finished environment
/// (finished, all). Dropping the future ends all solvers.
pub async fn prove(
    set: Arc<Bundle>,
    invariants: &Invariants,
    against: Option<Arc<Bundle>>,
    settings: SolverSettings,
    jobs: NonZeroUsize,
    told: impl FnMut(usize, usize),
) -> Result<Proof, NoProof> {
    let old = against.map(Subject::new);
    let plan = Plan::new(Subject::new(set), &invariants.list, old)?;
    run(Arc::new(plan), &invariants.list, settings, jobs, told).await
}

async fn run(
    plan: Arc<Plan>,
    invariants: &[Invariant],
    settings: SolverSettings,
    jobs: NonZeroUsize,
    told: impl FnMut(usize, usize),
) -> Result<Proof, NoProof> {
    if plan.environments.is_empty() {
        return Err(NoProof::NoEnvironment);
    }
    let health = Arc::new(Health::new());
    let mut solver = Cvc5::new(Arc::new(settings), health.clone());
    let version = solver.probe().await?;
    let answers = examine_all(&plan, &solver, &health, jobs, told).await?;
    let mut verdicts = Vec::with_capacity(plan.questions.len());
    for (at, question) in plan.questions.iter().enumerate() {
        let (name, says) = match invariants.get(at) {
            Some(invariant) => (invariant.name.clone(), invariant.says.clone()),
            None => (
                "no-wider-than-the-older-set".to_owned(),
                "Whatever the set allows, the older set allows too.".to_owned(),
            ),
        };
        let of_question = plan.environments.iter().zip(&answers).map(|(env, answers)| (env, answers.get(at)));
        let mut verdict = judge(&plan, question, of_question);
        (verdict.name, verdict.says) = (name, says);
        verdicts.push(verdict);
    }
    Ok(Proof { solver: format!("cvc5 {version}"), environments: plan.environments.len(), verdicts })
}

/// The answers of each environment, in the order of the environments.
async fn examine_all(
    plan: &Arc<Plan>,
    solver: &Cvc5,
    health: &Health,
    jobs: NonZeroUsize,
    mut told: impl FnMut(usize, usize),
) -> Result<Vec<Vec<Answer>>, Unusable> {
    let environments = &plan.environments;
    let mut answers: Vec<Vec<Answer>> = environments.iter().map(|_| Vec::new()).collect();
    let mut waiting: VecDeque<_> = environments.iter().cloned().enumerate().collect();
    let mut running = JoinSet::new();
    let mut finished = 0;
    loop {
        while running.len() < jobs.get().min(MAX_JOBS)
            && let Some((at, env)) = waiting.pop_front()
        {
            let (plan, solver) = (plan.clone(), solver.clone());
            running.spawn(async move { (at, examine(&plan, &env, solver).await) });
        }
        match running.join_next().await {
            None => return Ok(answers),
            Some(Ok((at, of_env))) => {
                if let Some(place) = answers.get_mut(at) {
                    *place = of_env;
                }
            }
            // A panic in the symbolic compiler: its environment stays without answers, which is told as undecided.
            Some(Err(error)) => tracing::error!(%error, "the symbolic compiler failed"),
        }
        if let Some(unusable) = health.get() {
            return Err(unusable.clone());
        }
        finished += 1;
        told(finished, environments.len());
    }
}

/// One question over all environments.
fn judge<'a>(
    plan: &Plan,
    question: &Question,
    answers: impl Iterator<Item = (&'a RequestEnv, Option<&'a Answer>)>,
) -> Verdict {
    let mut broken = Vec::new();
    let (mut undecided, mut why) = (Vec::new(), Vec::<String>::new());
    for (env, answer) in answers {
        match answer {
            Some(Answer::Proved) => {}
            Some(Answer::Broken { example, fails }) => broken.push((label(env), example, fails)),
            Some(Answer::Undecided(reason)) => {
                undecided.push(label(env));
                if !why.contains(reason) {
                    why.push(reason.clone());
                }
            }
            None => {
                undecided.push(label(env));
                why.push("the symbolic compiler failed; its message stands above".to_owned());
            }
        }
    }
    why.dedup();
    let mut example: Option<Counterexample> = None;
    for (_, env, fails) in broken.iter().take(MAX_EXAMPLES) {
        let claim = match (question, &plan.old, fails) {
            (Question::Never(policy), _, _) => Claim::Allowed(&policy.bare),
            (Question::NoPolicyFails, _, Some(id)) => Claim::Fails(id),
            (Question::NotWider, Some(old), _) => Claim::Wider(old),
            (Question::NoPolicyFails, _, None) | (Question::NotWider, None, _) => continue,
        };
        let found = Counterexample::new(&claim, &plan.new, env);
        if example.as_ref().is_none_or(|known| known.confirmed < found.confirmed) {
            example = Some(found);
        }
        if example.as_ref().is_some_and(|example| example.confirmed == Confirmed::BySet) {
            break;
        }
    }
    let shown = example.as_ref().is_some_and(|example| example.confirmed > Confirmed::No);
    let state = match (broken.is_empty(), undecided.is_empty()) {
        (false, _) if shown => State::Broken,
        (true, true) => State::Proved,
        _ => State::Undecided,
    };
    if !broken.is_empty() && !shown {
        why.push(
            "inconclusive: the solver names a request, and Cedar decides otherwise when it is put to it; that is a fault of \
             the proof's tools"
                .to_owned(),
        );
    }
    let places = if broken.is_empty() { undecided } else { broken.into_iter().map(|(place, _, _)| place).collect() };
    let verdict = Verdict { name: String::new(), says: String::new(), state, places, why, counterexample: example };
    match (question, &plan.old) {
        (Question::NotWider, Some(old)) => differ::with_check_of_old(with_roles(verdict, &plan.new, old), old),
        (Question::NoPolicyFails, _) => differ::with_check(verdict, &plan.new),
        _ => verdict,
    }
}

/// A wider role is a wider set, whatever the solver says of the policies.
fn with_roles(mut verdict: Verdict, new: &Subject, old: &Subject) -> Verdict {
    for wider in roles::wider(new, old) {
        verdict.why.push(wider.what);
        match wider.example {
            Some(example) => {
                verdict.state = State::Broken;
                if verdict.counterexample.is_none() {
                    verdict.counterexample = Some(example);
                }
            }
            None if verdict.state == State::Proved => {
                verdict.state = State::Undecided;
                verdict.why.push("no request was found that it opens; a guardrail may close what it grants".to_owned());
            }
            None => {}
        }
    }
    verdict
}
