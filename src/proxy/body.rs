//! Bodies on their way through: counted, bounded, cut where their link ends, never buffered.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

pub use super::owned_body::OwnedBody;
use super::{
    cut::CutReason,
    headers::{StripList, clean_trailers},
    unread::ClientBody,
};
use crate::{domain::words::CLIENT_LEFT, upstream::Repeat};

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("the request body is larger than the route allows")]
    TooLarge,
    #[error("the client sent nothing for too long")]
    Idle,
    #[error("the client broke off")]
    Client,
    #[error("the upstream broke off")]
    Upstream,
    #[error("the route's total time is over")]
    Deadline,
    #[error("the gateway could not finish its answer")]
    Own,
    #[error("the link behind this stream ended: {0}")]
    Cut(CutReason),
}

/// A stream's switch: set once by the watcher, seen by every part of the stream.
#[derive(Debug, Default)]
pub struct Cut {
    why: Cell<Option<CutReason>>,
    wakers: RefCell<Vec<Waker>>,
}

impl Cut {
    /// Ends the stream with this reason.
    pub fn cut(&self, why: CutReason) {
        if self.why.get().is_none() {
            self.why.set(Some(why));
        }
        for waker in self.wakers.take() {
            waker.wake();
        }
    }

    pub fn reason(&self) -> Option<CutReason> {
        self.why.get()
    }

    /// Ready once cut. Registers the task otherwise.
    pub fn poll_cut(&self, cx: &Context<'_>) -> Poll<CutReason> {
        if let Some(why) = self.why.get() {
            return Poll::Ready(why);
        }
        let mut wakers = self.wakers.borrow_mut();
        if !wakers.iter().any(|known| known.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// What the response side may ask about the request body.
#[derive(Debug, Default)]
pub struct Progress {
    pub ended: Cell<bool>,
    /// Bytes taken from the client so far.
    pub bytes: Cell<u64>,
    pub broken: Cell<Option<Broken>>,
}

/// The two switches of one exchange.
#[derive(Debug)]
pub struct Exchange {
    pub cut: Rc<Cut>,
    pub progress: Rc<Progress>,
}

/// The body sent upstream.
#[derive(Debug)]
pub enum RequestBody {
    Empty,
    /// Read beforehand (`refuse_body_fields`).
    Full(Option<Bytes>),
    Stream(Box<ClientStream>),
}

/// The client's body as it comes.
#[derive(Debug)]
pub struct ClientStream {
    pub inner: ClientBody,
    /// Bytes still allowed.
    pub left: u64,
    pub idle: Duration,
    pub timer: Option<Pin<Box<Sleep>>>,
    pub strip: Arc<StripList>,
    pub progress: Rc<Progress>,
    pub cut: Rc<Cut>,
}

impl ClientStream {
    fn fail(&self, why: Broken) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.progress.broken.set(Some(why));
        Poll::Ready(Some(Err(why)))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Poll::Ready(why) = self.cut.poll_cut(cx) {
            return self.fail(Broken::Cut(why));
        }
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                self.timer = None;
                if let Some(data) = frame.data_ref() {
                    match self.left.checked_sub(data.len() as u64) {
                        Some(left) => {
                            self.left = left;
                            self.progress.bytes.set(self.progress.bytes.get() + data.len() as u64);
                        }
                        None => return self.fail(Broken::TooLarge),
                    }
                } else if let Some(trailers) = frame.trailers_mut() {
                    // A protected header is no less protected behind the body (I2).
                    clean_trailers(&self.strip, trailers);
                }
                if self.inner.is_end_stream() {
                    self.progress.ended.set(true);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => self.fail(Broken::Client),
            Poll::Ready(None) => {
                self.progress.ended.set(true);
                Poll::Ready(None)
            }
            Poll::Pending => {
                let idle = self.idle;
                let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
                if timer.as_mut().poll(cx).is_ready() { self.fail(Broken::Idle) } else { Poll::Pending }
            }
        }
    }
}

impl Repeat for RequestBody {
    fn repeat(&self) -> Option<Self> {
        matches!(self, Self::Empty).then_some(Self::Empty)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => stream.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Full(None) => true,
            Self::Full(Some(_)) => false,
            Self::Stream(stream) => stream.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Full(None) => SizeHint::with_exact(0),
            Self::Full(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(stream) => stream.inner.size_hint(),
        }
    }
}

/// The route's total time is over.
pub const TOTAL_TIMEOUT: &str = "total_timeout";

/// How a response ended; told exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    pub bytes: u64,
    /// `None`: complete. Otherwise the word for the audit record.
    pub aborted: Option<&'static str>,
}

/// Whoever wants to know how a response ended: audit, log, metrics, connection pool.
pub trait Finish {
    /// Takes from trailers what a client must not get.
    fn clean(&self, trailers: &mut HeaderMap);
    fn finish(self: Box<Self>, ending: Ending);
}

/// The body sent to the client.
pub enum ResponseBody {
    Empty,
    Full(Option<Bytes>),
    Stream(Box<UpstreamStream>),
    /// An answer of the gateway's own, accounted for when it has been sent.
    Owned(Box<OwnedBody>),
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Full(_) => "Full",
            Self::Stream(_) => "Stream",
            Self::Owned(_) => "Owned",
        })
    }
}

