//! One client connection: which protocol it speaks, its limits, its end.
//!
//! The first bytes must come within the header timeout: hyper's own timer begins only once it reads, and the choice
//! between HTTP/1 and HTTP/2 comes before.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use http::{HeaderValue, Request, Response};
use http_body::Body;
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::http1,
    server::conn::http2,
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::TcpStream,
};

use super::{
    decision::{self, Door},
    guard::{Guarded, HeadLimits},
    handshake::Gate,
    prefixed::Prefixed,
    proxy_protocol,
    timer::ReusedTimer,
};
use crate::{
    config::settings::ListenSettings,
    proxy::{
        certificate::ClientCertificate,
        flow,
        peer::{Asked, ConnectionSwitch, Peer},
        worker::{Duty, Worker},
    },
};

/// How HTTP/2 clients begin.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An HTTP/2 connection that answers no ping for this long is gone.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may stay silent once the gateway drains.
const FIRST_BYTES_IN_DRAIN: Duration = Duration::from_secs(1);

/// Streams reset by the client and not yet accepted, before the connection ends (rapid reset, CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 32;
/// Bytes beyond `max_header_bytes` up to which a header section is still read, so that the refusal is ours.
const HEADER_MARGIN: usize = 32 * 1024;
/// Streams that we had to reset for the client's errors, before the connection ends (CVE-2025-8671).
const MAX_ERROR_RESETS: usize = 128;

/// A connection as it comes to be served.
#[derive(Debug)]
pub struct Arrived {
    pub address: SocketAddr,
    /// Whether ALPN chose HTTP/2; `None`: cleartext, where the client's first bytes tell.
    pub http2: Option<bool>,
    pub certificate: Option<Rc<ClientCertificate>>,
}

/// Whose connection it is: the peer's, or whose a load balancer says that it is. `None`: it must not go on.
pub async fn introduced(
    worker: &Worker,
    mut io: TcpStream,
    peer: SocketAddr,
    switch: &ConnectionSwitch,
) -> Option<(TcpStream, SocketAddr)> {
    let settings = &worker.gateway.settings.listen;
    if settings.proxy_protocol_from.is_empty() {
        return Some((io, peer));
    }
    let ip = peer.ip().to_canonical();
    if !settings.proxy_protocol_from.iter().any(|net| net.contains(&ip)) {
        tracing::debug!(%peer, "a connection that is from no load balancer is closed");
        return None;
    }
    let read = tokio::select! {
        biased;
        read = tokio::time::timeout(settings.header_timeout, proxy_protocol::read(&mut io, peer)) => read,
        () = left_alone(switch) => return None,
    };
    match read {
        Ok(Ok(address)) => Some((io, address)),
        Ok(Err(error)) => {
            tracing::debug!(%error, %peer, "a connection without a good PROXY header is closed");
            None
        }
        Err(_) => None,
    }
}

/// As [`serve`], behind a handshake.
pub async fn serve_tls(duty: Rc<Duty>, io: TcpStream, gate: &Gate, address: SocketAddr, switch: Rc<ConnectionSwitch>) {
    let secured = tokio::select! {
        biased;
        secured = gate.pass(io) => secured,
        // Nothing was asked on it yet.
        () = left_alone(&switch) => return,
    };
    let worker = duty.worker();
    let handshakes = &worker.gateway.metrics.handshakes;
    let secured = match secured {
        Ok(secured) => secured,
        Err(refused) => {
            handshakes.with_label_values(&[refused.label()]).inc();
            let source = std::error::Error::source(&refused).map(ToString::to_string);
            tracing::debug!(%refused, source, peer = %address, "no TLS connection");
            return;
        }
    };
    let certificate = if secured.chain.is_empty() {
        None
    } else if let Some(read) =
        ClientCertificate::new(secured.chain, secured.judged, &worker.gateway.settings.listen.clients)
    {
        Some(Rc::new(read))
    } else {
        handshakes.with_label_values(&["client_certificate"]).inc();
        return;
    };
    handshakes.with_label_values(&["ok"]).inc();
    let arrived = Arrived { address, http2: Some(secured.http2), certificate };
    // A reload must not be held up by a connection that lasts.
    drop(worker);
    serve(duty, secured.stream, arrived, switch, Door::Public).await;
}

