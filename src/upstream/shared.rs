//! Keep-alive connections of the service runtime to the upstreams, shared by its threads.
//!
//! As [`super::pool`], for many threads and whole messages: the caller's own questions, not a client's streams. A request
//! is sent a second time only if not one byte of it was taken, or if it may be repeated and the connection, which had
//! been idle, broke off before any answer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{
    channel::{Sender, Shelf},
    dial::{dial, http2_builder},
    pool::SendError,
    settings::Origin,
    table::Upstream,
};

type Message = Request<Full<Bytes>>;

#[derive(Debug, Default)]
struct Shelves {
    /// By channel, then by address.
    channels: HashMap<u64, HashMap<Origin, Shelf<Full<Bytes>>, ahash::RandomState>, ahash::RandomState>,
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
    sender: Sender<Full<Bytes>>,
    pool: SharedPool,
    channel: u64,
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
        let mut shelves = self.pool.open();
        shelves.returned += 1;
        if shelves.returned >= SWEEP_EVERY {
            shelves.returned = 0;
            shelves.channels.retain(|_, channel| {
                channel.retain(|_, shelf| shelf.sweep(self.idle_timeout));
                !channel.is_empty()
            });
        }
        match self.sender {
            Sender::One(sender) if !sender.is_closed() => {
                let channel = shelves.channels.entry(self.channel).or_default();
                channel.entry(self.origin).or_default().put(sender, self.keep);
            }
            // An HTTP/2 connection never left its shelf.
            Sender::One(_) | Sender::Many(_) => {}
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
        upstream: &Upstream,
        request: Message,
        again: bool,
    ) -> Result<(Response<Incoming>, SharedLease), Unanswered> {
        let mut spare = again.then(|| request.clone());
        let mut request = request;
        loop {
            let channel = upstream.channel(origin);
            let (mut sender, reused) = match self.take(channel, origin, upstream) {
                Some(mut sender) => {
                    if !sender.ready().await {
                        continue;
                    }
                    (sender, true)
                }
                None => {
                    let connected = self.connect(channel, origin, upstream).await;
                    (connected.map_err(|error| Unanswered { error, maybe_received: false })?, false)
                }
            };
            match sender.try_send(origin, Box::new(request)).await {
                Ok(response) => {
                    let lease = SharedLease {
                        sender,
                        pool: self.clone(),
                        channel,
                        origin: origin.clone(),
                        // One address may serve a thousand tenants that are asked at once: connections closed after each
                        // round would be opened again in one burst by the next, more than a service's queue takes.
                        keep: upstream.settings.max_in_flight,
                        idle_timeout: upstream.settings.pool_idle_timeout,
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

    fn take(&self, channel: u64, origin: &Origin, upstream: &Upstream) -> Option<Sender<Full<Bytes>>> {
        let mut shelves = self.open();
        let shelf = shelves.channels.get_mut(&channel)?.get_mut(origin)?;
        shelf.take(upstream.settings.pool_idle_timeout, upstream.settings.http2_streams, false)
    }

    async fn connect(
        &self,
        channel: u64,
        origin: &Origin,
        upstream: &Upstream,
    ) -> Result<Sender<Full<Bytes>>, SendError> {
        let dialed = dial(origin, upstream, false).await?;
        let io = TokioIo::new(dialed.io);
        if !dialed.http2 {
            let (sender, connection) = http1::handshake(io).await.map_err(SendError::Exchange)?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "upstream connection ended");
                }
            });
            return Ok(Sender::One(sender));
        }
        let builder = http2_builder(TokioExecutor::new());
        let (sender, connection) = builder.handshake(io).await.map_err(SendError::Exchange)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        let mut shelves = self.open();
        let shelf = shelves.channels.entry(channel).or_default().entry(origin.clone()).or_default();
        Ok(shelf.share(sender, upstream.settings.max_in_flight))
    }
}
