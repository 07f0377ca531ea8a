//! Lines to a collector: OpenTelemetry's OTLP over HTTP (protobuf), as log records.
//!
//! A post counts once the collector has answered that it took all of it. One that it takes in part is an error like any
//! other: the lines come again, and the target is told to stand still, because nobody may leave out an audit record.

use std::io;

use opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
    common::v1::{AnyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
};
use prost::Message as _;
use serde::Deserialize;

use super::settings::OtlpSettings;
use crate::{
    audit::chain::ChainId,
    collector::{self, Collector, named, text},
    domain::Millis,
    tls::{ClientTls, TlsError},
};

/// Bytes of lines in one post, the last line aside: collectors bound what they take.
const POST_BYTES: usize = 1 << 20;

/// Why a post was not taken.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error("{0} (`audit.ship.otlp`)")]
    Post(#[from] collector::NotTaken),
    #[error("the collector refused {0} of the lines for good, and none may be left out: {1}")]
    Refused(i64, String),
    #[error("the collector's answer cannot be read")]
    Answer,
    #[error("`audit.ship.otlp.tls` cannot be used: {0}")]
    Tls(#[from] TlsError),
    #[error("TLS to the collector cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

pub(super) struct Otlp {
    settings: OtlpSettings,
    chain: ChainId,
    /// Made at the first use, on the runtime that is used then, and anew after a failure: files may be others by then.
    collector: Option<Collector>,
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
        Self { settings, chain, collector: None }
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
        let scope_logs =
            ScopeLogs { scope: Some(collector::scope("linkgate.audit")), log_records, ..ScopeLogs::default() };
        let chain = named("linkgate.audit.chain_id", text(&self.chain.to_string()));
        let resource = Some(collector::resource(Some(chain)));
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
        let collector = match self.collector.take() {
            Some(collector) => collector,
            None => self.connector()?,
        };
        let told = collector.post(body).await?;
        // An answer that cannot be read may be a refusal.
        let told = ExportLogsServiceResponse::decode(told).map_err(|_| NotTaken::Answer)?;
        self.collector = Some(collector);
        match told.partial_success {
            Some(part) if part.rejected_log_records > 0 => {
                Err(NotTaken::Refused(part.rejected_log_records, part.error_message))
            }
            _ => Ok(()),
        }
    }

    fn connector(&self) -> Result<Collector, NotTaken> {
        let OtlpSettings { collector, tls } = &self.settings;
        let secure = ClientTls::read(tls, &collector.endpoint)?;
        Ok(Collector::new(collector.clone(), secure)?)
    }
}

/// Bytes of whole lines that go into one post; one goes always.
fn post_length(lines: &[u8]) -> usize {
    let within = lines.get(..POST_BYTES.min(lines.len())).and_then(|fit| memchr::memrchr(b'\n', fit));
    within.or_else(|| memchr::memchr(b'\n', lines)).map_or(lines.len(), |end| end + 1)
}

fn nanos(time: Millis) -> u64 {
    u64::try_from(time.0).unwrap_or_default().saturating_mul(1_000_000)
}
