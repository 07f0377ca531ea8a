//! Keep-alive connections of one worker to the upstreams. Single-threaded on purpose: no lock on the hot path.
//!
//! A connection goes back only after both messages on it are complete. A request is sent a second time only if the
//! caller allows it (idempotent) and the stale pooled connection took not one byte of it: hyper hands such a request back.

use std::{cell::RefCell, collections::HashMap, future::poll_fn, pin::Pin, rc::Rc};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, client::conn::http1, rt::Executor};
use hyper_util::rt::TokioIo;

use super::{
    channel::{Key, Readiness, Repeat, Sender, Shelf, is_unprocessed},
    dial::{dial, http2_builder},
    endpoint::Endpoint,
    error::{SendError, Unsent},
    table::Upstream,
};

/// How many streams a service allows on a connection now.
type Allowed = Box<dyn Fn() -> usize>;

type Shelves<B> = RefCell<HashMap<Key, Shelf<B, Allowed>, ahash::RandomState>>;

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
    key: Key,
    keep: usize,
}

impl<B> std::fmt::Debug for Lease<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("key", &self.key).finish_non_exhaustive()
    }
}

impl<B: 'static> Lease<B> {
    /// To be called only when request and response are complete.
    pub fn give_back(self) {
        match self.sender {
            Sender::One(sender) if !sender.is_closed() => {
                self.pool.0.borrow_mut().entry(self.key).or_default().put(sender, self.keep);
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
    #[expect(clippy::manual_async_fn, reason = "the arguments of an `async fn` take their room twice")]
    pub fn send<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        upstream: &'a Upstream,
        mut request: Box<Request<B>>,
        retry: bool,
        only_http1: bool,
    ) -> impl Future<Output = Result<(Response<Incoming>, Lease<B>), Unsent<B>>> + use<'a, B> {
        async move {
            let origin = endpoint.origin();
            let mut refused_before = false;
            loop {
                let key = (upstream.channel(origin), endpoint.id());
                let mut taken = self.take(key, upstream, only_http1);
                if let Some(sender) = &mut taken {
                    match sender.ready(upstream.settings.connect_timeout).await {
                        Readiness::Ready => {}
                        Readiness::Ended => continue,
                        Readiness::Late => taken = None,
                    }
                }
                let (mut sender, reused) = match taken {
                    Some(sender) => (sender, true),
                    // Boxed: room for it would be moved with every request that needs none.
                    None => match Box::pin(self.connect(key, endpoint, upstream, only_http1)).await {
                        Ok(sender) => (sender, false),
                        Err(error) => return Err(Unsent { error, request: Some(request) }),
                    },
                };
                // A refused stream takes the request with it: one that has no body can be made again.
                let spare = (sender.is_many() && retry && !refused_before).then(|| without_body(&request)).flatten();
                match sender.try_send(origin, request).await {
                    Ok(response) => {
                        let keep = upstream.settings.pool_idle;
                        return Ok((response, Lease { sender, pool: self.clone(), key, keep }));
                    }
                    Err(mut refused) => match (refused.take_message(), spare) {
                        (Some(unsent), _) if reused && retry => request = unsent.into(),
                        (None, Some(spare)) if is_unprocessed(refused.error()) => {
                            refused_before = true;
                            request = spare;
                        }
                        (unsent, _) => {
                            let request = unsent.filter(|_| retry).map(Box::new);
                            return Err(Unsent { error: SendError::Exchange(refused.into_error()), request });
                        }
                    },
                }
            }
        }
    }

    fn take(&self, key: Key, upstream: &Upstream, only_http1: bool) -> Option<Sender<B>> {
        let mut shelves = self.0.borrow_mut();
        let shelf = shelves.get_mut(&key)?;
        shelf.take(upstream.settings.pool_idle_timeout, upstream.settings.http2_streams, only_http1)
    }

    async fn connect(
        &self,
        key: Key,
        endpoint: &Endpoint,
        upstream: &Upstream,
        only_http1: bool,
    ) -> Result<Sender<B>, SendError> {
        let dialed = dial(endpoint, upstream, only_http1).await?;
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
        let connection = Rc::new(RefCell::new(connection));
        let seen = Rc::downgrade(&connection);
        tokio::task::spawn_local(async move {
            if let Err(error) = poll_fn(|cx| Pin::new(&mut *connection.borrow_mut()).poll(cx)).await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        // Weakly: what is on the shelf keeps no connection that has ended.
        let allowed = move || {
            let connection = seen.upgrade();
            connection.map_or(0, |connection| connection.try_borrow().map_or(0, |one| one.current_max_send_streams()))
        };
        let mut shelves = self.0.borrow_mut();
        let shelf = shelves.entry(key).or_default();
        Ok(shelf.share(sender, Box::new(allowed), upstream.settings.pool_idle))
    }

    /// Closes connections that idle too long; called now and then by the worker.
    pub fn sweep(&self, idle_timeout: std::time::Duration) {
        self.0.borrow_mut().retain(|_, shelf| shelf.sweep(idle_timeout));
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

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use http_body_util::Empty;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::upstream::{Asker, table::tests::settings};

    impl Repeat for Empty<Bytes> {
        fn repeat(&self) -> Option<Self> {
            Some(Self::new())
        }
    }

    /// A connection that waits on the shelf and is never ready is given up for a new one.
    #[tokio::test]
    async fn who_is_never_ready_is_not_waited_for() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut again = settings(&[&listener.local_addr().unwrap().to_string()], &[]);
        again.connect_timeout = Duration::from_millis(100);
        let upstream = Upstream::new(again).unwrap();
        let pool = Pool::<Empty<Bytes>>::default();
        let endpoint = Arc::clone(&upstream.cluster(None).unwrap().members()[0]);
        let key = (upstream.channel(endpoint.origin()), endpoint.id());
        let (client, _silent) = tokio::io::duplex(64);
        // Nobody drives it.
        let (stuck, _connection) = http1::handshake(TokioIo::new(client)).await.unwrap();
        assert!(!stuck.is_closed() && !stuck.is_ready());
        pool.0.borrow_mut().entry(key).or_default().put(stuck, 1);
        let service = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            stream
        };
        let mut attempts = upstream.destination(None).unwrap().attempts(Asker::default());
        let request = Box::new(Request::new(Empty::new()));
        let both = async { tokio::join!(attempts.send(&pool, request, true, false), service) };
        let local = tokio::task::LocalSet::new();
        let answered = local.run_until(tokio::time::timeout(Duration::from_secs(20), both));
        let (answer, _stream) = answered.await.expect("it was waited for");
        assert_eq!(answer.unwrap().0.status(), 200);
    }
}
