//! One call and the ways to answer it: the habits that all endpoints of the sampled services share.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{Request, body::Incoming};
use serde_json::{Value, json};

pub(super) type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// An endpoint answers, or fails with the answer to give instead.
pub(super) type Answer = Result<Response<Body>, Response<Body>>;

/// Largest JSON body that is read.
const MAX_JSON: usize = 1 << 20;

/// A request, looked at the way these services do.
pub(super) struct Call {
    pub(super) request: Request<Incoming>,
    /// The path below the mount point, or the whole path where it is not below it.
    path: String,
    query: Vec<(String, String)>,
}

impl Call {
    pub(super) fn new(request: Request<Incoming>, base: &str) -> Self {
        let path = request.uri().path();
        let path = path.strip_prefix(base).filter(|rest| rest.starts_with('/')).unwrap_or(path).to_owned();
        let query = request.uri().query().unwrap_or_default();
        let query = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        let query = query.collect();
        Self { request, path, query }
    }

    pub(super) fn method(&self) -> &Method {
        self.request.method()
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.request.headers()
    }

    /// The path as segments, without the leading slash; a trailing slash is an empty last one.
    pub(super) fn segments(&self) -> Vec<String> {
        self.path.strip_prefix('/').unwrap_or(&self.path).split('/').map(decode).collect()
    }

    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A number from the query; `default` where there is none, `Err` where it is out of range, as FastAPI does.
    pub(super) fn number(
        &self,
        name: &str,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, Response<Body>> {
        let Some(text) = self.query(name) else { return Ok(default) };
        text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
            let message = format!("Input should be between {} and {}", range.start(), range.end());
            json_reply(
                StatusCode::UNPROCESSABLE_ENTITY,
                &json!({"detail": [{"type": "value_error", "loc": ["query", name], "msg": message, "input": text}]}),
            )
        })
    }

    /// The tenant, from the first of header, query and token, unchecked: the fault that the gateway stands before.
    pub(super) fn tenant(&self) -> Option<String> {
        let header = self.headers().get("x-tenant-id").and_then(|value| value.to_str().ok());
        let claimed = || self.claim("tenant_id").and_then(|claim| claim.as_str().map(str::to_owned));
        header.or_else(|| self.query("tenant_id")).map(str::to_owned).filter(|id| !id.is_empty()).or_else(claimed)
    }

    /// `tenant`, or the answer that the middleware gives without one.
    pub(super) fn require_tenant(&self) -> Result<String, Response<Body>> {
        self.tenant().ok_or_else(|| detail(StatusCode::BAD_REQUEST, "Tenant ID is required for this request."))
    }

    /// The tenant of the token alone: some endpoints look at nothing else.
    pub(super) fn token_tenant(&self) -> Result<String, Response<Body>> {
        let claim = self.claim("tenant_id").and_then(|claim| claim.as_str().map(str::to_owned));
        claim.ok_or_else(|| detail(StatusCode::UNAUTHORIZED, "Not authenticated"))
    }

    /// The check of the newer generation: a token with `iss` and `aud`, and a header that agrees with it.
    pub(super) fn agrees(&self) -> Result<(), Response<Body>> {
        let own = self.token_tenant()?;
        if self.claim("iss").is_none() || self.claim("aud").is_none() {
            return Err(detail(StatusCode::UNAUTHORIZED, "Invalid token"));
        }
        let managed = self.claim("managed_tenant_ids");
        let managed = managed.as_ref().and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let tenant = self.require_tenant()?;
        if own == tenant || managed.into_iter().any(|one| one == tenant) {
            Ok(())
        } else {
            Err(detail(StatusCode::FORBIDDEN, "Tenant access denied"))
        }
    }

    /// A required moment of the query.
    pub(super) fn moment(&self, name: &str) -> Result<jiff::civil::DateTime, Response<Body>> {
        self.query(name).and_then(super::network::moment).ok_or_else(|| {
            let problem = json!({"type": "missing", "loc": ["query", name], "msg": "Field required"});
            json_reply(StatusCode::UNPROCESSABLE_ENTITY, &json!({"detail": [problem]}))
        })
    }

    /// A claim of the bearer token. The signature is not checked: these are samples.
    pub(super) fn claim(&self, name: &str) -> Option<Value> {
        let value = self.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
        let payload = value.strip_prefix("Bearer ")?.split('.').nth(1)?;
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        claims.get(name).cloned()
    }

    pub(super) fn has_role(&self, wanted: &[&str]) -> bool {
        let roles = self.claim("roles");
        let roles = roles.as_ref().and_then(Value::as_array).into_iter().flatten();
        roles.filter_map(Value::as_str).any(|role| wanted.contains(&role))
    }

    pub(super) fn has_permission(&self, wanted: &str) -> bool {
        let names = self.claim("permissions");
        let names = names.as_ref().and_then(Value::as_array).into_iter().flatten();
        names.filter_map(Value::as_str).any(|name| name == wanted)
    }

    /// Reads the body as a JSON object.
    pub(super) async fn json(self) -> Result<serde_json::Map<String, Value>, Response<Body>> {
        let bad = |_| detail(StatusCode::UNPROCESSABLE_ENTITY, "JSON decode error");
        let body = Limited::new(self.request.into_body(), MAX_JSON).collect().await;
        let body = body.map_err(|_| detail(StatusCode::PAYLOAD_TOO_LARGE, "Request body too large"))?.to_bytes();
        serde_json::from_slice(&body).map_err(bad)
    }

    /// Echoed where the client sent one.
    pub(super) fn correlation_id(&self) -> String {
        let sent = self.headers().get("x-correlation-id").and_then(|value| value.to_str().ok());
        sent.map_or_else(|| format!("corr_{}", &uuid::Uuid::new_v4().simple()), str::to_owned)
    }
}

pub(super) fn json_reply(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// JSON that is written already.
pub(super) fn json_text(text: String) -> Response<Body> {
    let mut response = Response::new(full(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(super) fn ok(value: &Value) -> Response<Body> {
    json_reply(StatusCode::OK, value)
}

/// The error envelope of the combined app: `{"detail": ...}`.
pub(super) fn detail(status: StatusCode, text: &str) -> Response<Body> {
    json_reply(status, &json!({"detail": text}))
}

/// The newer generation has an error object of its own, whatever went wrong.
pub(super) fn enveloped(response: Response<Body>) -> Response<Body> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let text = status.canonical_reason().unwrap_or("Error");
    json_reply(
        status,
        &json!({
            "error_code": format!("HTTP_{}", status.as_u16()), "message": text, "user_message": text,
            "correlation_id": format!("err_{}", uuid::Uuid::new_v4().simple()), "timestamp": jiff::Timestamp::now(),
            "status": status.as_u16(), "severity": "low", "category": "unknown", "retryable": false, "details": {},
            "detail": text,
        }),
    )
}

pub(super) fn not_found() -> Response<Body> {
    detail(StatusCode::NOT_FOUND, "Not Found")
}

pub(super) fn method_not_allowed(allow: &'static str) -> Response<Body> {
    let mut response = detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

/// The answer to a list path without its trailing slash: an absolute `Location` made from `Host`.
pub(super) fn slash_redirect(call: &Call) -> Response<Body> {
    let host = call.headers().get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or("localhost");
    let query = call.request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    if let Ok(location) = format!("http://{host}{}/{query}", call.request.uri().path()).try_into() {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

pub(super) fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed_unsync()
}

/// One percent-decoding; what is no valid encoding stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let encoded = match (first, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match encoded {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