/// The upstream's body as it comes.
pub struct UpstreamStream {
    pub inner: Incoming,
    pub cut: Rc<Cut>,
    /// Asked while the upstream is awaited. A body that nobody takes is not asked for more, and one that is always ready
    /// never waits: those the sweep of open streams ends (see `watch`).
    pub deadline: Option<Pin<Box<Sleep>>>,
    pub bytes: u64,
    /// Its end was read. A body without a length does not know it by itself.
    pub ended: bool,
    pub broken: Option<Broken>,
    pub finish: Option<Box<dyn Finish>>,
}

impl UpstreamStream {
    /// A stream that ends at `deadline` at the latest.
    pub fn new(inner: Incoming, cut: Rc<Cut>, deadline: Option<Instant>, finish: Box<dyn Finish>) -> Self {
        let deadline = deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
        Self { inner, cut, deadline, bytes: 0, ended: false, broken: None, finish: Some(finish) }
    }

    fn fail(&mut self, why: Broken) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.broken = Some(why);
        Poll::Ready(Some(Err(why)))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Poll::Ready(why) = self.cut.poll_cut(cx) {
            return self.fail(Broken::Cut(why));
        }
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.bytes += data.len() as u64;
                } else if let Some(trailers) = frame.trailers_mut() {
                    // Nothing is read behind them. What a service must not say in its head it must not say here.
                    self.ended = true;
                    if let Some(finish) = &self.finish {
                        finish.clean(trailers);
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => self.fail(Broken::Upstream),
            Poll::Ready(None) => {
                self.ended = true;
                Poll::Ready(None)
            }
            Poll::Pending => {
                let over = self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
                if over { self.fail(Broken::Deadline) } else { Poll::Pending }
            }
        }
    }
}

impl Drop for UpstreamStream {
    fn drop(&mut self) {
        let aborted = match self.broken {
            Some(Broken::Cut(why)) => Some(why.as_str()),
            Some(Broken::Deadline) => Some(TOTAL_TIMEOUT),
            Some(_) => Some("upstream_aborted"),
            // A response without a body is never polled; one that was read to its end is complete as well.
            None if self.ended || self.inner.is_end_stream() => None,
            None => Some(self.cut.reason().map_or(CLIENT_LEFT, CutReason::as_str)),
        };
        if let Some(finish) = self.finish.take() {
            finish.finish(Ending { bytes: self.bytes, aborted });
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => stream.poll(cx),
            Self::Owned(owned) => owned.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Full(None) => true,
            Self::Full(Some(_)) => false,
            Self::Stream(stream) => stream.inner.is_end_stream(),
            Self::Owned(owned) => owned.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Full(None) => SizeHint::with_exact(0),
            Self::Full(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(stream) => stream.inner.size_hint(),
            Self::Owned(owned) => owned.size_hint(),
        }
    }
}
