//! AuthZEN 1.0: `POST /access/v1/evaluation` and `/access/v1/evaluations`, and the description of both.
//!
//! The question: may this user (`subject`) do this (`action.name`, a permission) in this tenant (`resource`)? The caller is
//! believed who the user is, what roles and permissions the user's token holds (as far as the issuer is trusted for them),
//! the user's address and whether a second factor was shown. Account, partner and link are looked up; the time is ours. A
//! user's own tenant is not judged by links, so nothing is said for it.

use std::{rc::Rc, time::Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tonic::body::Body;

use super::{
    answer::{full, own, refusal},
    callers,
    question::{Question, invalid},
};
use crate::{
    domain::ErrorCode,
    proxy::{
        decision_metrics::{Face, Outcome},
        headers::{Single, single},
        ids,
        judgement::{self, Judged},
        peer::Peer,
        respond::Failure,
        worker::Worker,
    },
};

pub(super) const EVALUATION: &str = "/access/v1/evaluation";
pub(super) const EVALUATIONS: &str = "/access/v1/evaluations";
pub(super) const CONFIGURATION: &str = "/.well-known/authzen-configuration";

/// Longest body, in bytes, and the longest wait for it.
const MAX_BODY_BYTES: usize = 256 * 1024;
const BODY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
/// Most questions of one call.
const MAX_EVALUATIONS: usize = 100;

/// When a call with several questions ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Semantic {
    ExecuteAll,
    DenyOnFirstDeny,
    PermitOnFirstPermit,
}

/// Answers one call.
pub(super) async fn answer(worker: Rc<Worker>, connection: Peer, request: Request<Incoming>) -> Response<Body> {
    let request_id = match single(request.headers(), ids::REQUEST_ID) {
        Single::One(value) => Some(value.clone()),
        Single::Absent | Single::Repeated => None,
    };
    let mut response = match evaluated(&worker, &connection, request).await {
        Ok(answer) => {
            let mut response = Response::new(full(Bytes::from(answer.to_string())));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(failure) => refusal(&failure),
    };
    // AuthZEN, section 10: the caller finds its answer again by it.
    if let Some(value) = request_id {
        response.headers_mut().insert(ids::REQUEST_ID, value);
    }
    response
}

async fn evaluated(worker: &Rc<Worker>, connection: &Peer, request: Request<Incoming>) -> Result<Value, Failure> {
    let Some(caller) = callers::by_bearer(worker, request.headers()) else {
        return Err(Failure::new(ErrorCode::Unauthorized, "unknown_caller").saying("a known caller's secret is needed"));
    };
    if !caller.authzen {
        return Err(Failure::new(ErrorCode::Forbidden, "caller_not_trusted")
            .saying("this caller may not vouch for users: set `authzen = true` for it"));
    }
    let caller = caller.name.clone();
    let (parts, body) = request.into_parts();
    if !crate::proxy::fields::is_plain_json(&parts.headers) {
        return Err(invalid("the body must be application/json"));
    }
    let asked = read(body).await?;
    let path = if parts.uri.path() == EVALUATIONS { EVALUATIONS } else { EVALUATION };
    let asker = Asker { worker, connection, caller: &caller, headers: &parts.headers, path };
    if path == EVALUATION || asked.get("evaluations").is_none() {
        return asker.one(&asked).await.map_err(|failure| *failure);
    }
    asker.all(&asked).await
}

/// Who asks, and how.
struct Asker<'a> {
    worker: &'a Rc<Worker>,
    connection: &'a Peer,
    caller: &'a str,
    headers: &'a http::HeaderMap,
    path: &'static str,
}

impl Asker<'_> {
    /// One question; a malformed one is a failure of the call.
    async fn one(&self, asked: &Value) -> Result<Value, Box<Failure>> {
        let begun = Instant::now();
        let question = Question::read(asked, &self.worker.gateway.settings.identity)?;
        let judged =
            judgement::judge(self.worker, question.asked(self.connection, self.caller, self.headers, self.path)).await;
        let count = |outcome| self.worker.gateway.metrics.decisions.count(Face::Authzen, outcome, begun);
        let decision_id = |id: Option<crate::domain::DecisionId>| id.map(|id| id.to_string());
        Ok(match judged {
            Judged::Allowed(id) => {
                count(Outcome::Allow);
                json!({"decision": true, "context": {"decision_id": decision_id(id)}})
            }
            Judged::Refused { code, reason, decision_id: id } => {
                count(Outcome::of_refusal(code.status()));
                let mut context = json!({"code": code.as_str(), "reason": reason});
                if let (Some(id), Some(context)) = (decision_id(id), context.as_object_mut()) {
                    context.insert("decision_id".into(), id.into());
                }
                json!({"decision": false, "context": context})
            }
        })
    }

    /// Several questions, each with the call's own as defaults.
    async fn all(&self, asked: &Value) -> Result<Value, Failure> {
        let questions = asked
            .get("evaluations")
            .and_then(Value::as_array)
            .ok_or_else(|| invalid("`evaluations` must be a list"))?;
        if questions.is_empty() {
            return self.one(asked).await.map_err(|failure| *failure);
        }
        if questions.len() > MAX_EVALUATIONS {
            return Err(invalid(&format!("`evaluations` holds more than {MAX_EVALUATIONS} questions")));
        }
        let semantic = semantic(asked)?;
        let mut answers = Vec::with_capacity(questions.len());
        for question in questions {
            let answer = match self.one(&with_defaults(question, asked)?).await {
                Ok(answer) => answer,
                // Of several questions a malformed one is a refusal, and the others are answered.
                Err(failure) => json!({"decision": false, "context": {
                    "code": failure.code.as_str(),
                    "reason": failure.word(),
                    "error": {"status": failure.code.status(), "message": failure.message},
                }}),
            };
            let allowed = answer.get("decision") == Some(&Value::Bool(true));
            answers.push(answer);
            match (semantic, allowed) {
                (Semantic::DenyOnFirstDeny, false) | (Semantic::PermitOnFirstPermit, true) => break,
                _ => {}
            }
        }
        Ok(json!({"evaluations": answers}))
    }
}

