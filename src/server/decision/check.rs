//! The check over HTTP: nginx `auth_request`, Caddy `forward_auth`, Traefik `forwardAuth`. One path each, so that nothing
//! is guessed from what stands in a request.
//!
//! The proxy repeats the client's fields and tells method, target and client beside them. The answer 200 carries every field
//! of [`COPIED`] that the service is to see, with its whole value: the ready configuration puts each in the client's place,
//! and what is missing in the answer is removed. So an answer never depends on what the client sent.

use std::{net::IpAddr, rc::Rc, time::Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tonic::body::Body;

use super::{
    answer::{full, refusal},
    callers,
    original::{self, Original},
};
use crate::{
    domain::ErrorCode,
    proxy::{
        decision::{self, Allowed, Asked, Asker, Decided, Means, Refused},
        decision_metrics::{Face, Outcome},
        headers::{Single, single},
        inbound::Inbound,
        peer::Peer,
        respond::Failure,
        trace_context,
        worker::Worker,
    },
};

/// By this field the asking proxy shows its secret.
pub const CALLER: &str = "x-linkgate-caller";

/// What the asking proxy takes from the answer, each in the place of whatever the client sent; missing ones it removes.
pub const COPIED: &[&str] = &[
    "authorization",
    "cookie",
    "x-api-key",
    "x-tenant-id",
    "x-active-tenant-id",
    "x-cross-tenant-access",
    "x-user-id",
    "x-partner-id",
    "x-partner-tenant-id",
    "x-partner-role",
    "x-link-id",
    "x-decision-id",
    "x-request-id",
    "traceparent",
    "x-linkgate-assertion",
    "x-target-tenant-id",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
];

const TARGET: HeaderName = HeaderName::from_static("x-linkgate-uri");
const UPSTREAM: HeaderName = HeaderName::from_static("x-linkgate-upstream");
const STATUS: HeaderName = HeaderName::from_static("x-linkgate-status");
const BODY: HeaderName = HeaderName::from_static("x-linkgate-body");

/// How a proxy tells what it asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Nginx,
    Caddy,
    Traefik,
}

/// The fields in which a dialect tells.
struct Fields {
    method: &'static str,
    target: &'static str,
    /// The rightmost entry is the proxy's own peer.
    client: &'static str,
    host: &'static str,
}

impl Dialect {
    pub(super) fn of(path: &str) -> Option<Self> {
        match path {
            "/check/nginx" => Some(Self::Nginx),
            "/check/caddy" => Some(Self::Caddy),
            "/check/traefik" => Some(Self::Traefik),
            _ => None,
        }
    }

    fn face(self) -> Face {
        match self {
            Self::Nginx => Face::Nginx,
            Self::Caddy => Face::Caddy,
            Self::Traefik => Face::Traefik,
        }
    }

    fn means(self) -> Means {
        match self {
            Self::Nginx => Means::ListAndTarget,
            Self::Caddy | Self::Traefik => Means::List,
        }
    }

    fn fields(self) -> Fields {
        match self {
            Self::Nginx => Fields {
                method: "x-original-method",
                target: "x-original-uri",
                client: "x-original-client",
                host: "x-original-host",
            },
            Self::Caddy | Self::Traefik => Fields {
                method: "x-forwarded-method",
                target: "x-forwarded-uri",
                client: "x-forwarded-for",
                host: "x-forwarded-host",
            },
        }
    }
}

/// Answers one check.
pub(super) async fn answer(
    worker: Rc<Worker>,
    connection: Peer,
    request: Request<Incoming>,
    dialect: Dialect,
) -> Response<Body> {
    let begun = Instant::now();
    let (mut parts, _) = request.into_parts();
    let Some(caller) = callers::by_field(&worker, &parts.headers, CALLER) else {
        // Not the client's fault, so nothing that a browser would take for a wrong password.
        return refusal(
            &Failure::new(ErrorCode::InternalError, "unknown_caller")
                .saying("the proxy in front is not known to linkgate: it shows no known secret in X-Linkgate-Caller"),
        );
    };
    // Elsewhere it is what the client sent, as all other fields.
    let parent = if caller.own_traceparent { trace_context::read(&parts.headers) } else { None };
    let asker = Asker { face: dialect.face(), parent };
    // Removed below with all that is of this connection, but it is the client's: it decides whether a cookie counts.
    let upgrade_asked = parts.headers.contains_key(header::UPGRADE);
    let headers = std::mem::take(&mut parts.headers);
    let count = |outcome| worker.gateway.metrics.decisions.count(dialect.face(), outcome, begun);
    let (request, client) = match original(headers, dialect) {
        Ok(told) => told,
        Err(missing) => {
            tracing::warn!(face = dialect.face().as_str(), missing, "a proxy asks without telling what about; refused");
            count(Outcome::Fault);
            let message = format!("the proxy in front does not tell what it asks about: {missing}");
            return refusal(&Failure::new(ErrorCode::InternalError, "incomplete_check").saying(message));
        }
    };
    let Ok(peer) = original::client(&connection, client) else {
        return refusal(&Failure::new(ErrorCode::InternalError, "client_address"));
    };
    let decided = match request {
        Ok(request) => {
            let asked = Asked { request, peer, means: dialect.means(), asker, upgrade_asked };
            decision::decide(&worker, asked).await
        }
        Err(failure) => decision::unreadable(&worker, peer, asker, failure).await,
    };
    match decided {
        Decided::Allowed(allowed) => {
            count(Outcome::Allow);
            allow(*allowed)
        }
        Decided::Refused(refused) => {
            count(Outcome::of_refusal(refused.status.as_u16()));
            deny(*refused, dialect)
        }
    }
}

