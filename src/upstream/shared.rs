//! Keep-alive connections of the service runtime to the upstreams, shared by its threads.
//!
//! As [`super::pool`], for many threads and whole messages: the caller's own questions, not a client's streams. A request
//! is sent a second time only if not one byte of it was taken, or if it may be repeated and the connection, which had
//! been idle, broke off before any answer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    pool::SendError,
    settings::{Origin, UpstreamSettings},
};

type Message = Request<Full<Bytes>>;

#[derive(Debug)]
struct Idle {
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

#[derive(Debug, Default)]
struct Shelves {
    idle: HashMap<Origin, Vec<Idle>, ahash::RandomState>,
    /// Given back since shelves of tenants that nobody asks about any more were last cleared.
    returned: u32,
}

/// How often they are cleared, in connections given back.
const SWEEP_EVERY: u32 = 1_024;

/// A pool; cloning gives another handle to the same.
#[derive(Clone, Debug, Default)]
pub struct SharedPool(Arc<Mutex<Shelves>>);

/// A connection in use; `give_back` returns it, a drop closes it.
#[derive(Debug)]
pub struct SharedLease {
    sender: SendRequest<Full<Bytes>>,
    pool: SharedPool,
    origin: Origin,
    keep: usize,
    idle_timeout: std::time::Duration,
}

/// No response came.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Unanswered {
    #[source]
    pub error: SendError,
    /// Some of the request may have been received.
    pub maybe_received: bool,
}

impl SharedLease {
    /// To be called only when the response is complete.
    pub fn give_back(self) {
        if self.sender.is_closed() {
            return;
        }
        let mut shelves = self.pool.open();
        shelves.returned += 1;
        if shelves.returned >= SWEEP_EVERY {
            shelves.returned = 0;
            shelves.idle.retain(|_, shelf| {
                shelf.retain(|idle| idle.since.elapsed() < self.idle_timeout && !idle.sender.is_closed());
                !shelf.is_empty()
            });
        }
        let shelf = shelves.idle.entry(self.origin).or_default();
        if shelf.len() < self.keep {
            shelf.push(Idle { sender: self.sender, since: Instant::now() });
        }
    }
}

impl SharedPool {
    /// A panic elsewhere leaves shelves whole: each change is one push, pop or clear.
    fn open(&self) -> MutexGuard<'_, Shelves> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends one request. `again`: it changes nothing, so it may be sent once more if an idle connection broke off.
    pub async fn send(
        &self,
        origin: &Origin,
        settings: &UpstreamSettings,
        request: Message,
        again: bool,
    ) -> Result<(Response<Incoming>, SharedLease), Unanswered> {
        let mut spare = again.then(|| request.clone());
        let mut request = request;
        loop {
            let (mut sender, reused) = match self.take(origin, settings) {
                Some(mut sender) => {
                    // Right after the previous response's end the connection may need one more turn to be ready.
                    if !sender.is_ready() && sender.ready().await.is_err() {
                        continue;
                    }
                    (sender, true)
                }
                None => {
                    let connected = connect(origin, settings).await;
                    (connected.map_err(|error| Unanswered { error, maybe_received: false })?, false)
                }
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let lease = SharedLease {
                        sender,
                        pool: self.clone(),
                        origin: origin.clone(),
                        // One address may serve a thousand tenants that are asked at once: connections closed after each
                        // round would be opened again in one burst by the next, more than a service's queue takes.
                        keep: settings.max_in_flight,
                        idle_timeout: settings.pool_idle_timeout,
                    };
                    return Ok((response, lease));
                }
                Err(mut refused) => {
                    let unsent = refused.take_message();
                    let maybe_received = unsent.is_none();
                    match unsent.or_else(|| spare.take()).filter(|_| reused) {
                        Some(next) => request = next,
                        None => {
                            return Err(Unanswered {
                                error: SendError::Exchange(refused.into_error()),
                                maybe_received,
                            });
                        }
                    }
                }
            }
        }
    }

    /// The connection used last, so that the rest can grow old and go.
    fn take(&self, origin: &Origin, settings: &UpstreamSettings) -> Option<SendRequest<Full<Bytes>>> {
        let mut shelves = self.open();
        let shelf = shelves.idle.get_mut(origin)?;
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
}

async fn connect(origin: &Origin, settings: &UpstreamSettings) -> Result<SendRequest<Full<Bytes>>, SendError> {
    let failed = |source| SendError::Connect { authority: origin.authority.clone(), source };
    if origin.https {
        return Err(failed(std::io::Error::other("TLS to upstreams is not supported by this version")));
    }
    let stream = tokio::time::timeout(settings.connect_timeout, TcpStream::connect(&origin.authority))
        .await
        .map_err(|_| SendError::ConnectTimeout(origin.authority.clone()))?
        .map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(SendError::Exchange)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    Ok(sender)
}
