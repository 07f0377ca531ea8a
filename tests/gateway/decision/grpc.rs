//! Envoy's `ext_authz` v3, by a client of our own.

use std::{collections::HashMap, net::SocketAddr};

use linkgate::proxy::headers::protected;
use linkgate::server::decision::{
    ext_authz::PATH,
    proto::{
        Address, AttributeContext, AttributeRequest, CheckRequest, CheckResponse, HeaderMap, HeaderValue, HttpRequest,
        HttpResponse, OkHttpResponse, Peer, SocketAddress, ValueKind,
    },
};
use serde_json::Value;
use tonic::{Code, Status};

use super::{EDGE, PDP, listener, metric, record, rig};
use crate::rig::{HOME1, P1, Rig};

/// A request as Envoy tells it, and what else its call carries.
#[derive(Clone)]
pub struct Told(CheckRequest, Vec<(&'static str, String)>);

impl Told {
    pub fn new(method: &str, path: &str) -> Self {
        let http = HttpRequest {
            method: method.into(),
            path: path.into(),
            host: "api.test".into(),
            header_map: Some(HeaderMap::default()),
            ..HttpRequest::default()
        };
        let socket_address = Some(SocketAddress { address: "192.0.2.7".into(), port_value: 4711 });
        Self(
            CheckRequest {
                attributes: Some(AttributeContext {
                    source: Some(Peer { address: Some(Address { socket_address }) }),
                    request: Some(AttributeRequest { http: Some(http) }),
                }),
            },
            Vec::new(),
        )
    }

    /// Metadata of the call.
    pub fn called_with(mut self, name: &'static str, value: &str) -> Self {
        self.1.push((name, value.to_owned()));
        self
    }

    pub fn http(&mut self) -> &mut HttpRequest {
        self.0.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap()
    }

    pub fn header(self, name: &str, value: &str) -> Self {
        self.raw(name, value.as_bytes())
    }

    fn raw(mut self, name: &str, value: &[u8]) -> Self {
        let raw_value = bytes::Bytes::copy_from_slice(value);
        let header = HeaderValue { key: name.into(), value: String::new(), raw_value };
        self.http().header_map.as_mut().unwrap().headers.push(header);
        self
    }

    pub fn body(mut self, body: &str) -> Self {
        self.http().raw_body = bytes::Bytes::copy_from_slice(body.as_bytes());
        self
    }

    pub fn send(&self, to: SocketAddr) -> Result<CheckResponse, Status> {
        self.send_as(to, Some(&format!("Bearer {EDGE}")))
    }

    fn send_as(&self, to: SocketAddr, authorization: Option<&str>) -> Result<CheckResponse, Status> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
                .http2_only(true)
                .build_http();
            let mut grpc = tonic::client::Grpc::with_origin(client, format!("http://{to}").parse().unwrap());
            grpc.ready().await.unwrap();
            let mut request = tonic::Request::new(self.0.clone());
            if let Some(value) = authorization {
                request.metadata_mut().insert("authorization", value.parse().unwrap());
            }
            for (name, value) in &self.1 {
                request.metadata_mut().append(*name, value.parse().unwrap());
            }
            let codec = tonic_prost::ProstCodec::<CheckRequest, CheckResponse>::default();
            grpc.unary(request, http::uri::PathAndQuery::from_static(PATH), codec)
                .await
                .map(tonic::Response::into_inner)
        })
    }
}

fn asked(rig: &Rig, method: &str, path: &str, tenant: &str) -> Told {
    Told::new(method, path)
        .header(":path", path)
        .header(":method", method)
        .header("authorization", &format!("Bearer {}", rig.token()))
        .header("x-active-tenant-id", tenant)
}

pub fn allowed(answer: &CheckResponse) -> &OkHttpResponse {
    assert_eq!(answer.status.as_ref().unwrap().code, 0, "{answer:?}");
    match answer.http_response.as_ref().unwrap() {
        HttpResponse::Ok(ok) => ok,
        HttpResponse::Denied(denied) => panic!("{denied:?}"),
    }
}

