//! Envoy's `ext_authz` v3 over gRPC: `envoy.service.auth.v3.Authorization/Check`.
//!
//! Envoy must send each field as it came (`encode_raw_headers: true`): joined, a repeated `Authorization` or
//! `X-Active-Tenant-Id` would look like one. Without it nothing is decided. The caller's secret travels in the call's own
//! metadata, `authorization: Bearer`; the user's credential is a part of the message.

use std::{collections::HashMap, future::Future, pin::Pin, rc::Rc, time::Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tonic::{Status, body::Body, server::UnaryService};

use super::{
    callers,
    original::{self, Original},
    proto::{
        self, AppendAction, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValueOption, HttpResponse,
        HttpStatus, OkHttpResponse, RpcStatus, Struct, Value, ValueKind,
    },
};
use crate::{
    domain::ErrorCode,
    proxy::{
        decision::{self, Allowed, Asked, Asker, Decided, Means, Refused, Told},
        decision_metrics::{Face, Outcome},
        fields,
        inbound::Inbound,
        peer::Peer,
        respond::Failure,
        trace_context,
        worker::Worker,
    },
};

/// The method's path.
pub const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";

/// A body that may be read beforehand, and the head around it.
const MAX_MESSAGE_BYTES: usize = fields::MAX_READ_BYTES + 2 * 1024 * 1024;

/// Envoy's word on whether the body that it sent is all of it.
const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

/// Answers one call.
pub(super) async fn answer(worker: Rc<Worker>, connection: Peer, request: Request<Incoming>) -> Response<Body> {
    if callers::by_bearer(&worker, request.headers()).is_none() {
        return Status::unauthenticated(
            "this proxy is not known here: send its secret as `authorization: Bearer` in `initial_metadata` of the gRPC service",
        )
        .into_http();
    }
    // Of the call itself: what the client sent is a part of the message.
    let asker = Asker { face: Face::Envoy, parent: trace_context::read(request.headers()) };
    let codec = tonic_prost::ProstCodec::<CheckResponse, CheckRequest>::default();
    let mut grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE_BYTES);
    grpc.unary(Check { worker, connection, asker }, request).await
}

/// One call. It stays on its worker's thread.
struct Check {
    worker: Rc<Worker>,
    connection: Peer,
    asker: Asker,
}

impl UnaryService<CheckRequest> for Check {
    type Response = CheckResponse;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<CheckResponse>, Status>>>>;

    fn call(&mut self, request: tonic::Request<CheckRequest>) -> Self::Future {
        let (worker, connection, asker) = (Rc::clone(&self.worker), self.connection.clone(), self.asker);
        Box::pin(
            async move { Ok(tonic::Response::new(check(&worker, &connection, asker, request.into_inner()).await?)) },
        )
    }
}

async fn check(
    worker: &Rc<Worker>,
    connection: &Peer,
    asker: Asker,
    request: CheckRequest,
) -> Result<CheckResponse, Status> {
    let begun = Instant::now();
    let misconfigured = |why: &'static str| {
        tracing::warn!(why, "Envoy asks in a form that nothing can be decided by; the request is refused");
        worker.gateway.metrics.decisions.count(Face::Envoy, Outcome::Fault, begun);
        Status::failed_precondition(why)
    };
    let attributes = request.attributes.unwrap_or_default();
    let address = attributes.source.and_then(|source| source.address).and_then(|address| address.socket_address);
    let client = address.and_then(|address| address.address.parse().ok());
    let client = client.ok_or_else(|| misconfigured("`source.address` names no IP address"))?;
    let http = attributes.request.and_then(|request| request.http);
    let http = http.ok_or_else(|| misconfigured("there is no HTTP request"))?;
    if !http.headers.is_empty() || http.header_map.is_none() {
        return Err(misconfigured("set `encode_raw_headers: true` in the ext_authz filter"));
    }
    let peer = original::client(connection, client).map_err(|_| misconfigured("`source.address` is no address"))?;
    let decided = match taken(http).and_then(|taken| taken.request(client)) {
        Ok(request) => {
            // Its `Upgrade` is told with the client's fields.
            let asked = Asked { request, peer, means: Means::Anything, asker, upgrade_asked: false };
            decision::decide(worker, asked).await
        }
        Err(failure) => decision::unreadable(worker, peer, asker, failure).await,
    };
    let (outcome, response) = match decided {
        Decided::Allowed(allowed) => (Outcome::Allow, allow(*allowed)),
        Decided::Refused(refused) => (Outcome::of_refusal(refused.status.as_u16()), deny(*refused)),
    };
    worker.gateway.metrics.decisions.count(Face::Envoy, outcome, begun);
    Ok(response)
}

/// What Envoy tells, taken out of its message.
struct Taken {
    http: proto::HttpRequest,
    headers: HeaderMap,
    host: Option<HeaderValue>,
    body: Inbound,
}

impl Taken {
    fn request(self, client: std::net::IpAddr) -> Result<Request<Inbound>, Failure> {
        let Self { http, headers, host, body } = self;
        Original { method: http.method.as_bytes(), target: http.path.as_bytes(), host, headers, body }.request(client)
    }
}

