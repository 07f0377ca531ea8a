//! A what-if question, decided: what `linkgate decide` answers to one line.

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    domain::{ErrorCode, Reason},
    policy::{Bundle, Memo, Refusal, WhatIf, decide},
};

/// Allowed, or code and reason; or why the question cannot be decided.
pub type Answer = Result<Result<(), (ErrorCode, Option<Reason>)>, String>;

/// Decides one JSON object, through the very `decide` of the proxy.
pub fn answer(bundle: &Bundle, memo: Option<&mut Memo>, question: &[u8]) -> Answer {
    let question = WhatIf::read(bundle, question)?;
    Ok(match decide(bundle, memo, &question.facts()).verdict {
        Ok(_) => Ok(()),
        Err(Refusal::Denied(denial)) => Err((denial.code, denial.reason)),
        Err(Refusal::Unavailable) => Err((ErrorCode::PolicyUnavailable, None)),
    })
}

/// The same as it is written.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "WhatIfAnswer")]
pub enum Decided {
    Decision {
        allowed: bool,
        code: Option<&'static str>,
        reason: Option<&'static str>,
    },
    /// The question cannot be decided.
    Unclear {
        error: String,
    },
}

impl From<Answer> for Decided {
    fn from(answer: Answer) -> Self {
        match answer {
            Ok(Ok(())) => Self::Decision { allowed: true, code: None, reason: None },
            Ok(Err((code, reason))) => {
                Self::Decision { allowed: false, code: Some(code.as_str()), reason: reason.map(Reason::as_str) }
            }
            Err(error) => Self::Unclear { error },
        }
    }
}
