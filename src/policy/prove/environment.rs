//! One environment (a permission, with or without a link): compiled once, then every question put to the solver.
//!
//! All invariants that forbid something are asked in one question first, because most of a question's cost is the set
//! itself; only where that is not proved are they asked one by one. The symbolic compiler knows most answers without
//! the solver: a bare tenant matches no permit, and few policies have anything in them that could fail.

use cedar_policy::{Policy, PolicyId, PolicySet, RequestEnv};
use cedar_policy_symcc::{CedarSymCompiler, CompiledPolicy, CompiledPolicySet, Env, ResetMode, err::Error};

use super::{
    plan::{Plan, Question, Twice},
    solver::Cvc5,
};

/// What became of one question in one environment.
#[derive(Debug)]
pub(super) enum Answer {
    Proved,
    Broken {
        example: Box<Env>,
        /// The policy that fails, where that is what is broken.
        fails: Option<PolicyId>,
    },
    Undecided(String),
}

type Compiler = CedarSymCompiler<Cvc5>;

/// One answer a question, in their order.
pub(super) async fn examine(plan: &Plan, env: &RequestEnv, solver: Cvc5) -> Vec<Answer> {
    let all = |why: String| plan.questions.iter().map(|_| Answer::Undecided(why.clone())).collect();
    let mut compiler = match CedarSymCompiler::new(solver) {
        Ok(compiler) => compiler.with_reset_mode(ResetMode::Comment),
        Err(error) => return all(told(&error)),
    };
    let room = match Room::new(plan, env) {
        Ok(room) => room,
        Err(error) => return all(told(&error)),
    };
    let together = room.all_never(&mut compiler).await.unwrap_or(false);
    let mut answers = Vec::with_capacity(plan.questions.len());
    for question in &plan.questions {
        let answer = match question {
            Question::Never(_) if together => Ok(Answer::Proved),
            Question::Never(policy) => room.never(&mut compiler, policy).await,
            Question::NoPolicyFails => room.no_policy_fails(&mut compiler).await,
            Question::NotWider => room.not_wider(&mut compiler).await,
        };
        answers.push(answer.unwrap_or_else(|error| Answer::Undecided(told(&error))));
    }
    answers
}

fn told(error: &Error) -> String {
    match error {
        Error::SolverUnknown => "the solver gave up, or ran out of time: try a longer --timeout-ms".to_owned(),
        other => {
            let mut text = other.to_string();
            let mut cause = std::error::Error::source(other);
            while let Some(inner) = cause {
                text = format!("{text}: {inner}");
                cause = inner.source();
            }
            text
        }
    }
}

struct Room<'a> {
    plan: &'a Plan,
    env: &'a RequestEnv,
    new: CompiledPolicySet,
}

#[expect(clippy::result_large_err, reason = "the error is the compiler's own, and made once in a proof")]
impl<'a> Room<'a> {
    fn new(plan: &'a Plan, env: &'a RequestEnv) -> Result<Self, Error> {
        Ok(Self { plan, env, new: CompiledPolicySet::compile(&plan.new.set, env, &plan.schema)? })
    }

    fn compile(&self, policy: &Policy) -> Result<CompiledPolicy, Error> {
        CompiledPolicy::compile(policy, self.env, &self.plan.schema)
    }

    fn compile_set(&self, set: &PolicySet) -> Result<CompiledPolicySet, Error> {
        CompiledPolicySet::compile(set, self.env, &self.plan.schema)
    }

    /// Facts for which the policy fails, if there are any that the gateway could make.
    async fn fails(&self, compiler: &mut Compiler, policy: &Twice) -> Result<Option<Env>, Error> {
        if compiler.check_never_errors_opt(&self.compile(&policy.bare)?).await? {
            return Ok(None);
        }
        compiler.check_never_errors_with_counterexample_opt(&self.compile(&policy.assuming)?).await
    }

    /// Whether all questions of the form "never" are proved at once, without the assumption.
    async fn all_never(&self, compiler: &mut Compiler) -> Result<bool, Error> {
        let mut set = PolicySet::new();
        for (at, question) in self.plan.questions.iter().enumerate() {
            let Question::Never(policy) = question else { continue };
            // A condition that fails matches nothing, and would be proved by that.
            if !compiler.check_never_errors_opt(&self.compile(&policy.bare)?).await? {
                return Ok(false);
            }
            if set.add(policy.bare.new_id(PolicyId::new(at.to_string()))).is_err() {
                return Ok(false);
            }
        }
        compiler.check_disjoint_opt(&self.new, &self.compile_set(&set)?).await
    }

    async fn never(&self, compiler: &mut Compiler, policy: &Twice) -> Result<Answer, Error> {
        if self.fails(compiler, policy).await?.is_some() {
            let why = "the invariant's own condition can fail while it is evaluated: write it so that it cannot";
            return Ok(Answer::Undecided(why.to_owned()));
        }
        let never = self.compile(&policy.bare)?.into_compiled_policyset();
        if compiler.check_disjoint_opt(&self.new, &never).await? {
            return Ok(Answer::Proved);
        }
        let never = self.compile(&policy.assuming)?.into_compiled_policyset();
        let assumed = self.compile_set(&self.plan.assumed)?;
        Ok(answer(compiler.check_disjoint_with_counterexample_opt(&assumed, &never).await?))
    }

    async fn no_policy_fails(&self, compiler: &mut Compiler) -> Result<Answer, Error> {
        for policy in &self.plan.new_policies {
            if let Some(env) = self.fails(compiler, policy).await? {
                return Ok(Answer::Broken { example: Box::new(env), fails: Some(policy.bare.id().clone()) });
            }
        }
        Ok(Answer::Proved)
    }

    async fn not_wider(&self, compiler: &mut Compiler) -> Result<Answer, Error> {
        let Some(old) = &self.plan.old else {
            return Ok(Answer::Undecided("there is no set to compare with".to_owned()));
        };
        for policy in &self.plan.old_policies {
            if self.fails(compiler, policy).await?.is_some() {
                // The gateway refuses then, and Cedar skips the policy: what Cedar allowed was not all open.
                return Ok(Answer::Undecided(format!(
                    "the policy `{}` of the older set can fail while it is evaluated, which refused the request; such \
                     refusals cannot be compared: prove the older set first",
                    policy.bare.id()
                )));
            }
        }
        let old = self.compile_set(&old.set)?;
        if compiler.check_implies_opt(&self.new, &old).await? {
            return Ok(Answer::Proved);
        }
        let assumed = self.compile_set(&self.plan.assumed)?;
        Ok(answer(compiler.check_implies_with_counterexample_opt(&assumed, &old).await?))
    }
}

fn answer(found: Option<Env>) -> Answer {
    found.map_or(Answer::Proved, |env| Answer::Broken { example: Box::new(env), fails: None })
}
