//! The sockets of the admin API: few connections, exact HTTP/1, no patience.
//!
//! TLS will wrap the stream that [`connection`] is given; nothing else here knows what it is.

use std::{convert::Infallible, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioTimer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
};

use super::{AdminApi, call};
use crate::server::guard::{Guarded, HeadLimits};

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
    pub fn start(api: Arc<AdminApi>, listener: TcpListener) -> Self {
        let (stop, told) = watch::channel(false);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
        let accepting = tokio::spawn(accept(api, listener, Arc::clone(&places), told));
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

async fn accept(api: Arc<AdminApi>, listener: TcpListener, places: Arc<Semaphore>, told: watch::Receiver<bool>) {
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (api, told) = (Arc::clone(&api), told.clone());
                tokio::spawn(async move {
                    connection(api, stream, peer.ip(), told).await;
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
