//! `Idempotency-Key`: a write that is sent once however often it is asked for.
//!
//! The claim is made before the write is sent and settled after it, as soon as the database takes it. The whole runs in a task of its own: a client that
//! leaves must not leave a write half done, nor its outcome unknown.

use std::future::Future;

use aws_lc_rs::digest;
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

use super::DEADLINE;
use crate::{
    audit::SliceOutcome,
    domain::{Denial, ErrorCode, Millis, Reason, TenantId, link_rules::FieldError},
    portal::{Call, Problem, Reply, ReplyBody, standing::Leave},
    store::{Claim, Claimed, IdempotencyKeys, Settlement, StoredAnswer},
};

/// How long an answer is kept for who asks again.
const KEEP_MS: i64 = 24 * 3_600 * 1_000;
/// Longer than any write is worked on: a claim that is older was left by a crash.
const RUNNING_MS: i64 = 60_000;

const HEADER: &str = "idempotency-key";
/// Tells an answer that was kept from one that was made.
const REPLAYED: &str = "idempotent-replayed";

/// The header's value: 1 to 255 visible ASCII characters.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let wrong =
        |message: &str| Problem::invalid(vec![FieldError { field: "Idempotency-Key".into(), message: message.into() }]);
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(wrong("stands more than once"));
    }
    let bytes = value.as_bytes();
    if bytes.is_empty() || bytes.len() > 255 || !bytes.iter().all(u8::is_ascii_graphic) {
        return Err(wrong("must be 1 to 255 visible ASCII characters"));
    }
    Ok(value.to_str().ok().map(str::to_owned))
}

/// What a claim is made for.
pub(super) struct Asked {
    scope: [u8; 32],
    request: [u8; 32],
}

impl Asked {
    /// The scope: partner, user, tenant and route. What is asked: the path's parameter and the body.
    pub(super) fn new(key: &str, call: &Call) -> Result<Self, Problem> {
        let partner = call.partner()?.user.partner_id;
        let asker = &call.asker;
        let tenant = call.active.as_ref().map_or("", |tenant| tenant.as_str());
        let route = call.spec.label();
        let scope = hash(&[
            partner.0.as_bytes(),
            asker.issuer.as_bytes(),
            asker.user_id.as_bytes(),
            tenant.as_bytes(),
            route.as_bytes(),
            key.as_bytes(),
        ]);
        let request = hash(&[call.param.as_deref().unwrap_or_default().as_bytes(), &call.body]);
        Ok(Self { scope, request })
    }
}

/// SHA-256 over length-prefixed parts, so that no two lists of parts read alike.
fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    out
}

/// How a write ended.
pub(super) enum Outcome {
    /// Done, with its answer as JSON.
    Done { status: u16, body: String, tenant: String, slices: Vec<SliceOutcome> },
    /// Done in part: the client must not repeat the whole. Kept like an answer.
    Partly { problem: Problem, tenant: String },
    /// Certainly not done: the key may be used again.
    NotDone(Problem),
    /// Perhaps done.
    Unknown(Problem),
}

impl Outcome {
    pub(super) fn done(status: u16, answer: &impl Serialize, tenant: &str, slices: Vec<SliceOutcome>) -> Self {
        match serde_json::to_string(answer) {
            Ok(body) => Self::Done { status, body, tenant: tenant.to_owned(), slices },
            Err(error) => {
                tracing::error!(%error, "an answer cannot be written as JSON");
                Self::Unknown(Problem::new(ErrorCode::InternalError, "").with_slices(slices))
            }
        }
    }
}

/// A problem as it is kept: only what happens after something was done.
#[derive(Serialize, Deserialize)]
struct StoredProblem {
    message: String,
    /// The refusal of what was left to be done; without one, the service failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refusal: Option<StoredRefusal>,
}

