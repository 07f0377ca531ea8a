//! What tests and benches turn: how slow a service is, how much it holds, and for which tenants it misbehaves.

use std::{
    collections::HashMap,
    sync::{
        RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use super::reply::{Body, detail, full, json_reply};

/// How a service fails a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misbehave {
    /// Answers well, and so much later.
    Slow(Duration),
    /// 500 with an error object.
    Fail,
    /// 200, said to be JSON, and cut in the middle.
    Garbage,
    /// 200 with a page for people.
    Html,
    /// 200 with JSON of that many bytes.
    Huge(u64),
    /// Closes the connection without an answer.
    Close,
    /// The database of money fails inside: invoices and payments are 200 with empty lists.
    Zeros,
    /// The dashboard is 200 with zeros.
    ZeroDashboard,
    /// The traffic database is switched off: usage is 503.
    UsageOff,
    /// 307 to another host.
    Redirect,
    /// Rows of another tenant.
    ForeignRows,
}

/// Shared by all connections of one service.
#[derive(Debug, Default)]
pub(super) struct Control {
    latency_us: AtomicU64,
    /// One more than the count; 0: as many as the tenant's dice say.
    invoices: AtomicU64,
    tenants: RwLock<HashMap<String, Misbehave>>,
    /// Of the registry; others are called after their id.
    names: RwLock<HashMap<String, String>>,
}

impl Control {
    pub(super) fn set_latency(&self, latency: Duration) {
        self.latency_us.store(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn latency(&self) -> Duration {
        Duration::from_micros(self.latency_us.load(Ordering::Relaxed))
    }

    pub(super) fn set_invoices(&self, count: Option<u64>) {
        self.invoices.store(count.map_or(0, |count| count.saturating_add(1)), Ordering::Relaxed);
    }

    pub(super) fn invoices(&self) -> Option<u64> {
        self.invoices.load(Ordering::Relaxed).checked_sub(1)
    }

    pub(super) fn misbehave(&self, tenant: &str, how: Option<Misbehave>) {
        let mut tenants = self.tenants.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        match how {
            Some(how) => tenants.insert(tenant.to_owned(), how),
            None => tenants.remove(tenant),
        };
    }

    pub(super) fn name_tenants(&self, named: impl IntoIterator<Item = (String, String)>) {
        self.names.write().unwrap_or_else(std::sync::PoisonError::into_inner).extend(named);
    }

    /// The registry's object.
    pub(super) fn tenant_row(&self, tenant: &str) -> Value {
        let mut row = super::data::tenant_row(tenant);
        let names = self.names.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let (Some(name), Some(row)) = (names.get(tenant), row.as_object_mut()) {
            row.insert("name".into(), name.as_str().into());
        }
        row
    }

    pub(super) fn of(&self, tenant: &str) -> Option<Misbehave> {
        let tenants = self.tenants.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        tenants.get(tenant).copied()
    }
}

/// The answer where the failure leaves no other.
pub(super) async fn instead(how: Misbehave, path: &str) -> Option<std::io::Result<Response<Body>>> {
    let json = |text: &'static [u8]| {
        let mut response = Response::new(full(Bytes::from_static(text)));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    };
    Some(Ok(match how {
        Misbehave::Slow(time) => {
            tokio::time::sleep(time).await;
            return None;
        }
        Misbehave::Fail => detail(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error"),
        Misbehave::Garbage => json(br#"{"invoices": [{"invoice_id": "1", "total_am"#),
        Misbehave::Html => {
            let mut response = Response::new(full("<html><body>Log in</body></html>"));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
            response
        }
        Misbehave::Huge(bytes) => huge(bytes),
        Misbehave::Close => return Some(Err(std::io::Error::other("closed on purpose"))),
        Misbehave::Redirect => {
            let mut response = Response::new(full(""));
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            response
                .headers_mut()
                .insert(header::LOCATION, HeaderValue::from_static("http://elsewhere.invalid/api/isp/v1/"));
            response
        }
        Misbehave::UsageOff if path.contains("/radius/") => {
            json_reply(StatusCode::SERVICE_UNAVAILABLE, &json!({"detail": "TimescaleDB is not enabled"}))
        }
        Misbehave::UsageOff | Misbehave::Zeros | Misbehave::ZeroDashboard | Misbehave::ForeignRows => return None,
    }))
}

/// A list of one long text, without a length, so that a reader must count by itself.
fn huge(bytes: u64) -> Response<Body> {
    const PIECE: &[u8] = &[b'x'; 64 << 10];
    let frames = stream::unfold(0_u64, move |sent| async move {
        if sent >= bytes {
            return None;
        }
        let piece = if sent == 0 { Bytes::from_static(b"[\"") } else { Bytes::from_static(PIECE) };
        let sent = sent + piece.len() as u64;
        let piece = if sent >= bytes { Bytes::from_static(b"\"]") } else { piece };
        Some((Ok::<_, std::convert::Infallible>(Frame::data(piece)), sent))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
