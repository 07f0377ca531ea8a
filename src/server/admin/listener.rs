//! The sockets of the admin API: few connections, exact HTTP/1, no patience. TLS ends here, where it is configured.

use std::{
    collections::HashMap,
    net::IpAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize},
    time::Duration,
};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioTimer;
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinHandle,
};

use super::{AdminApi, call};
use crate::{
    server::{
        descriptors::Unaccepted,
        guard::{Guarded, HeadLimits},
        handshake::Gate,
    },
    tls::{ServerTls, Untrusted},
};

/// Operators and their tools, not a public. Only finished handshakes take a place.
const MAX_CONNECTIONS: u32 = 64;
/// And of one address, handshakes included: nobody keeps all places for itself.
const MAX_OF_ONE_ADDRESS: usize = 16;
/// Longest wait for a place.
const PLACE_TIMEOUT: Duration = Duration::from_secs(5);
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
        let accepting = tokio::spawn(accept(Doorway { api, gate, places: Arc::clone(&places), told }, listener));
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

/// Open connections by address.
#[derive(Debug, Default)]
struct Guests(Mutex<HashMap<IpAddr, usize>>);

/// One of an address's connections; counted down when dropped.
struct Guest(Arc<Guests>, IpAddr);

impl Guests {
    /// `None`: the address has as many as it may.
    fn enter(self: &Arc<Self>, ip: IpAddr) -> Option<Guest> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(ip).or_default();
        if *count >= MAX_OF_ONE_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Guest(Arc::clone(self), ip))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.1);
            }
        }
    }
}

/// What each connection needs.
#[derive(Clone)]
struct Doorway {
    api: Arc<AdminApi>,
    gate: Option<Arc<Gate>>,
    places: Arc<Semaphore>,
    told: watch::Receiver<bool>,
}

async fn accept(doorway: Doorway, listener: TcpListener) {
    let (guests, unaccepted) = (Arc::new(Guests::default()), Unaccepted::at("admin"));
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let ip = peer.ip().to_canonical();
                let Some(guest) = guests.enter(ip) else {
                    tracing::info!(peer = %ip, "a connection to the admin listener is closed: its address has too many");
                    continue;
                };
                let doorway = doorway.clone();
                tokio::spawn(async move {
                    doorway.admit(stream, ip).await;
                    drop(guest);
                });
            }
            Err(error) => unaccepted.one_more(&error).await,
        }
    }
}

impl Doorway {
    async fn admit(mut self, io: TcpStream, ip: IpAddr) {
        let Some(gate) = self.gate.clone() else {
            return self.serve(io, ip, || true).await;
        };
        let passed = tokio::select! {
            passed = gate.pass(io) => passed,
            // Nothing was asked on it yet.
            () = async { drop(self.told.wait_for(|stop| *stop).await) } => return,
        };
        match passed {
            // A certificate that was asked for is one more condition, asked again with each call; who calls, the token says.
            Ok(secured) => {
                let chain: Vec<CertificateDer<'static>> = secured.chain;
                self.serve(secured.stream, ip, move || gate.still_trusts(&chain)).await;
            }
            Err(refused) => {
                let source = std::error::Error::source(&refused).map(ToString::to_string);
                tracing::info!(%refused, source, peer = %ip, "no TLS connection to the admin listener");
            }
        }
    }

    async fn serve<T>(self, io: T, ip: IpAddr, trusted: impl Fn() -> bool)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match tokio::time::timeout(PLACE_TIMEOUT, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(place)) => {
                connection(self.api, io, ip, trusted, self.told).await;
                drop(place);
            }
            Ok(Err(_)) => {}
            Err(_) => tracing::warn!(peer = %ip, "a connection to the admin listener is closed: there are too many"),
        }
    }
}

/// Serves one connection to its end; told to stop, it finishes what is under way.
async fn connection<T>(
    api: Arc<AdminApi>,
    io: T,
    ip: IpAddr,
    trusted: impl Fn() -> bool,
    mut told: watch::Receiver<bool>,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        // Ends the connection: whoever comes anew is told why by the handshake.
        let answer = trusted().then(|| call::handle(Arc::clone(&api), ip, request)).ok_or(Untrusted);
        async move { Ok::<_, Untrusted>(answer?.await) }
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
