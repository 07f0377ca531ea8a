//! One connection to an upstream, whichever version of HTTP it speaks, and the shelf on which connections wait.
//!
//! HTTP/1.1 serves one exchange at a time and goes back to its shelf between two. HTTP/2 stays on the shelf and serves
//! many, each of which holds a place; what is beyond the bound, or beyond what the service allows, goes to another
//! connection.
//! Requests come in the form of HTTP/1.1 and are turned into that of HTTP/2 at the last moment: authority from the
//! configured address, no `Host`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::Either;
use http::{HeaderValue, Request, Response, Uri, Version, header, uri::Authority, uri::Scheme};
use http_body::Body;
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};

use super::settings::Origin;

/// Where connections wait: those of one channel to one endpoint may serve each other's requests.
pub(super) type Key = (u64, u64);

/// A body of which there may be a second one.
pub trait Repeat: Sized {
    /// The same body once more, if there is nothing to it.
    fn repeat(&self) -> Option<Self>;
}

impl Repeat for Incoming {
    /// What comes from a socket comes once.
    fn repeat(&self) -> Option<Self> {
        None
    }
}

/// Sends on one connection.
#[derive(Debug)]
pub(super) enum Sender<B> {
    One(http1::SendRequest<B>),
    /// Boxed: it is moved with every exchange, and HTTP/1.1 needs no room for it.
    Many(Box<Stream<B>>),
}

/// A place on a connection that others use too.
#[derive(Debug)]
pub(super) struct Stream<B> {
    sender: http2::SendRequest<B>,
    /// Held until the exchange is over.
    _place: Place,
}

/// One of the streams that a connection may have open; free again when dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Place {
    /// `None`: all are taken.
    fn take(open: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let place = Self(Arc::clone(open));
        (open.fetch_add(1, Ordering::Relaxed) < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<B> Sender<B>
where
    B: Body<Data = Bytes> + 'static,
{
    pub(super) fn is_many(&self) -> bool {
        matches!(self, Self::Many(_))
    }

    /// Right after an answer's end a connection may need one more turn to be ready; one that needs longer than a new one
    /// would, is given up.
    pub(super) async fn ready(&mut self, patience: Duration) -> Readiness {
        match self {
            Self::One(sender) if sender.is_ready() => Readiness::Ready,
            // Boxed: the rare way.
            Self::One(sender) => Box::pin(one_ready(sender, patience)).await,
            // It has no turns: what is under way on it is bounded by its places.
            Self::Many(stream) if stream.sender.is_ready() => Readiness::Ready,
            Self::Many(_) => Readiness::Ended,
        }
    }

    /// Gives the request back where not one byte of it was taken. No `async fn`: the request has left the future before it
    /// is first polled, and takes no room in it.
    pub(super) fn try_send(
        &mut self,
        origin: &Origin,
        mut request: Box<Request<B>>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<B>>>> + use<B> {
        match self {
            Self::One(sender) => {
                for_http1(&mut request, origin);
                Either::Left(sender.try_send_request(*request))
            }
            Self::Many(stream) => {
                for_http2(&mut request, origin);
                Either::Right(Box::pin(stream.sender.try_send_request(*request)))
            }
        }
    }
}

/// Whether a connection that waited may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    Ended,
    /// Not ready in time: a new one is better.
    Late,
}

async fn one_ready<B: Body + 'static>(sender: &mut http1::SendRequest<B>, patience: Duration) -> Readiness {
    match tokio::time::timeout(patience, sender.ready()).await {
        Ok(Ok(())) => Readiness::Ready,
        Ok(Err(_)) => Readiness::Ended,
        Err(_) => Readiness::Late,
    }
}

/// As HTTP/1.1 has it, where an attempt by HTTP/2 had changed it.
fn for_http1<B>(request: &mut Request<B>, origin: &Origin) {
    if request.version() != Version::HTTP_2 {
        return;
    }
    *request.version_mut() = Version::HTTP_11;
    if let Some(target) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = Uri::from(target);
    }
    if let Ok(host) = HeaderValue::from_str(&origin.authority) {
        request.headers_mut().insert(header::HOST, host);
    }
}

/// The path stays byte for byte what it is. An address that fits no URI leaves the request as it was, and hyper refuses it.
fn for_http2<B>(request: &mut Request<B>, origin: &Origin) {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if origin.https { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = origin.authority.parse::<Authority>().ok();
    parts.path_and_query = request.uri().path_and_query().cloned();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
        request.headers_mut().remove(header::HOST);
        *request.version_mut() = Version::HTTP_2;
    }
}