#[derive(Serialize, Deserialize)]
struct StoredRefusal {
    code: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl StoredProblem {
    fn of(problem: &Problem) -> Self {
        let refused = problem.denial.is_some() || problem.code != ErrorCode::UpstreamError;
        let refusal = refused.then(|| StoredRefusal {
            code: problem.code.as_str().to_owned(),
            reason: problem.denial.and_then(|denial| denial.reason).map(|reason| reason.as_str().to_owned()),
        });
        Self { message: problem.message.clone().into_owned(), refusal }
    }

    /// As it was told. It refuses nothing anew: what was done before stays done.
    fn told(self) -> Problem {
        let word = |code: &ErrorCode, refusal: &StoredRefusal| code.as_str() == refusal.code;
        let known = self.refusal.and_then(|refusal| {
            let code = ErrorCode::ALL.iter().copied().find(|code| word(code, &refusal))?;
            let reason = Reason::ALL.into_iter().find(|reason| Some(reason.as_str()) == refusal.reason.as_deref());
            Some((code, reason))
        });
        let code = known.map_or(ErrorCode::UpstreamError, |(code, _)| code);
        let denial = known.filter(|_| code.status() == 403).map(|(code, reason)| Denial { code, reason });
        Problem { denial, overturns: false, ..Problem::new(code, self.message) }
    }
}

/// Acts once. `may_see`: whether an answer about this tenant may be shown to who asks; `leave`: whether it still may.
pub(super) async fn once<A, F>(
    keys: IdempotencyKeys,
    asked: Option<Asked>,
    leave: Leave,
    may_see: impl Fn(&str) -> bool + Send + 'static,
    act: A,
) -> Result<Reply, Problem>
where
    A: FnOnce() -> F + Send + 'static,
    F: Future<Output = Outcome> + Send,
{
    let task = tokio::spawn(async move {
        let claim = match asked {
            None => None,
            Some(asked) => match claim(&keys, &asked).await? {
                Claimed::Mine(claim) => Some(claim),
                Claimed::Done(answer) => return replay(answer, may_see, &leave).await,
                Claimed::Other => {
                    return Err(Problem::invalid(vec![FieldError {
                        field: "Idempotency-Key".into(),
                        message: "was used for another request: take a new key for each".into(),
                    }]));
                }
                Claimed::Running => {
                    return Err(Problem::new(
                        ErrorCode::Conflict,
                        "a request with this Idempotency-Key is still being worked on; ask again in a moment",
                    ));
                }
                Claimed::Unknown => {
                    return Err(Problem::new(
                        ErrorCode::Conflict,
                        "what became of the request with this Idempotency-Key is not known: look whether it was done, \
                         then use a new key",
                    ));
                }
            },
        };
        let outcome = act().await;
        if let Some(claim) = claim {
            settle(&keys, &claim, &outcome).await;
        }
        answer(outcome)
    });
    task.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a write ended by a panic");
        Err(Problem::new(ErrorCode::InternalError, ""))
    })
}

async fn claim(keys: &IdempotencyKeys, asked: &Asked) -> Result<Claimed, Problem> {
    debug_assert!(i128::from(RUNNING_MS) > i128::try_from(DEADLINE.as_millis()).unwrap_or(i128::MAX));
    keys.claim(asked.scope, asked.request, Millis::now(), RUNNING_MS, KEEP_MS).await.map_err(|error| {
        tracing::error!(%error, source = ?std::error::Error::source(&error), "an idempotency key cannot be claimed");
        Problem::new(ErrorCode::UpstreamUnavailable, "the gateway's database does not answer: nothing was done")
    })
}

