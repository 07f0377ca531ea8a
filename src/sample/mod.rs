//! Sample upstreams: small services that behave like the ones linkgate stands before, in both generations, faults
//! included.
//!
//! Used by `linkgate demo` and by the tests; left out of builds without the feature `demo`. They copy habits, not
//! features: money in minor units, tickets as a bare array, a redirect where the trailing slash is missing, internal
//! fields in every row, the tenant taken blindly from `X-Tenant-ID` (or from `?tenant_id=`, or from the token without
//! checking its signature). **Nothing here protects anything**: whatever reaches them is answered, so what a test sees
//! is what the gateway let through.
//!
//! Data is made from the tenant id alone, so the same tenant shows the same rows in every run of one day (dates are
//! relative to today); rows created by requests are kept in memory, bounded, until the process ends.

#![expect(clippy::result_large_err, reason = "a refusal is an answer too, and samples need no speed")]

mod control;
mod data;
mod invoices;
mod isp;
mod network;
mod platform;
mod reply;
mod tickets;
mod tools;
mod truth;
mod websocket;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    task::{AbortHandle, JoinSet},
};

use reply::{Body, Call};

pub use control::Misbehave;
pub use truth::Truth;

/// Most connections served at once; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 20_000;

/// Which service to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Billing, tickets, customers, subscribers, faults under `/api/isp/v1`.
    Isp,
    /// Tenants and log-in under `/api/platform/v1`.
    Platform,
    /// The newer generation: all of it in one service, under `/api/v1`.
    Gen2,
}

impl Kind {
    /// Where its own endpoints are mounted; the tools (`/echo` and so on) are at the root and here.
    pub fn base(self) -> &'static str {
        match self {
            Self::Isp => "/api/isp/v1",
            Self::Platform => "/api/platform/v1",
            Self::Gen2 => "/api/v1",
        }
    }
}

/// A running sample upstream; it stops, with all its connections, when this is dropped.
#[derive(Debug)]
pub struct Handle {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Handle {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://address`, as it stands in a configuration.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests that reached it so far: what a refused request must not raise.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// What the registry calls these tenants; others are called after their id.
    pub fn name_tenants(&self, named: impl IntoIterator<Item = (String, String)>) {
        self.shared.control.name_tenants(named);
    }

    /// From now on the service fails this tenant; `None`: no longer.
    pub fn misbehave(&self, tenant: &str, how: impl Into<Option<Misbehave>>) {
        self.shared.control.misbehave(tenant, how.into());
    }

    /// Every answer takes at least so long.
    pub fn set_latency(&self, latency: std::time::Duration) {
        self.shared.control.set_latency(latency);
    }

    /// Every tenant has so many invoices; `None`: as many as by default.
    pub fn set_invoices_per_tenant(&self, count: impl Into<Option<u64>>) {
        self.shared.control.set_invoices(count.into());
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What all connections of one service share.
#[derive(Debug)]
struct Shared {
    kind: Kind,
    requests: AtomicU64,
    tickets: tickets::Book,
    control: control::Control,
}

impl Shared {
    /// The invoices of a tenant.
    fn shelf<'t>(&self, tenant: &'t str) -> invoices::Shelf<'t> {
        invoices::Shelf {
            tenant,
            count: self.control.invoices().unwrap_or_else(|| invoices::count(tenant)),
            offset: if self.kind == Kind::Gen2 { "+00:00" } else { "" },
        }
    }

    fn payment_count(&self, tenant: &str) -> u64 {
        if self.control.of(tenant) == Some(Misbehave::Zeros) { 0 } else { invoices::count(tenant) }
    }

    /// Whose a row says it is.
    fn whose<'t>(&self, tenant: &'t str) -> &'t str {
        if self.control.of(tenant) == Some(Misbehave::ForeignRows) { "somebody-else" } else { tenant }
    }
}

/// Serves on the listener, on the current tokio runtime, until the handle is dropped.
pub fn start(kind: Kind, listener: TcpListener) -> std::io::Result<Handle> {
    let address = listener.local_addr()?;
    let shared = Arc::new(Shared {
        kind,
        requests: AtomicU64::new(0),
        tickets: tickets::Book::default(),
        control: control::Control::default(),
    });
    let task = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
    Ok(Handle { address, shared, task })
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Connections live in this set, so that aborting this task ends them too.
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: give connections time to end.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        // Without this, small writes of a stream wait for acknowledgements.
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| serve(Arc::clone(&shared), request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            // A client that goes away in the middle is no event here.
            let _ = connection.await;
        });
    }
}

async fn serve(shared: Arc<Shared>, request: Request<Incoming>) -> std::io::Result<Response<Body>> {
    shared.requests.fetch_add(1, Ordering::SeqCst);
    let call = Call::new(request, shared.kind.base());
    let correlation = call.correlation_id();
    let mut response = match tools::answer(call).await {
        Ok(response) => response,
        Err(call) => answer(&shared, call).await?,
    };
    if let Ok(value) = correlation.try_into() {
        response.headers_mut().insert("x-correlation-id", value);
    }
    Ok(response)
}

async fn answer(shared: &Shared, call: Call) -> std::io::Result<Response<Body>> {
    let latency = shared.control.latency();
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let how = call.tenant().and_then(|tenant| shared.control.of(&tenant));
    if let Some(how) = how
        && let Some(instead) = control::instead(how, call.path()).await
    {
        return instead;
    }
    let response = match shared.kind {
        Kind::Isp => isp::answer(shared, call).await,
        Kind::Platform => platform::answer(&shared.control, call).await,
        Kind::Gen2 => reply::enveloped(isp::answer(shared, call).await),
    };
    Ok(response)
}
