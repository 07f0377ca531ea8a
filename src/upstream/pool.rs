//! Keep-alive connections of one worker to the upstreams. Single-threaded on purpose: no lock on the hot path.
//!
//! A connection goes back only after both messages on it are complete. A request is sent a second time only if the
//! caller allows it (idempotent) and the stale pooled connection took not one byte of it: hyper hands such a request back.

use std::{cell::RefCell, collections::HashMap, io, rc::Rc};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, client::conn::http1, rt::Executor};
use hyper_util::rt::TokioIo;

use super::{
    channel::{Repeat, Sender, Shelf, is_unprocessed},
    dial::{dial, http2_builder},
    settings::Origin,
    table::Upstream,
};

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

/// By channel, then by address: the address is looked up as it stands, without a copy.
type Shelves<B> = RefCell<HashMap<u64, HashMap<Origin, Shelf<B>, ahash::RandomState>, ahash::RandomState>>;

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
    sender: Sender<B>,
    pool: Pool<B>,
    channel: u64,
    origin: Origin,
    keep: usize,
}

impl<B> std::fmt::Debug for Lease<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl<B: 'static> Lease<B> {
    /// To be called only when request and response are complete.
    pub fn give_back(self) {
        match self.sender {
            Sender::One(sender) if !sender.is_closed() => {
                let mut shelves = self.pool.0.borrow_mut();
                let channel = shelves.entry(self.channel).or_default();
                match channel.get_mut(&self.origin) {
                    Some(shelf) => shelf.put(sender, self.keep),
                    None => channel.entry(self.origin).or_default().put(sender, self.keep),
                }
            }
            // An HTTP/2 connection never left its shelf.
            Sender::One(_) | Sender::Many(_) => {}
        }
    }
}

impl<B> Pool<B>
where
    B: Body<Data = Bytes> + Repeat + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Sends one request. `retry`: the request is idempotent, so it may be sent again if it was not sent at all, or if
    /// the service says that it did not look at it. `only_http1`: HTTP/2 cannot carry it.
    pub async fn send(
        &self,
        origin: &Origin,
        upstream: &Upstream,
        mut request: Box<Request<B>>,
        retry: bool,
        only_http1: bool,
    ) -> Result<(Response<Incoming>, Lease<B>), SendError> {
        let mut refused_before = false;
        loop {
            let channel = upstream.channel(origin);
            let (mut sender, reused) = match self.take(channel, origin, upstream, only_http1) {
                Some(mut sender) => {
                    if !sender.ready().await {
                        continue;
                    }
                    (sender, true)
                }
                // Boxed: room for it would be moved with every request that needs none.
                None => (Box::pin(self.connect(channel, origin, upstream, only_http1)).await?, false),
            };
            // A refused stream takes the request with it: one that has no body can be made again.
            let spare = (sender.is_many() && retry && !refused_before).then(|| without_body(&request)).flatten();
            match sender.try_send(origin, request).await {
                Ok(response) => {
                    let keep = upstream.settings.pool_idle;
                    let lease = Lease { sender, pool: self.clone(), channel, origin: origin.clone(), keep };
                    return Ok((response, lease));
                }
                Err(mut refused) => match (refused.take_message(), spare) {
                    (Some(unsent), _) if reused && retry => request = Box::new(unsent),
                    (None, Some(spare)) if is_unprocessed(refused.error()) => {
                        refused_before = true;
                        request = spare;
                    }
                    _ => return Err(SendError::Exchange(refused.into_error())),
                },
            }
        }
    }

    fn take(&self, channel: u64, origin: &Origin, upstream: &Upstream, only_http1: bool) -> Option<Sender<B>> {
        let mut shelves = self.0.borrow_mut();
        let shelf = shelves.get_mut(&channel)?.get_mut(origin)?;
        shelf.take(upstream.settings.pool_idle_timeout, upstream.settings.http2_streams, only_http1)
    }

    async fn connect(
        &self,
        channel: u64,
        origin: &Origin,
        upstream: &Upstream,
        only_http1: bool,
    ) -> Result<Sender<B>, SendError> {
        let dialed = dial(origin, upstream, only_http1).await?;
        let io = TokioIo::new(dialed.io);
        if !dialed.http2 {
            let (sender, connection) = http1::handshake(io).await.map_err(SendError::Exchange)?;
            tokio::task::spawn_local(async move {
                if let Err(error) = connection.with_upgrades().await {
                    tracing::debug!(%error, "upstream connection ended");
                }
            });
            return Ok(Sender::One(sender));
        }
        let (sender, connection) = http2_builder(Local).handshake(io).await.map_err(SendError::Exchange)?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        let mut shelves = self.0.borrow_mut();
        let shelf = shelves.entry(channel).or_default().entry(origin.clone()).or_default();
        Ok(shelf.share(sender, upstream.settings.pool_idle))
    }

    /// Closes connections that idle too long; called now and then by the worker.
    pub fn sweep(&self, idle_timeout: std::time::Duration) {
        self.0.borrow_mut().retain(|_, channel| {
            channel.retain(|_, shelf| shelf.sweep(idle_timeout));
            !channel.is_empty()
        });
    }
}

/// The same request once more, if its head is all there is to it.
fn without_body<B: Repeat>(request: &Request<B>) -> Option<Box<Request<B>>> {
    let mut again = Box::new(Request::new(request.body().repeat()?));
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

/// Streams run on the worker's own thread.
#[derive(Clone, Copy, Debug)]
struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
