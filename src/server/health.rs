//! The health listener: liveness, readiness, metrics, build. No secret and no tenant is shown here.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Encoder, Registry, TextEncoder};
use serde::Serialize;
use tokio::{net::TcpListener, sync::Semaphore};

use super::{descriptors::Unaccepted, docs::Docs};

/// Scrapers and probes at once; above it connections wait.
const MAX_CONNECTIONS: usize = 64;
const HEADER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// For whoever asks for anything else.
const PATHS: &str = "try /healthz, /readyz, /metrics, /version or /audit/checkpoint\n";
const PATHS_WITH_DOCS: &str = "try /healthz, /readyz, /metrics, /version, /audit/checkpoint, /docs or /openapi.json\n";

/// One thing without which no request can be served.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub ok: bool,
    /// What is wrong and what to do; empty when all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Answers whether the gateway can serve, at this moment.
pub type Readiness = Arc<dyn Fn() -> Vec<Check> + Send + Sync>;

/// Called before metrics are written, to set gauges that are only looked at.
pub type Refresh = Arc<dyn Fn() + Send + Sync>;

/// What only a restart mends, for whoever restarts.
pub type Lost = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// The last checkpoint's note; `None` before the first one, or without a key.
pub type Checkpoint = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// What the health listener shows.
#[derive(Clone)]
pub struct Health {
    pub readiness: Readiness,
    /// Why only a restart helps.
    pub lost: Lost,
    pub refresh: Refresh,
    pub registry: Registry,
    /// The last signed checkpoint of the audit chain: for whoever collects them elsewhere. It tells how many records
    /// there are, as the metrics do, and nothing of them.
    pub checkpoint: Checkpoint,
    /// `None`: not shown.
    pub docs: Option<Docs>,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}

/// Serves until dropped.
pub async fn serve(listener: TcpListener, health: Health) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let unaccepted = Unaccepted::at("health");
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                unaccepted.one_more(&error).await;
                continue;
            }
        };
        let health = health.clone();
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let answer = answer(&health, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "health connection ended");
            }
            drop(place);
        });
    }
}

fn answer(health: &Health, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    }
    match request.uri().path() {
        "/healthz" => match (health.lost)() {
            None => text(StatusCode::OK, "ok\n"),
            Some(why) => body(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", format!("{why}\n").into()),
        },
        "/readyz" => ready(health),
        "/metrics" => metrics(health),
        "/audit/checkpoint" => match (health.checkpoint)() {
            Some(note) => body(StatusCode::OK, "text/plain; charset=utf-8", note.into()),
            None => text(StatusCode::NOT_FOUND, "there is no signed checkpoint of the audit chain yet\n"),
        },
        "/version" => json(StatusCode::OK, &Build::this()),
        other => match &health.docs {
            Some(docs) => docs.page(other).unwrap_or_else(|| text(StatusCode::NOT_FOUND, PATHS_WITH_DOCS)),
            None => text(StatusCode::NOT_FOUND, PATHS),
        },
    }
}

fn ready(health: &Health) -> Response<Full<Bytes>> {
    let checks = (health.readiness)();
    let ok = checks.iter().all(|check| check.ok);
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &serde_json::json!({"ready": ok, "checks": checks}))
}

fn metrics(health: &Health) -> Response<Full<Bytes>> {
    (health.refresh)();
    let mut out = Vec::new();
    let encoder = TextEncoder::new();
    match encoder.encode(&health.registry.gather(), &mut out) {
        Ok(()) => body(StatusCode::OK, encoder.format_type(), out.into()),
        Err(error) => {
            tracing::error!(%error, "metrics could not be written");
            text(StatusCode::INTERNAL_SERVER_ERROR, "metrics could not be written\n")
        }
    }
}

/// Which build this is.
#[derive(Debug, Serialize)]
pub struct Build {
    pub name: &'static str,
    pub version: &'static str,
    pub features: Vec<&'static str>,
}

impl Build {
    pub fn this() -> Self {
        let mut features = Vec::new();
        if cfg!(feature = "demo") {
            features.push("demo");
        }
        if cfg!(feature = "mimalloc") {
            features.push("mimalloc");
        }
        if cfg!(feature = "prove") {
            features.push("prove");
        }
        Self { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION"), features }
    }
}

fn text(status: StatusCode, content: &'static str) -> Response<Full<Bytes>> {
    body(status, "text/plain; charset=utf-8", Bytes::from_static(content.as_bytes()))
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(content) => body(status, "application/json", content.into()),
        Err(error) => {
            tracing::error!(%error, "an answer of the health listener could not be written");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be written\n")
        }
    }
}

fn body(status: StatusCode, kind: &str, content: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(content));
    *response.status_mut() = status;
    if let Ok(kind) = HeaderValue::from_str(kind) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_no_good_answer() {
        let unwritable = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert_eq!(json(StatusCode::OK, &unwritable).status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(json(StatusCode::OK, &Build::this()).status(), StatusCode::OK);
    }

    #[test]
    fn the_build_names_every_feature_it_has() {
        let features = Build::this().features;
        for (name, built) in [
            ("demo", cfg!(feature = "demo")),
            ("mimalloc", cfg!(feature = "mimalloc")),
            ("prove", cfg!(feature = "prove")),
        ] {
            assert_eq!(features.contains(&name), built, "{name}");
        }
    }
}
