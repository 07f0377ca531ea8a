//! The way to a receiver: an address that was judged, or none.
//!
//! The connector resolves the name itself, refuses it if any of its addresses may not be reached, and connects to an
//! address of that very answer: a name that resolves to something else a moment later changes nothing.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use super::{address, endpoint::Endpoint};

/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 4;
/// Longest wait for one of them.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Asks for the addresses of a name.
pub(super) type Resolve = Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// Connects to judged addresses only.
#[derive(Clone)]
pub(super) struct CheckedConnector {
    pub(super) resolve: Resolve,
    pub(super) allow_private: bool,
}

impl CheckedConnector {
    async fn connect(self, uri: Uri) -> io::Result<TokioIo<TcpStream>> {
        let host = Endpoint::host(&uri).ok_or_else(|| io::Error::other("the URL names no host"))?;
        let found = (self.resolve)(host.to_owned(), Endpoint::port(&uri)).await;
        let found = found.map_err(|error| io::Error::other(format!("`{host}` cannot be resolved: {error}")))?;
        // One bad address spoils the name: a receiver has no business in two networks.
        for address in &found {
            address::judge(address.ip(), self.allow_private).map_err(|forbidden| {
                io::Error::other(format!(
                    "`{host}` resolves to {}, and nothing is sent there: {forbidden}",
                    address.ip()
                ))
            })?;
        }
        let mut failed = io::Error::other(format!("`{host}` has no address"));
        for address in found.iter().take(MOST_ADDRESSES) {
            match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok(TokioIo::new(stream));
                }
                Ok(Err(error)) => failed = error,
                Err(_) => failed = io::Error::new(io::ErrorKind::TimedOut, "connecting took too long"),
            }
        }
        Err(failed)
    }
}

impl Service<Uri> for CheckedConnector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}