fn semantic(asked: &Value) -> Result<Semantic, Failure> {
    match asked.pointer("/options/evaluations_semantic") {
        None => Ok(Semantic::ExecuteAll),
        Some(Value::String(word)) if word == "execute_all" => Ok(Semantic::ExecuteAll),
        Some(Value::String(word)) if word == "deny_on_first_deny" => Ok(Semantic::DenyOnFirstDeny),
        Some(Value::String(word)) if word == "permit_on_first_permit" => Ok(Semantic::PermitOnFirstPermit),
        Some(_) => Err(invalid(
            "`options.evaluations_semantic` must be execute_all, deny_on_first_deny or permit_on_first_permit",
        )),
    }
}

/// A key of the question takes the place of the call's as a whole.
fn with_defaults(question: &Value, call: &Value) -> Result<Value, Failure> {
    let question = question.as_object().ok_or_else(|| invalid("each of `evaluations` must be an object"))?;
    let mut whole = question.clone();
    for key in ["subject", "action", "resource", "context"] {
        if let (false, Some(default)) = (whole.contains_key(key), call.get(key)) {
            whole.insert(key.to_owned(), default.clone());
        }
    }
    Ok(Value::Object(whole))
}

async fn read(body: Incoming) -> Result<Value, Failure> {
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await;
    let bytes = match collected {
        Err(_) => return Err(invalid("the body took too long")),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(Failure::new(ErrorCode::PayloadTooLarge, "body_bytes"));
        }
        Ok(Err(_)) => return Err(invalid("the body broke off")),
        Ok(Ok(body)) => body.to_bytes(),
    };
    // What two readers could read differently is refused.
    let crate::domain::strict_json::StrictJson(value) =
        serde_json::from_slice(&bytes).map_err(|_| invalid("the body must be JSON without repeated keys"))?;
    if value.is_object() { Ok(value) } else { Err(invalid("the body must be a JSON object")) }
}

/// What can be asked, and where. It names nobody, so whoever reaches this listener may read it.
pub(super) fn configuration(worker: &Worker, request: &Request<Incoming>) -> Response<Body> {
    let known = worker.gateway.settings.decision.as_ref().and_then(|settings| settings.public_url.clone());
    let named = || {
        let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
        let host = || match single(request.headers(), header::HOST) {
            Single::One(value) => value.to_str().ok().map(str::to_owned),
            Single::Absent | Single::Repeated => None,
        };
        authority.or_else(host).map(|host| format!("http://{host}"))
    };
    let Some(url) = known.or_else(named) else { return refusal(&invalid("the request names no host")) };
    let document = json!({
        "policy_decision_point": url,
        "access_evaluation_endpoint": format!("{url}{EVALUATION}"),
        "access_evaluations_endpoint": format!("{url}{EVALUATIONS}"),
    });
    let mut response = own(Response::new(crate::proxy::body::ResponseBody::Full(Some(document.to_string().into()))));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_takes_what_it_does_not_say_from_the_call() {
        let call = json!({"subject": {"id": "a"}, "action": {"name": "x"}, "options": {}, "evaluations": []});
        let whole = with_defaults(&json!({"action": {"name": "y"}}), &call).unwrap();
        assert_eq!(whole, json!({"action": {"name": "y"}, "subject": {"id": "a"}}));
        assert!(with_defaults(&json!(1), &call).is_err());
    }

    #[test]
    fn an_unknown_semantic_is_refused() {
        assert_eq!(semantic(&json!({})).unwrap(), Semantic::ExecuteAll);
        let named = |word: &str| semantic(&json!({"options": {"evaluations_semantic": word}}));
        assert_eq!(named("deny_on_first_deny").unwrap(), Semantic::DenyOnFirstDeny);
        assert_eq!(named("permit_on_first_permit").unwrap(), Semantic::PermitOnFirstPermit);
        assert!(named("first_wins").is_err());
        assert!(semantic(&json!({"options": {"evaluations_semantic": 1}})).is_err());
    }
}