type Told = (Result<Request<Inbound>, Failure>, IpAddr);

/// Takes the original request out of the check. What is missing is the asking proxy's fault.
fn original(mut headers: HeaderMap, dialect: Dialect) -> Result<Told, &'static str> {
    let fields = dialect.fields();
    let one = |name: &'static str| match single(&headers, name) {
        Single::One(value) => Ok(value.clone()),
        Single::Absent | Single::Repeated => Err(name),
    };
    let (method, target, host) = (one(fields.method)?, one(fields.target)?, one(fields.host)?);
    let client = one(fields.client)?;
    let last = client.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
    let client = original::ip(last).ok_or(fields.client)?;
    // The check's own: its connection, its host, who asks. What it tells in a field of its own is no field of the client's.
    original::drop_own_hop(&mut headers);
    headers.remove(header::HOST);
    headers.remove(CALLER);
    for name in [fields.method, fields.target, fields.host] {
        headers.remove(name);
    }
    match dialect {
        Dialect::Nginx => headers.remove(fields.client),
        // Theirs too, not the client's.
        Dialect::Caddy | Dialect::Traefik => headers.remove("x-forwarded-proto"),
    };
    let (method, target) = (method.as_bytes(), target.as_bytes());
    let original = Original { method, target, host: Some(host), headers, body: Inbound::Unseen };
    Ok((original.request(client), client))
}

/// 200 with all that the service is to see.
fn allow(allowed: Allowed) -> Response<Body> {
    let Allowed { after, target, answer, told, .. } = allowed;
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    // First what the client's answer gets: a name that both have is the request's.
    headers.extend(answer);
    for name in COPIED {
        headers.remove(*name);
        if let Some(value) = after.get(*name) {
            headers.insert(HeaderName::from_static(name), value.clone());
        }
    }
    if let Ok(value) = HeaderValue::from_str(&target) {
        headers.insert(TARGET, value);
    }
    if let Some(value) = told.upstream.and_then(|name| HeaderValue::from_str(&name).ok()) {
        headers.insert(UPSTREAM, value);
    }
    response
}

/// The proxy's own answer. nginx knows two refusals only: it is told the true one beside.
fn deny(refused: Refused, dialect: Dialect) -> Response<Body> {
    let Refused { status, headers, body, .. } = refused;
    let mut response = Response::new(full(body.clone()));
    *response.headers_mut() = headers;
    *response.status_mut() = status;
    if dialect == Dialect::Nginx {
        if status != StatusCode::UNAUTHORIZED {
            *response.status_mut() = StatusCode::FORBIDDEN;
        }
        let headers = response.headers_mut();
        headers.insert(STATUS, HeaderValue::from(status.as_u16()));
        if let Some(value) = one_line(&body) {
            headers.insert(BODY, value);
        }
    }
    response
}

/// JSON as a field's value: ASCII, the rest as JSON escapes.
fn one_line(body: &[u8]) -> Option<HeaderValue> {
    let text = std::str::from_utf8(body).ok()?;
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii() {
            out.push(letter);
        } else {
            let mut units = [0u16; 2];
            for unit in letter.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    HeaderValue::from_str(&out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::headers::protected;

    #[test]
    fn what_is_copied_is_protected_or_a_credential() {
        for name in COPIED {
            assert!(protected().contains(name) || ["authorization", "cookie", "x-api-key"].contains(name), "{name}");
        }
    }

    #[test]
    fn a_body_fits_into_one_field() {
        let value = one_line("{\"a\":\"é \u{1f600}\"}".as_bytes()).unwrap();
        let back: serde_json::Value = serde_json::from_slice(value.as_bytes()).unwrap();
        assert_eq!(back["a"], "é \u{1f600}");
    }
}