/// Keeps the outcome, in memory as long as the database is away. Where neither takes it the claim stays, and tells the next
/// caller the truth: unknown.
async fn settle(keys: &IdempotencyKeys, claim: &Claim, outcome: &Outcome) {
    let settlement = match outcome {
        Outcome::Done { status, body, tenant, .. } => {
            Settlement::Answered(StoredAnswer { status: *status, tenant_id: Some(tenant.clone()), body: body.clone() })
        }
        Outcome::Partly { problem, tenant } => {
            serde_json::to_string(&StoredProblem::of(problem)).map_or(Settlement::GivenUp, |body| {
                let status = problem.code.status();
                Settlement::Answered(StoredAnswer { status, tenant_id: Some(tenant.clone()), body })
            })
        }
        Outcome::NotDone(_) => Settlement::Freed,
        Outcome::Unknown(_) => Settlement::GivenUp,
    };
    if let Err(error) = keys.settled(claim, &settlement).await {
        tracing::error!(%error, "the outcome of a write is not kept: its key will answer 409");
    }
}

fn answer(outcome: Outcome) -> Result<Reply, Problem> {
    match outcome {
        Outcome::Done { status, body, slices, .. } => Ok(reply(status, body).with_slices(slices)),
        Outcome::Partly { problem, .. } | Outcome::NotDone(problem) | Outcome::Unknown(problem) => Err(problem),
    }
}

fn reply(status: u16, body: String) -> Reply {
    let mut headers = HeaderMap::new();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Reply { status, headers, body: ReplyBody::Bytes(body.into()), slices: Vec::new() }
}

async fn replay(stored: StoredAnswer, may_see: impl Fn(&str) -> bool, leave: &Leave) -> Result<Reply, Problem> {
    let tenant = stored.tenant_id.as_deref().filter(|tenant| may_see(tenant));
    let Some(tenant) = tenant.and_then(|tenant| TenantId::new(tenant).ok()) else {
        return Err(Problem::new(ErrorCode::TicketNotFound, ""));
    };
    // The database may have taken its time to find it.
    leave.for_tenant(&tenant).await?;
    if stored.status >= 400 {
        let kept: StoredProblem = serde_json::from_str(&stored.body).map_err(|error| {
            tracing::error!(%error, "a kept answer cannot be read");
            Problem::new(ErrorCode::InternalError, "")
        })?;
        return Err(kept.told());
    }
    let mut reply = reply(stored.status, stored.body);
    reply.headers.insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_visible_ascii_and_stands_once() {
        let with = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
            }
            key(&headers)
        };
        assert_eq!(with(&[]).unwrap(), None);
        assert_eq!(with(&[b"abc-1"]).unwrap().as_deref(), Some("abc-1"));
        assert!(with(&["x".repeat(255).as_bytes()]).is_ok());
        for bad in [&b""[..], b"a b", "x".repeat(256).as_bytes(), "é".as_bytes()] {
            assert_eq!(with(&[bad]).unwrap_err().code, ErrorCode::ValidationError, "{bad:?}");
        }
        assert_eq!(with(&[b"a", b"a"]).unwrap_err().fields.len(), 1);
    }

    #[test]
    fn parts_cannot_be_shifted() {
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_ne!(hash(&[b"a", b""]), hash(&[b"a"]));
    }

    #[test]
    fn a_refusal_is_kept_as_it_was_told() {
        let back = |problem: &Problem| {
            let text = serde_json::to_string(&StoredProblem::of(problem)).unwrap();
            serde_json::from_str::<StoredProblem>(&text).unwrap().told()
        };
        for denial in [crate::domain::Gate::Active, crate::domain::Gate::Ended].map(Denial::from) {
            let refused = Problem { message: "half".into(), overturns: false, ..denial.into() };
            assert_eq!(back(&refused), refused);
        }
        let stale = Problem::new(ErrorCode::LinksStale, "half");
        assert_eq!(back(&stale), stale);
        let failed = Problem::new(ErrorCode::UpstreamError, "half");
        assert_eq!(back(&failed), failed);
        // As versions before kept it.
        assert_eq!(serde_json::from_str::<StoredProblem>(r#"{"message":"half"}"#).unwrap().told(), failed);
    }
}
