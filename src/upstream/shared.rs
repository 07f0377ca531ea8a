//! Keep-alive connections of the service runtime to the upstreams, shared by its threads.
//!
//! As [`super::pool`], for many threads and whole messages: the caller's own questions, not a client's streams. A request
//! is sent a second time only if not one byte of it was taken, or if it may be repeated and the connection, which had
//! been idle, broke off before any answer.

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{
    channel::{Key, Readiness, Sender, Shelf},
    dial::{dial, http2_builder},
    endpoint::Endpoint,
    error::SendError,
    table::Upstream,
};

type Message = Request<Full<Bytes>>;

/// Whether a request may still go: asked once it has a connection, right before it leaves on it. Looking a name up and
/// connecting take seconds.
pub type MayLeave<'a> = &'a (dyn Fn() -> BoxFuture<'a, bool> + Sync);

/// How many streams a service allows on a connection now.
type Allowed = Box<dyn Fn() -> usize + Send>;

#[derive(Debug, Default)]
struct Shelves {
    by_key: HashMap<Key, Shelf<Full<Bytes>, Allowed>, ahash::RandomState>,
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
    key: Key,
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
    /// The request, where it did not leave the gateway and may be sent elsewhere.
    pub(super) request: Option<Box<Message>>,
}

impl Unanswered {
    pub(super) fn unsent(error: SendError) -> Self {
        Self { error, maybe_received: false, request: None }
    }
}

impl SharedLease {
    /// To be called only when the response is complete.
    pub fn give_back(self) {
        let mut shelves = self.pool.open();
        shelves.returned += 1;
        if shelves.returned >= SWEEP_EVERY {
            shelves.returned = 0;
            shelves.by_key.retain(|_, shelf| shelf.sweep(self.idle_timeout));
        }
        match self.sender {
            Sender::One(sender) if !sender.is_closed() => {
                shelves.by_key.entry(self.key).or_default().put(sender, self.keep);
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
        endpoint: &Endpoint,
        upstream: &Upstream,
        request: Message,
        again: bool,
        may_leave: MayLeave<'_>,
    ) -> Result<(Response<Incoming>, SharedLease), Unanswered> {
        let origin = endpoint.origin();
        let mut spare = again.then(|| request.clone());
        let mut request = request;
        loop {
            let key = (upstream.channel(origin), endpoint.id());
            let mut taken = self.take(key, upstream);
            if let Some(sender) = &mut taken {
                match sender.ready(upstream.settings.connect_timeout).await {
                    Readiness::Ready => {}
                    Readiness::Ended => continue,
                    Readiness::Late => taken = None,
                }
            }
            let (mut sender, reused) = match taken {
                Some(sender) => (sender, true),
                None => match self.connect(key, endpoint, upstream).await {
                    Ok(sender) => (sender, false),
                    Err(error) => {
                        let request = Some(Box::new(request));
                        return Err(Unanswered { error, maybe_received: false, request });
                    }
                },
            };
            if !may_leave().await {
                return Err(Unanswered::unsent(SendError::Withheld));
            }
            match sender.try_send(origin, Box::new(request)).await {
                Ok(response) => {
                    let lease = SharedLease {
                        sender,
                        pool: self.clone(),
                        key,
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
                    if !reused {
                        let error = SendError::Exchange(refused.into_error());
                        let request = unsent.filter(|_| again).map(Box::new);
                        return Err(Unanswered { error, maybe_received, request });
                    }
                    match unsent.or_else(|| spare.take()) {
                        Some(next) => request = next,
                        None => {
                            let error = SendError::Exchange(refused.into_error());
                            return Err(Unanswered { error, maybe_received, request: None });
                        }
                    }
                }
            }
        }
    }

    fn take(&self, key: Key, upstream: &Upstream) -> Option<Sender<Full<Bytes>>> {
        let mut shelves = self.open();
        let shelf = shelves.by_key.get_mut(&key)?;
        shelf.take(upstream.settings.pool_idle_timeout, upstream.settings.http2_streams, false)
    }

    async fn connect(
        &self,
        key: Key,
        endpoint: &Endpoint,
        upstream: &Upstream,
    ) -> Result<Sender<Full<Bytes>>, SendError> {
        let dialed = dial(endpoint, upstream, false).await?;
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
        let connection = Arc::new(Mutex::new(connection));
        let seen = Arc::downgrade(&connection);
        tokio::spawn(async move {
            // A panic inside a poll has ended its task, and nobody polls it again.
            let polled = poll_fn(|cx| {
                let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
                Pin::new(&mut *connection).poll(cx)
            });
            if let Err(error) = polled.await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        // Weakly: what is on the shelf keeps no connection that has ended.
        let allowed = move || {
            let connection = seen.upgrade();
            connection.map_or(0, |connection| connection.lock().map_or(0, |one| one.current_max_send_streams()))
        };
        let mut shelves = self.open();
        let shelf = shelves.by_key.entry(key).or_default();
        Ok(shelf.share(sender, Box::new(allowed), upstream.settings.max_in_flight))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpStream},
        sync::Mutex as AsyncMutex,
    };

    use super::*;
    use crate::upstream::{asker::Asker, table::tests::settings};

    /// A service that is asked nothing hears nothing, though there was a connection; and that is no fault of its own.
    #[tokio::test]
    async fn what_may_not_leave_any_more_is_withheld_on_an_open_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let upstream = Upstream::new(settings(&[&authority, &authority], &[])).unwrap();
        let accepted: AsyncMutex<Option<TcpStream>> = AsyncMutex::new(None);
        let may_leave = || {
            async {
                // It is asked behind the connect, which may have taken its time.
                *accepted.lock().await = Some(listener.accept().await.unwrap().0);
                false
            }
            .boxed()
        };
        let to = upstream.destination(None).unwrap();
        let mut attempts = to.attempts(Asker::default());
        let request = Request::post("/change").body(Full::new(Bytes::from_static(b"{}"))).unwrap();
        let pool = SharedPool::default();
        let Err(withheld) = attempts.send_shared(&pool, request, false, &may_leave).await else {
            panic!("it was sent")
        };
        assert!(matches!(withheld.error, SendError::Withheld) && !withheld.maybe_received);
        let mut heard = Vec::new();
        let mut service = accepted.lock().await.take().unwrap();
        service.read_to_end(&mut heard).await.unwrap();
        assert!(heard.is_empty(), "{heard:?}");
    }
}
