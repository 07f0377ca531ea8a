//! The sockets of the admin API: few connections, exact HTTP/1, no patience. TLS ends here, where it is configured.

use std::{
    convert::Infallible,
    net::IpAddr,
    pin::pin,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioTimer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinHandle,
};

use super::{AdminApi, call};
use crate::{
    server::{
        guard::{Guarded, HeadLimits},
        handshake::Gate,
    },
    tls::ServerTls,
};

/// Operators and their tools, not a public.
const MAX_CONNECTIONS: u32 = 64;
/// Longest wait for a complete request head, idle keep-alive included.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const LIMITS: HeadLimits = HeadLimits { bytes: 16 * 1024, count: 50 };

/// The listener at work.
#[derive(Debug)]
pub struct Listener {
    stop: watch::Sender<bool>,
    places: Arc<Semaphore>,
    accepting: JoinHandle<()>,
}

impl Listener {
    /// `tls`: `None` speaks in clear.
    pub fn start(api: Arc<AdminApi>, listener: TcpListener, tls: Option<Arc<ServerTls>>) -> Self {
        let (stop, told) = watch::channel(false);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
        let gate = tls.map(|tls| Arc::new(Gate::new(tls, Arc::new(AtomicUsize::new(0)))));
        let accepting = tokio::spawn(accept(api, listener, gate, Arc::clone(&places), told));
        Self { stop, places, accepting }
    }

    /// Accepts no more, and waits for calls under way at most so long.
    pub async fn stop(self, patience: Duration) {
        self.stop.send_replace(true);
        self.accepting.abort();
        if tokio::time::timeout(patience, self.places.acquire_many(MAX_CONNECTIONS)).await.is_err() {
            tracing::warn!("calls of the admin API were still under way when the drain deadline passed");
        }
    }
}

async fn accept(
    api: Arc<AdminApi>,
    listener: TcpListener,
    gate: Option<Arc<Gate>>,
    places: Arc<Semaphore>,
    told: watch::Receiver<bool>,
) {
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (api, gate, told) = (Arc::clone(&api), gate.clone(), told.clone());
                tokio::spawn(async move {
                    match gate {
                        Some(gate) => secured(api, &gate, stream, peer.ip(), told).await,
                        None => connection(api, stream, peer.ip(), told).await,
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection on the admin listener failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// As [`connection`], behind a handshake. A certificate that was asked for is one more condition; who calls, the token says.
async fn secured(api: Arc<AdminApi>, gate: &Gate, io: TcpStream, ip: IpAddr, mut told: watch::Receiver<bool>) {
    let passed = tokio::select! {
        passed = gate.pass(io) => passed,
        // Nothing was asked on it yet.
        () = async { drop(told.wait_for(|stop| *stop).await) } => return,
    };
    match passed {
        Ok(secured) => connection(api, secured.stream, ip, told).await,
        Err(refused) => {
            let source = std::error::Error::source(&refused).map(ToString::to_string);
            tracing::info!(%refused, source, peer = %ip, "no TLS connection to the admin listener");
        }
    }
}

/// Serves one connection to its end; told to stop, it finishes what is under way.
async fn connection<T>(api: Arc<AdminApi>, io: T, ip: IpAddr, mut told: watch::Receiver<bool>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = call::handle(Arc::clone(&api), ip, request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let serving = http1::Builder::new()
        // Without a timer the header timeout does nothing at all.
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        // The guard refuses first and with a body; this is the second fence.
        .max_headers(LIMITS.count + 2)
        .max_buf_size(64 * 1024)
        .serve_connection(Guarded::new(io, Vec::new(), LIMITS), service);
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = async { drop(told.wait_for(|stop| *stop).await) } => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "admin connection ended");
    }
}