fn taken(mut http: proto::HttpRequest) -> Result<Taken, Failure> {
    let bad = |message: &str| Failure::new(ErrorCode::BadRequest, "original").saying(message);
    let mut headers = HeaderMap::new();
    let mut whole_body = true;
    for field in http.header_map.take().unwrap_or_default().headers {
        let value = if field.raw_value.is_empty() { field.value.as_bytes() } else { &field.raw_value[..] };
        if let Some(pseudo) = field.key.strip_prefix(':') {
            let expected = match pseudo {
                "path" => Some(&http.path),
                "method" => Some(&http.method),
                _ => None,
            };
            if expected.is_some_and(|expected| expected.as_bytes() != value) {
                return Err(bad("the request is told in contradicting ways"));
            }
            continue;
        }
        if field.key.eq_ignore_ascii_case(PARTIAL_BODY) {
            whole_body &= value == b"false";
        }
        let name = HeaderName::from_bytes(field.key.as_bytes()).map_err(|_| bad("a header field has no valid name"))?;
        let value = HeaderValue::from_bytes(value).map_err(|_| bad("a header field has no valid value"))?;
        headers.try_append(name, value).map_err(|_| bad("there are too many header fields"))?;
    }
    let host = Some(http.host.as_str()).filter(|host| !host.is_empty()).map(HeaderValue::from_str).transpose();
    let host = host.map_err(|_| bad("the host cannot be one"))?;
    let body = body(&mut http, &headers, whole_body);
    Ok(Taken { http, headers, host, body })
}

/// The body where Envoy was told to send it along and sent all of it.
fn body(http: &mut proto::HttpRequest, headers: &HeaderMap, whole: bool) -> Inbound {
    let bytes = match http.raw_body.is_empty() {
        true => bytes::Bytes::from(std::mem::take(&mut http.body)),
        false => std::mem::take(&mut http.raw_body),
    };
    let length =
        headers.get(header::CONTENT_LENGTH).map(|value| value.to_str().ok().and_then(|text| text.parse().ok()));
    let fits = length.is_none_or(|length| length == Some(bytes.len()));
    // None sent along looks like an empty one, unless the request itself says that it is empty.
    let told = !bytes.is_empty() || length == Some(Some(0));
    if whole && fits && told { Inbound::Given(Some(bytes)) } else { Inbound::Unseen }
}

fn allow(allowed: Allowed) -> CheckResponse {
    let Allowed { set, remove, dropped_parameters, answer, told, .. } = allowed;
    let headers_to_remove = remove.iter().map(|name| name.as_str().to_owned()).collect();
    CheckResponse {
        status: Some(RpcStatus { code: tonic::Code::Ok as i32, message: String::new() }),
        http_response: Some(HttpResponse::Ok(OkHttpResponse {
            headers: options(&set),
            headers_to_remove,
            response_headers_to_add: options(&answer),
            query_parameters_to_remove: dropped_parameters,
        })),
        dynamic_metadata: Some(metadata(&told)),
    }
}

fn deny(refused: Refused) -> CheckResponse {
    let Refused { status, headers, body, told } = refused;
    let code = match status {
        StatusCode::UNAUTHORIZED => tonic::Code::Unauthenticated,
        StatusCode::TOO_MANY_REQUESTS => tonic::Code::ResourceExhausted,
        status if status.is_server_error() => tonic::Code::Unavailable,
        _ => tonic::Code::PermissionDenied,
    };
    CheckResponse {
        status: Some(RpcStatus { code: code as i32, message: told.reason.to_owned() }),
        http_response: Some(HttpResponse::Denied(DeniedHttpResponse {
            status: Some(HttpStatus { code: i32::from(status.as_u16()) }),
            headers: options(&headers),
            body: String::from_utf8_lossy(&body).into_owned(),
        })),
        dynamic_metadata: Some(metadata(&told)),
    }
}

/// The first value of a name takes the place of what stands there, further ones are added to it. What caches are told to
/// vary by is added to what the service says.
fn options(headers: &HeaderMap) -> Vec<HeaderValueOption> {
    let mut found = Vec::with_capacity(headers.len());
    for name in headers.keys() {
        for (at, value) in headers.get_all(name).iter().enumerate() {
            let action = match at {
                0 if *name != header::VARY => AppendAction::OverwriteIfExistsOrAdd,
                _ => AppendAction::AppendIfExistsOrAdd,
            };
            let (text, raw) = match std::str::from_utf8(value.as_bytes()) {
                Ok(text) => (text.to_owned(), bytes::Bytes::new()),
                Err(_) => (String::new(), bytes::Bytes::copy_from_slice(value.as_bytes())),
            };
            let header = proto::HeaderValue { key: name.as_str().to_owned(), value: text, raw_value: raw };
            found.push(HeaderValueOption { header: Some(header), append_action: action as i32 });
        }
    }
    found
}

/// For Envoy's access log and the filters behind: `envoy.filters.http.ext_authz`.
fn metadata(told: &Told) -> Struct {
    let pairs = [
        ("decision", Some(if told.code.is_none() { "allow" } else { "deny" }.to_owned())),
        ("decision_id", told.decision_id.map(|id| id.to_string())),
        ("partner", told.partner.map(|id| id.to_string())),
        ("tenant", told.tenant.as_ref().map(|tenant| tenant.as_str().to_owned())),
        ("link", told.link.map(|id| id.to_string())),
        ("upstream", told.upstream.as_deref().map(str::to_owned)),
        ("code", told.code.map(|code| code.as_str().to_owned())),
        ("reason", Some(told.reason.to_owned()).filter(|reason| !reason.is_empty())),
    ];
    let fields: HashMap<String, Value> = pairs
        .into_iter()
        .filter_map(|(name, text)| Some((name.to_owned(), Value { kind: Some(ValueKind::Text(text?)) })))
        .collect();
    Struct { fields }
}
