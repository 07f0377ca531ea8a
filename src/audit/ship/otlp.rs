//! Lines to a collector: OpenTelemetry's OTLP over HTTP (protobuf), as log records.
//!
//! A post counts once the collector has answered that it took all of it. One that it takes in part is an error like any
//! other: the lines come again, and the target is told to stand still, because nobody may leave out an audit record.

use std::{error::Error as _, io, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    resource::v1::Resource,
};
use prost::Message as _;
use rustls_platform_verifier::BuilderVerifierExt;
use serde::Deserialize;

use super::settings::OtlpSettings;
use crate::{audit::chain::ChainId, domain::Millis};

/// Bytes of lines in one post, the last line aside: collectors bound what they take.
const POST_BYTES: usize = 1 << 20;
/// A collector has little to say.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Why a post was not taken.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error("the collector does not answer within `audit.ship.otlp.timeout`")]
    Timeout,
    #[error("the collector cannot be reached or broke off: {0}")]
    Exchange(String),
    #[error("the collector answered with status {0}")]
    Status(StatusCode),
    #[error("the collector refused {0} of the lines for good, and none may be left out: {1}")]
    Refused(i64, String),
    #[error("the collector's answer cannot be read")]
    Answer,
    #[error("TLS to the collector cannot be set up: {0}")]
    Tls(rustls::Error),
}

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

pub(super) struct Otlp {
    settings: OtlpSettings,
    chain: ChainId,
    /// Made at the first use, on the runtime that is used then.
    client: Option<HttpClient>,
}

/// What of a line, in either form, a log record says beside the line itself.
#[derive(Deserialize)]
struct Said<'l> {
    seq: u64,
    #[serde(rename = "type")]
    line_type: &'l str,
    hash: &'l str,
    #[serde(rename = "pub")]
    visible: Visible,
}

#[derive(Deserialize)]
struct Visible {
    /// Openings, changes, headers; a completion has none.
    time: Option<Millis>,
}

impl Otlp {
    pub(super) fn new(settings: OtlpSettings, chain: ChainId) -> Self {
        Self { settings, chain, client: None }
    }

    /// Blocks until the collector has taken all of them. Called on a thread of the runtime that may block.
    pub(super) fn take(&mut self, lines: &[u8]) -> io::Result<()> {
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let mut rest = lines;
        while !rest.is_empty() {
            let (now, later) = rest.split_at_checked(post_length(rest)).unwrap_or((rest, &[]));
            let body = self.body(now)?;
            runtime.block_on(self.post(body)).map_err(io::Error::other)?;
            rest = later;
        }
        Ok(())
    }

    fn body(&self, lines: &[u8]) -> io::Result<Vec<u8>> {
        let observed = nanos(Millis::now());
        let records = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let log_records = records.map(|line| self.record(line, observed)).collect::<io::Result<Vec<_>>>()?;
        let scope = InstrumentationScope { name: "linkgate.audit".to_owned(), ..InstrumentationScope::default() };
        let scope_logs = ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() };
        let attributes = vec![
            named("service.name", text("linkgate")),
            named("service.version", text(env!("CARGO_PKG_VERSION"))),
            named("linkgate.audit.chain_id", text(&self.chain.to_string())),
        ];
        let resource = Some(Resource { attributes, ..Resource::default() });
        let logs = ResourceLogs { resource, scope_logs: vec![scope_logs], ..ResourceLogs::default() };
        Ok(ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec())
    }

    /// The line itself is the body, byte for byte: by it the hash can be worked out.
    fn record(&self, line: &[u8], observed: u64) -> io::Result<LogRecord> {
        let said: Said<'_> = serde_json::from_slice(line)?;
        let line = std::str::from_utf8(line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let seq = Value::IntValue(i64::try_from(said.seq).unwrap_or(i64::MAX));
        Ok(LogRecord {
            time_unix_nano: said.visible.time.map_or(0, nanos),
            observed_time_unix_nano: observed,
            severity_number: SeverityNumber::Info.into(),
            severity_text: "INFO".to_owned(),
            event_name: format!("linkgate.audit.{}", said.line_type),
            body: Some(AnyValue { value: Some(text(line)) }),
            attributes: vec![named("linkgate.audit.seq", seq), named("linkgate.audit.hash", text(said.hash))],
            ..LogRecord::default()
        })
    }

    async fn post(&mut self, body: Vec<u8>) -> Result<(), NotTaken> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.client.insert(client(&self.settings).map_err(NotTaken::Tls)?).clone(),
        };
        let posted = tokio::time::timeout(self.settings.timeout, exchange(&client, &self.settings, body));
        posted.await.unwrap_or(Err(NotTaken::Timeout))
    }
}

async fn exchange(client: &HttpClient, settings: &OtlpSettings, body: Vec<u8>) -> Result<(), NotTaken> {
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = settings.endpoint.clone();
    *request.headers_mut() = settings.headers.clone();
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    let agent = HeaderValue::from_static(concat!("linkgate/", env!("CARGO_PKG_VERSION")));
    request.headers_mut().insert(header::USER_AGENT, agent);
    let answer = client.request(request).await.map_err(|error| {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        NotTaken::Exchange(format!("{error}{cause}"))
    })?;
    if !answer.status().is_success() {
        return Err(NotTaken::Status(answer.status()));
    }
    let told = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
    let told = told.map_err(|error| NotTaken::Exchange(error.to_string()))?.to_bytes();
    // An answer that cannot be read may be a refusal.
    let told = ExportLogsServiceResponse::decode(told).map_err(|_| NotTaken::Answer)?;
    match told.partial_success {
        Some(part) if part.rejected_log_records > 0 => {
            Err(NotTaken::Refused(part.rejected_log_records, part.error_message))
        }
        _ => Ok(()),
    }
}

/// Bytes of whole lines that go into one post; one goes always.
fn post_length(lines: &[u8]) -> usize {
    let within = lines.get(..POST_BYTES.min(lines.len())).and_then(|fit| memchr::memrchr(b'\n', fit));
    within.or_else(|| memchr::memchr(b'\n', lines)).map_or(lines.len(), |end| end + 1)
}

fn client(settings: &OtlpSettings) -> Result<HttpClient, rustls::Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(settings.timeout));
    let https = settings.endpoint.scheme_str() == Some("https");
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls(https)?);
    let builder = if https { builder.https_only() } else { builder.https_or_http() };
    let connector = builder.enable_http1().wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector))
}

fn tls(platform_roots: bool) -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    if platform_roots {
        Ok(builder.with_platform_verifier()?.with_no_client_auth())
    } else {
        Ok(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
    }
}

fn nanos(time: Millis) -> u64 {
    u64::try_from(time.0).unwrap_or_default().saturating_mul(1_000_000)
}

fn text(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

fn named(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