pub fn set(ok: &OkHttpResponse) -> HashMap<&str, &str> {
    let pair = |option: &'_ linkgate::server::decision::proto::HeaderValueOption| option.append_action == 2;
    assert!(ok.headers.iter().all(pair), "each takes the place of what stands there");
    ok.headers
        .iter()
        .map(|one| one.header.as_ref().unwrap())
        .map(|one| (one.key.as_str(), one.value.as_str()))
        .collect()
}

/// Status and `CODE/reason` of a refusal.
fn refused(answer: &CheckResponse) -> (i32, String) {
    assert_ne!(answer.status.as_ref().unwrap().code, 0, "{answer:?}");
    let Some(HttpResponse::Denied(denied)) = &answer.http_response else { panic!("{answer:?}") };
    let body: Value = serde_json::from_str(&denied.body).unwrap();
    let code = body["error"]["code"].as_str().unwrap();
    let told = match body["error"]["details"]["reason"].as_str() {
        Some(reason) => format!("{code}/{reason}"),
        None => code.to_owned(),
    };
    (denied.status.as_ref().unwrap().code, told)
}

pub fn metadata(answer: &CheckResponse, name: &str) -> String {
    let fields = &answer.dynamic_metadata.as_ref().unwrap().fields;
    match fields.get(name).and_then(|value| value.kind.as_ref()) {
        Some(ValueKind::Text(text)) => text.clone(),
        None => String::new(),
    }
}