/// Whether the service says that it has not looked at the request at all: a refused stream, or one behind the last that it
/// took before it said goodbye (RFC 9113, section 8.7).
pub(super) fn is_unprocessed(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(h2) = inner.downcast_ref::<h2::Error>() {
            let goodbye = h2.is_go_away() && h2.is_remote() && h2.reason() == Some(h2::Reason::NO_ERROR);
            return goodbye || (h2.is_reset() && h2.is_remote() && h2.reason() == Some(h2::Reason::REFUSED_STREAM));
        }
        source = inner.source();
    }
    false
}

#[derive(Debug)]
struct Idle<B> {
    sender: http1::SendRequest<B>,
    since: Instant,
}

struct Shared<B, L> {
    sender: http2::SendRequest<B>,
    open: Arc<AtomicUsize>,
    /// How many streams the service allows now.
    allowed: L,
    since: Instant,
}

/// The connections to one address.
pub(super) struct Shelf<B, L> {
    idle: Vec<Idle<B>>,
    shared: Vec<Shared<B, L>>,
}

impl<B, L> Default for Shelf<B, L> {
    fn default() -> Self {
        Self { idle: Vec::new(), shared: Vec::new() }
    }
}

impl<B, L> std::fmt::Debug for Shelf<B, L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").field("idle", &self.idle.len()).field("shared", &self.shared.len()).finish()
    }
}

impl<B: 'static, L: Fn() -> usize> Shelf<B, L> {
    /// The fullest connection that has a place, else the one used last, so that the rest can grow old and go.
    pub(super) fn take(&mut self, idle_timeout: Duration, streams: usize, only_http1: bool) -> Option<Sender<B>> {
        if !only_http1 && let Some(sender) = self.take_shared(streams) {
            return Some(sender);
        }
        while let Some(idle) = self.idle.pop() {
            if idle.since.elapsed() >= idle_timeout {
                // All others are older still.
                self.idle.clear();
                return None;
            }
            if !idle.sender.is_closed() {
                return Some(Sender::One(idle.sender));
            }
        }
        None
    }

    fn take_shared(&mut self, streams: usize) -> Option<Sender<B>> {
        self.shared.retain(|shared| !shared.sender.is_closed());
        for shared in &mut self.shared {
            // Beyond what the service allows a stream would wait inside the connection, unseen, for another one to end.
            if let Some(place) = Place::take(&shared.open, streams.min((shared.allowed)())) {
                shared.since = Instant::now();
                return Some(Sender::Many(Box::new(Stream { sender: shared.sender.clone(), _place: place })));
            }
        }
        None
    }

    pub(super) fn put(&mut self, sender: http1::SendRequest<B>, keep: usize) {
        if self.idle.len() < keep {
            self.idle.push(Idle { sender, since: Instant::now() });
        }
    }

    /// Puts a new connection up for all, and takes the first place on it.
    pub(super) fn share(&mut self, sender: http2::SendRequest<B>, allowed: L, keep: usize) -> Sender<B> {
        let open = Arc::new(AtomicUsize::new(1));
        let place = Place(Arc::clone(&open));
        if self.shared.len() < keep {
            self.shared.push(Shared { sender: sender.clone(), open, allowed, since: Instant::now() });
        }
        Sender::Many(Box::new(Stream { sender, _place: place }))
    }

    /// Whether anything is left.
    pub(super) fn sweep(&mut self, idle_timeout: Duration) -> bool {
        self.idle.retain(|idle| idle.since.elapsed() < idle_timeout && !idle.sender.is_closed());
        self.shared.retain(|shared| {
            let used = shared.open.load(Ordering::Relaxed) > 0 || shared.since.elapsed() < idle_timeout;
            used && !shared.sender.is_closed()
        });
        !(self.idle.is_empty() && self.shared.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_turned_and_turned_back_with_its_path_as_it_was() {
        let origin = Origin { https: true, authority: "isp.example:8443".into() };
        let mut request =
            Request::builder().uri("/a/%C3%BC?x=%20").header("host", "isp.example:8443").body(()).unwrap();
        for_http2(&mut request, &origin);
        assert_eq!(request.uri(), "https://isp.example:8443/a/%C3%BC?x=%20");
        assert_eq!((request.version(), request.headers().len()), (Version::HTTP_2, 0));
        for_http1(&mut request, &origin);
        assert_eq!(request.uri(), "/a/%C3%BC?x=%20");
        assert_eq!(request.headers()["host"], "isp.example:8443");
    }

    #[test]
    fn places_are_bounded_and_come_back() {
        let open = Arc::new(AtomicUsize::new(0));
        let first = Place::take(&open, 2).unwrap();
        let _second = Place::take(&open, 2).unwrap();
        assert!(Place::take(&open, 2).is_none());
        drop(first);
        assert!(Place::take(&open, 2).is_some());
    }
}