/// Serves one connection to its end, or to what its switch asks for.
pub async fn serve<T>(duty: Rc<Duty>, io: T, arrived: Arrived, switch: Rc<ConnectionSwitch>, door: Door)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Arrived { address, http2, certificate } = arrived;
    let settings = duty.worker().gateway.settings.listen.clone();
    let Ok(forwarded_for) = HeaderValue::try_from(address.ip().to_canonical().to_string()) else { return };
    let peer = Peer { ip: address.ip(), forwarded_for, switch: Rc::clone(&switch), certificate };
    let ended = match door {
        Door::Public => {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = flow::handle(duty.worker(), peer.clone(), request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            speak(io, http2, &settings, &switch, service).await
        }
        Door::Decisions => {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = decision::handle(duty.worker(), peer.clone(), request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            speak(io, http2, &decision::limits(&settings), &switch, service).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, peer = %address, "client connection ended");
    }
}

/// Finds out which protocol is spoken, and speaks it with this service.
async fn speak<T, S, B>(
    mut io: T,
    http2: Option<bool>,
    settings: &ListenSettings,
    switch: &Rc<ConnectionSwitch>,
    service: S,
) -> Result<(), hyper::Error>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: 'static,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let first = tokio::select! {
        biased;
        first = tokio::time::timeout(settings.header_timeout, first_bytes(&mut io)) => first,
        () = left_alone(switch) => return Ok(()),
    };
    let Ok(Ok(first)) = first else { return Ok(()) };
    // What was agreed upon is what is spoken.
    if http2.is_some_and(|agreed| agreed != (first == PREFACE)) {
        return Ok(());
    }
    if first == PREFACE {
        let connection = http2_builder(settings).serve_connection(TokioIo::new(Prefixed::new(first, io)), service);
        let mut connection = pin!(connection);
        until_ended(connection.as_mut(), |it| it.graceful_shutdown(), switch).await
    } else {
        let limits = HeadLimits { bytes: settings.max_header_bytes, count: settings.max_header_count };
        let connection =
            http1_builder(settings).serve_connection(Guarded::new(io, first, limits), service).with_upgrades();
        let mut connection = pin!(connection);
        until_ended(connection.as_mut(), |it| it.graceful_shutdown(), switch).await
    }
}

/// Drives the connection; on drain it finishes what is open, on a kill it goes at once.
async fn until_ended<C>(
    mut connection: Pin<&mut C>,
    drain: impl Fn(Pin<&mut C>),
    switch: &ConnectionSwitch,
) -> Result<(), hyper::Error>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let mut drained = false;
    poll_fn(|cx| {
        let asked = switch.asked(cx);
        if asked == Asked::End {
            return Poll::Ready(Ok(()));
        }
        // Before a drain: hyper closes a connection at once that it has read nothing from, even if a request is waiting.
        let polled = connection.as_mut().poll(cx);
        if polled.is_ready() || asked == Asked::Nothing || drained {
            return polled;
        }
        drained = true;
        drain(connection.as_mut());
        connection.as_mut().poll(cx)
    })
    .await
}

/// Ends when the connection is to end though nothing was asked on it yet.
async fn left_alone(switch: &ConnectionSwitch) {
    let told = |what: Asked| poll_fn(move |cx| if switch.asked(cx) >= what { Poll::Ready(()) } else { Poll::Pending });
    told(Asked::Drain).await;
    // Who was accepted a moment ago is about to ask: closing now would fail a request of a client that did nothing wrong.
    let _ = tokio::time::timeout(FIRST_BYTES_IN_DRAIN, told(Asked::End)).await;
}

/// Reads until the protocol is known.
async fn first_bytes<T: AsyncRead + Unpin>(io: &mut T) -> std::io::Result<Vec<u8>> {
    let mut first = Vec::new();
    let mut space = [0u8; PREFACE.len()];
    loop {
        let wanted = PREFACE.len() - first.len();
        let Some(room) = space.get_mut(..wanted) else { return Ok(first) };
        let count = io.read(room).await?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        first.extend_from_slice(room.get(..count).unwrap_or_default());
        if first.len() == PREFACE.len() || !PREFACE.starts_with(&first) {
            return Ok(first);
        }
    }
}

/// Fields that hyper takes in an HTTP/1 head if it is told nothing; read into room on the stack.
const HYPER_MAX_HEADERS: usize = 100;

fn http1_builder(settings: &ListenSettings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // Without a timer the header timeout does nothing at all.
        .timer(ReusedTimer::default())
        .header_read_timeout(settings.header_timeout)
        // The guard refuses first and with a body; this is the second fence.
        .max_buf_size((settings.max_header_bytes + 1024).max(64 * 1024));
    // The same of their number. Said aloud it costs each request two large allocations, so only where hyper's own bound is lower.
    if settings.max_header_count > HYPER_MAX_HEADERS {
        builder.max_headers(settings.max_header_count + 2);
    }
    builder
}

fn http2_builder(settings: &ListenSettings) -> http2::Builder<LocalExecutor> {
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_concurrent_streams)
        // Beyond the bound that a refusal of ours tells: h2 answers what is beyond its own with a bare 431.
        .max_header_list_size(u32::try_from(settings.max_header_bytes + HEADER_MARGIN).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// Streams of one connection run on the worker's own thread.
#[derive(Clone, Copy, Debug)]
struct LocalExecutor;

impl<F: Future + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