#[test]
fn an_allowed_request_is_told_as_changes_and_recorded_as_decided() {
    let rig = rig();
    let told = asked(&rig, "GET", "/api/invoices?a=%20&tenant_id=evil&Tenant%5Fid=evil", "t-full")
        .header("x-tenant-id", "evil")
        .header("X_Partner-Id", "evil")
        .header("x-api-key", "evil")
        .header("cookie", "a=1; access_token=evil")
        .header("accept", "text/plain")
        .header("connection", "keep-alive, x-hop")
        .header("x-hop", "1");
    let answer = told.send(listener(&rig)).unwrap();
    let ok = allowed(&answer);
    let set = set(ok);
    for (name, value) in [
        ("x-tenant-id", "t-full"),
        ("x-active-tenant-id", "t-full"),
        ("x-cross-tenant-access", "true"),
        ("x-user-id", "user-1"),
        ("x-partner-id", P1),
        ("x-partner-tenant-id", HOME1),
        ("x-partner-role", "msp_full"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-host", "api.test"),
        ("cookie", "a=1"),
    ] {
        assert_eq!(set.get(name), Some(&value), "{name}");
    }
    // The user's token is replaced by one for this link.
    let token = set["authorization"].strip_prefix("Bearer ").unwrap();
    assert_eq!(crate::flow::claims(token)["tenant_id"], "t-full");
    assert!(set["x-linkgate-assertion"].split('.').count() == 3);
    assert!(!set.contains_key("accept") && !set.contains_key("host"));
    let mut removed: Vec<&str> = ok.headers_to_remove.iter().map(String::as_str).collect();
    for name in protected() {
        // Whether the client sent it or not.
        assert!(removed.contains(name) != set.contains_key(name), "{name}");
    }
    removed.retain(|name| !protected().contains(name));
    removed.sort_unstable();
    assert_eq!(removed, ["x-api-key", "x-hop", "x_partner-id"]);
    assert_eq!(ok.query_parameters_to_remove, ["tenant_id", "Tenant%5Fid"]);
    let given: Vec<&str> =
        ok.response_headers_to_add.iter().map(|option| option.header.as_ref().unwrap().key.as_str()).collect();
    for name in ["x-request-id", "x-decision-id", "cache-control", "vary", "x-active-tenant-id"] {
        assert!(given.contains(&name), "{name}");
    }
    for (name, value) in [("decision", "allow"), ("tenant", "t-full"), ("partner", P1), ("upstream", "up")] {
        assert_eq!(metadata(&answer, name), value);
    }
    let id = metadata(&answer, "decision_id");
    assert_eq!(set["x-decision-id"], id);
    let record = record(&rig, &id);
    assert_eq!((&record["decision"], &record["reason"]), (&"allow".into(), &"decided".into()));
    assert_eq!((&record["status"], &record["aborted"]), (&Value::Null, &false.into()));
    assert_eq!((&record["client_ip"], &record["managed_tenant_id"]), (&"192.0.2.7".into(), &"t-full".into()));
    let explained = crate::why::linkgate(&rig, &["explain", &id]);
    assert!(explained.out.contains("another proxy carried it out"), "{}{}", explained.out, explained.err);
    assert_eq!(metric(&rig, r#"linkgate_decisions_total{face="envoy",outcome="allow"}"#), 1);
    assert_eq!(rig.upstream.count(), 0, "nothing is forwarded");
}

#[test]
fn every_gate_answers_as_the_proxy_would() {
    let rig = rig();
    for (method, path, tenant, expected) in [
        ("GET", "/api/invoices", "t-unlinked", (403, "TENANT_ACCESS_DENIED/no_link")),
        ("GET", "/api/invoices", "t-expired", (403, "TENANT_LINK_EXPIRED")),
        ("GET", "/api/invoices", "t-revoked", (403, "TENANT_ACCESS_DENIED/link_inactive")),
        ("GET", "/api/invoices", "t-future", (403, "TENANT_ACCESS_DENIED/link_not_started")),
        ("GET", "/api/invoices", "t-pending", (403, "TENANT_ACCESS_DENIED/link_pending")),
        ("GET", "/api/invoices", "t-override", (403, "FORBIDDEN/override")),
        ("GET", "/api/invoices", "t-mfa", (403, "FORBIDDEN/mfa_required")),
        ("GET", "/api/invoices", "t-cidr", (403, "FORBIDDEN/ip_not_allowed")),
        ("POST", "/api/invoices", "t-auditor", (403, "FORBIDDEN/permission")),
        ("GET", "/own", "t-full", (403, "FORBIDDEN/home_only")),
        ("GET", "/closed", "t-full", (403, "FORBIDDEN/route_denied")),
        ("GET", "/nowhere", "t-full", (404, "ROUTE_NOT_FOUND")),
        ("DELETE", "/api/invoices", "t-full", (405, "METHOD_NOT_ALLOWED")),
        ("delete", "/t/a", "t-full", (400, "BAD_REQUEST")),
        ("trace", "/t/a", "t-full", (400, "BAD_REQUEST")),
        ("GET", "/api/tenants/t-other/stats", "t-full", (400, "TENANT_CONTEXT_CONFLICT")),
        ("GET", "/api//invoices", "t-full", (400, "AMBIGUOUS_PATH")),
        ("GET", "/api/%2e/invoices", "t-full", (400, "AMBIGUOUS_PATH")),
        ("GET", "/api/invoices#a", "t-full", (400, "AMBIGUOUS_PATH")),
        ("GET", "http://evil/api/invoices", "t-full", (400, "AMBIGUOUS_PATH")),
        ("GET", "/api/v1/partner/customers", "t-full", (404, "ROUTE_NOT_FOUND")),
        ("GET", "/api/invoices?a=1;tenant_id=2", "t-full", (400, "BAD_REQUEST")),
    ] {
        let answer = asked(&rig, method, path, tenant).send(listener(&rig)).unwrap();
        assert_eq!(refused(&answer), (expected.0, expected.1.to_owned()), "{method} {path} {tenant}");
    }
    let answer = Told::new("GET", "/api/invoices").send(listener(&rig)).unwrap();
    assert_eq!(refused(&answer), (401, "UNAUTHORIZED".into()));
    assert_eq!(answer.status.unwrap().code, Code::Unauthenticated as i32);
    let inside = asked(&rig, "GET", "/api/invoices", "t-cidr");
    let mut inside = inside;
    inside.0.attributes.as_mut().unwrap().source.as_mut().unwrap().address.as_mut().unwrap().socket_address =
        Some(SocketAddress { address: "10.1.2.3".into(), port_value: 1 });
    allowed(&inside.send(listener(&rig)).unwrap());
    let records = rig.records();
    let denied = records.iter().filter(|record| record["decision"] == "deny").count();
    assert_eq!(denied, 12, "refusals of known users are recorded, each once");
}

#[test]
fn a_field_that_stands_twice_is_refused() {
    let rig = rig();
    let twice = asked(&rig, "GET", "/api/invoices", "t-full").header("x-active-tenant-id", "t-full");
    assert_eq!(refused(&twice.send(listener(&rig)).unwrap()), (400, "TENANT_CONTEXT_CONFLICT".into()));
    let token = format!("Bearer {}", rig.token());
    let twice = asked(&rig, "GET", "/api/invoices", "t-full").header("authorization", &token);
    assert_eq!(refused(&twice.send(listener(&rig)).unwrap()), (401, "UNAUTHORIZED".into()));
    let raw = asked(&rig, "GET", "/api/invoices", "t-full").raw("x-active-tenant-id", b"\xff");
    assert_eq!(refused(&raw.send(listener(&rig)).unwrap()), (400, "TENANT_CONTEXT_CONFLICT".into()));
    let lookalike = asked(&rig, "GET", "/api/invoices", "t-full").header("content_length", "1");
    assert_eq!(refused(&lookalike.send(listener(&rig)).unwrap()), (400, "BAD_REQUEST".into()));
    let other = asked(&rig, "GET", "/api/invoices", "t-full").header(":path", "/own");
    assert_eq!(refused(&other.send(listener(&rig)).unwrap()), (400, "BAD_REQUEST".into()));
    for fields in [
        [("content-length", "0"), ("transfer-encoding", "chunked")],
        [("content-length", "0"), ("content-length", "17")],
        [("host", "api.test"), ("host", "b")],
    ] {
        let [(first, one), (second, two)] = fields;
        let told = asked(&rig, "GET", "/api/invoices", "t-full").header(first, one).header(second, two);
        assert_eq!(refused(&told.send(listener(&rig)).unwrap()), (400, "BAD_REQUEST".into()), "{fields:?}");
    }
    // More than a map of fields holds.
    let many =
        (0..30_000).fold(asked(&rig, "GET", "/api/invoices", "t-full"), |told, n| told.header(&format!("x-{n}"), "1"));
    assert_eq!(refused(&many.send(listener(&rig)).unwrap()), (400, "BAD_REQUEST".into()));
}

#[test]
fn a_route_that_refuses_body_fields_is_decided_with_its_whole_body_or_not_at_all() {
    let rig = rig();
    let ticket = |body: &str| {
        asked(&rig, "POST", "/api/tickets", "t-full")
            .header("content-type", "application/json")
            .header("content-length", &body.len().to_string())
            .body(body)
    };
    allowed(&ticket(r#"{"subject":"x"}"#).send(listener(&rig)).unwrap());
    allowed(&ticket(r#"{"subject":"x"}"#).header("x-envoy-auth-partial-body", "false").send(listener(&rig)).unwrap());
    for (what, told) in [
        ("a refused field", ticket(r#"{"tenant_id":"t-other"}"#)),
        ("a repeated key", ticket(r#"{"subject":"x","subject":"y"}"#)),
        ("no body sent along", ticket(r#"{"subject":"x"}"#).body("")),
        ("a part of it", ticket(r#"{"subject":"x"}"#).header("x-envoy-auth-partial-body", "true")),
        (
            "a part of it behind a lie",
            ticket(r#"{"subject":"x"}"#)
                .header("x-envoy-auth-partial-body", "false")
                .header("x-envoy-auth-partial-body", "true"),
        ),
        ("less than its length", ticket(r#"{"subject":"x"}"#).body(r#"{"subject":"#)),
    ] {
        assert_eq!(refused(&told.send(listener(&rig)).unwrap()), (400, "BAD_REQUEST".into()), "{what}");
    }
    // Other routes need none.
    allowed(
        &asked(&rig, "POST", "/api/invoices", "t-full").header("content-length", "9").send(listener(&rig)).unwrap(),
    );
    let long = asked(&rig, "POST", "/small", "t-full").header("content-length", "4096");
    assert_eq!(refused(&long.send(listener(&rig)).unwrap()), (413, "PAYLOAD_TOO_LARGE".into()));
}

#[test]
fn an_assertion_that_binds_the_query_is_signed_for_its_very_bytes() {
    let up = "credential = \"drop\"\nassertion = \"request\"\n";
    let rig = super::rig_with(crate::rig::Setup { upstream: up.into(), ..crate::rig::Setup::default() });
    let answer = asked(&rig, "GET", "/api/invoices?z=1&a=%20", "t-full").send(listener(&rig)).unwrap();
    let ok = allowed(&answer);
    let claims = crate::flow::claims(set(ok)["x-linkgate-assertion"]);
    assert_eq!((&claims["path"], &claims["method"]), (&"/api/invoices".into(), &"GET".into()), "{claims}");
    assert_eq!(claims["jti"], metadata(&answer, "decision_id"));
    assert!(ok.headers_to_remove.iter().any(|name| name == "authorization"), "it is dropped");
    // Envoy would write what is left anew.
    let answer = asked(&rig, "GET", "/api/invoices?z=1&tenant_id=x", "t-full").send(listener(&rig)).unwrap();
    assert_eq!(refused(&answer), (400, "BAD_REQUEST".into()));
}

#[test]
fn whoever_shows_no_known_secret_gets_no_decision() {
    let rig = rig();
    let told = asked(&rig, "GET", "/api/invoices", "t-full");
    let user = format!("Bearer {}", rig.token());
    let other = format!("Basic {EDGE}");
    for authorization in [None, Some("Bearer x"), Some(EDGE), Some(user.as_str()), Some(other.as_str())] {
        let status = told.send_as(listener(&rig), authorization).unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{authorization:?}");
    }
    assert_eq!(metric(&rig, "linkgate_decision_strangers_total"), 5);
    assert!(rig.records().is_empty());
    told.send_as(listener(&rig), Some(&format!("Bearer {PDP}"))).unwrap();
    // The public listener knows nothing of it, whoever asks.
    let status = told.send_as(rig.public, Some(&format!("Bearer {EDGE}"))).unwrap_err();
    assert_ne!(status.code(), Code::Ok);
}

#[test]
fn what_envoy_must_tell_and_does_not_is_refused() {
    let rig = rig();
    let good = asked(&rig, "GET", "/api/invoices", "t-full");
    let mut joined = good.clone();
    joined.http().header_map = None;
    joined.http().headers = HashMap::from([("x-active-tenant-id".into(), "t-full".into())]);
    let mut both = good.clone();
    both.http().headers = HashMap::from([("x-active-tenant-id".into(), "t-full".into())]);
    let mut nobody = good.clone();
    nobody.0.attributes.as_mut().unwrap().source = None;
    let mut nothing = good.clone();
    nothing.0.attributes.as_mut().unwrap().request = None;
    let empty = Told(CheckRequest { attributes: None }, Vec::new());
    for told in [joined, both, nobody, nothing, empty] {
        assert_eq!(told.send(listener(&rig)).unwrap_err().code(), Code::FailedPrecondition);
    }
    assert_eq!(metric(&rig, r#"linkgate_decisions_total{face="envoy",outcome="fault"}"#), 5);
    allowed(&good.send(listener(&rig)).unwrap());
}

#[test]
fn home_and_public_requests_are_changed_as_the_proxy_changes_them() {
    let rig = rig();
    let token = rig.token();
    let home = Told::new("GET", "/api/invoices")
        .header("authorization", &format!("Bearer {token}"))
        .header("x-tenant-id", "evil")
        .header("x-active-tenant-id", HOME1);
    let answer = home.send(listener(&rig)).unwrap();
    let (ok, set) = (allowed(&answer), set(allowed(&answer)));
    assert_eq!((set["x-tenant-id"], set["x-cross-tenant-access"]), (HOME1, "false"));
    assert!(!set.contains_key("authorization"), "the user's own goes on as it is");
    assert!(ok.headers_to_remove.iter().any(|name| name == "x-active-tenant-id"));
    let public = Told::new("POST", "/public/login").header("authorization", "Basic x").header("x-user-id", "evil");
    let answer = public.send(listener(&rig)).unwrap();
    let ok = allowed(&answer);
    assert!(ok.headers_to_remove.iter().any(|name| name == "x-user-id"));
    assert!(!ok.headers_to_remove.iter().any(|name| name == "authorization"), "credentials of a log-in pass");
    assert!(metadata(&answer, "decision_id").is_empty());
}
