//! Keep-alive connections of one worker to the upstreams. Single-threaded on purpose: no lock on the hot path.
//!
//! A connection goes back only after both messages on it are complete. A request is sent a second time only if the
//! caller allows it (idempotent) and the stale pooled connection took not one byte of it: hyper hands such a request back.

use std::{cell::RefCell, collections::HashMap, io, rc::Rc, time::Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::settings::{Origin, UpstreamSettings};

/// Why no response came.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("connecting to `{authority}` failed")]
    Connect { authority: String, source: io::Error },
    #[error("connecting to `{0}` took too long")]
    ConnectTimeout(String),
    #[error("the upstream broke the connection or its answer was malformed")]
    Exchange(#[source] hyper::Error),
}

struct Idle<B> {
    sender: SendRequest<B>,
    since: Instant,
}

type Shelves<B> = RefCell<HashMap<Origin, Vec<Idle<B>>, ahash::RandomState>>;

/// The pool of one worker. Cloning gives another handle to the same pool.
pub struct Pool<B>(Rc<Shelves<B>>);

impl<B> Clone for Pool<B> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<B> Default for Pool<B> {
    fn default() -> Self {
        Self(Rc::default())
    }
}

impl<B> std::fmt::Debug for Pool<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

/// A connection in use; `give_back` returns it, a drop closes it.
pub struct Lease<B> {
    sender: SendRequest<B>,
    pool: Pool<B>,
    origin: Origin,
    keep: usize,
}

impl<B> std::fmt::Debug for Lease<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl<B> Lease<B> {
    /// To be called only when request and response are complete.
    pub fn give_back(self) {
        if self.sender.is_closed() {
            return;
        }
        let mut shelves = self.pool.0.borrow_mut();
        let idle = Idle { sender: self.sender, since: Instant::now() };
        match shelves.get_mut(&self.origin) {
            Some(shelf) if shelf.len() < self.keep => shelf.push(idle),
            Some(_) => {}
            None => {
                shelves.insert(self.origin, vec![idle]);
            }
        }
    }
}

impl<B> Pool<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Sends one request. `retry`: the request is idempotent, so it may be sent again if it was not sent at all.
    pub async fn send(
        &self,
        origin: &Origin,
        settings: &UpstreamSettings,
        mut request: Box<Request<B>>,
        retry: bool,
    ) -> Result<(Response<Incoming>, Lease<B>), SendError> {
        loop {
            let (mut sender, reused) = match self.take(origin, settings) {
                Some(mut sender) => {
                    // Right after the previous response's end the connection may need one more turn to be ready.
                    if !sender.is_ready() && sender.ready().await.is_err() {
                        continue;
                    }
                    (sender, true)
                }
                // Boxed: room for it would be moved with every request that needs none.
                None => (Box::pin(connect(origin, settings)).await?, false),
            };
            match sender.try_send_request(*request).await {
                Ok(response) => {
                    let lease = Lease { sender, pool: self.clone(), origin: origin.clone(), keep: settings.pool_idle };
                    return Ok((response, lease));
                }
                Err(mut refused) => match refused.take_message() {
                    Some(unsent) if reused && retry => *request = unsent,
                    _ => return Err(SendError::Exchange(refused.into_error())),
                },
            }
        }
    }

    /// The connection used last, so that the rest can grow old and go.
    fn take(&self, origin: &Origin, settings: &UpstreamSettings) -> Option<SendRequest<B>> {
        let mut shelves = self.0.borrow_mut();
        let shelf = shelves.get_mut(origin)?;
        while let Some(idle) = shelf.pop() {
            if idle.since.elapsed() >= settings.pool_idle_timeout {
                // All others are older still.
                shelf.clear();
                return None;
            }
            if !idle.sender.is_closed() {
                return Some(idle.sender);
            }
        }
        None
    }

    /// Closes connections that idle too long; called now and then by the worker.
    pub fn sweep(&self, idle_timeout: std::time::Duration) {
        let mut shelves = self.0.borrow_mut();
        shelves.retain(|_, shelf| {
            shelf.retain(|idle| idle.since.elapsed() < idle_timeout && !idle.sender.is_closed());
            !shelf.is_empty()
        });
    }
}

async fn connect<B>(origin: &Origin, settings: &UpstreamSettings) -> Result<SendRequest<B>, SendError>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let failed = |source| SendError::Connect { authority: origin.authority.clone(), source };
    if origin.https {
        return Err(failed(io::Error::other("TLS to upstreams is not supported by this version")));
    }
    let stream = tokio::time::timeout(settings.connect_timeout, TcpStream::connect(&origin.authority))
        .await
        .map_err(|_| SendError::ConnectTimeout(origin.authority.clone()))?
        .map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(SendError::Exchange)?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    Ok(sender)
}
