//! Opens connections: TCP, TLS where the address says so, and the choice of the version of HTTP.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::client::conn::http2;
use hyper_util::rt::TokioTimer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{endpoint::Endpoint, error::SendError, settings::Http2, table::Upstream, turns::InTurns};
use crate::tls::H2;

/// A service that answers no ping for this long is gone.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What may come of one answer, and of all on one connection, before it is taken on. In bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Longest head of an answer, in bytes; as much as HTTP/1 is read with.
const MAX_HEAD: u32 = 64 * 1024;

/// An open connection on which nothing was sent yet.
pub(super) struct Dialed {
    pub(super) io: InTurns<Socket>,
    pub(super) http2: bool,
}

/// With or without TLS.
pub(super) enum Socket {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

/// Connects. `only_http1`: for what HTTP/2 cannot carry, such as a WebSocket.
pub(super) async fn dial(endpoint: &Endpoint, upstream: &Upstream, only_http1: bool) -> Result<Dialed, SendError> {
    let authority = || endpoint.origin().authority.clone();
    tokio::time::timeout(upstream.settings.connect_timeout, connect(endpoint, upstream, only_http1))
        .await
        .map_err(|_| SendError::ConnectTimeout(authority()))?
        .map_err(|source| SendError::Connect { authority: authority(), source })
}

async fn connect(endpoint: &Endpoint, upstream: &Upstream, only_http1: bool) -> io::Result<Dialed> {
    let origin = endpoint.origin();
    let stream = TcpStream::connect(endpoint.address()).await?;
    stream.set_nodelay(true)?;
    if !origin.https {
        let http2 = !only_http1 && upstream.settings.http2 == Http2::Always;
        return Ok(Dialed { io: InTurns::new(Socket::Plain(stream)), http2 });
    }
    let tls = upstream.tls.as_ref().ok_or_else(|| io::Error::other("its certificates were not loaded"))?;
    let name = tls
        .server_name(&origin.authority)
        .ok_or_else(|| io::Error::other("its host is no name that a certificate can have: set `server_name`"))?;
    let loaded = tls.current();
    let offers = if only_http1 || upstream.settings.http2 == Http2::Off { &loaded.http1 } else { &loaded.any };
    let secure = TlsConnector::from(Arc::clone(offers)).connect(name, stream).await?;
    let http2 = secure.get_ref().1.alpn_protocol() == Some(H2);
    if !http2 && !only_http1 && upstream.settings.http2 == Http2::Always {
        return Err(io::Error::other("it does not speak HTTP/2, and `http2` is `always`"));
    }
    Ok(Dialed { io: InTurns::new(Socket::Secure(Box::new(secure))), http2 })
}

/// With the bounds of this side.
pub(super) fn http2_builder<E: Clone>(executor: E) -> http2::Builder<E> {
    let mut builder = http2::Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Secure(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            Self::Secure(io) => Pin::new(io).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Secure(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Secure(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Secure(io) => io.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, slices),
            Self::Secure(io) => Pin::new(io).poll_write_vectored(cx, slices),
        }
    }
}
