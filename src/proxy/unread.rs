//! A client's body, and what is left of it when its answer is ready.
//!
//! A refusal is often ready before its request has come to its end. Over HTTP/2 the whole answer also ends the stream, and
//! what comes behind it meets a stream that is no more: a fault in it is passed over in silence, and a client that still
//! sends may report a reset where it should report the refusal. Over HTTP/1 the connection would have to close. An early answer
//! is allowed, not asked for (RFC 9113, section 8.1): so a rest that is short is awaited for a moment.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Version, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

/// Most of a rest that is read, in bytes.
const REST_BYTES: usize = 64 * 1024;

/// Longest that an answer waits for it: an upload that has begun keeps its client busy anyway.
const PATIENCE: Duration = Duration::from_millis(250);

/// A request's body as it comes from its client.
#[derive(Debug)]
pub struct ClientBody {
    /// `None` only while it is dropped.
    inner: Option<Incoming>,
    /// Where a rest goes.
    unread: Option<Unread>,
}

/// What nobody read of a body, once it was dropped.
#[derive(Clone, Debug)]
pub struct Unread(Rc<Slot>);

#[derive(Debug)]
struct Slot {
    rest: RefCell<Option<Incoming>>,
    comes: bool,
    /// A stream of its own: nothing else waits behind the body.
    ends_alone: bool,
}

impl ClientBody {
    /// Takes the body of a request; its rest will be in `Unread`, where it has any.
    pub fn of(request: Request<Incoming>) -> (Request<Self>, Option<Unread>) {
        let unread = (!request.body().is_end_stream()).then(|| {
            Unread(Rc::new(Slot {
                rest: RefCell::default(),
                // Who expects `100 Continue` sends nothing before the answer.
                comes: !request.headers().contains_key(header::EXPECT),
                ends_alone: request.version() == Version::HTTP_2,
            }))
        });
        let request = request.map(|inner| Self { inner: Some(inner), unread: unread.clone() });
        (request, unread)
    }
}

impl Unread {
    /// Reads the rest to its end, or as far as it is worth it: whether the connection can carry more. Over HTTP/2 it can, and a
    /// stream with a fault is reset meanwhile.
    pub async fn pass(self) -> bool {
        let Slot { rest, comes, ends_alone } = &*self.0;
        let Some(rest) = rest.take() else { return true };
        if !comes {
            return *ends_alone;
        }
        let mut rest = Limited::new(rest, REST_BYTES);
        let end = async {
            loop {
                match rest.frame().await {
                    Some(Ok(_)) => {}
                    Some(Err(_)) => return false,
                    None => return true,
                }
            }
        };
        tokio::time::timeout(PATIENCE, end).await.unwrap_or(false) || *ends_alone
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        if let (Some(unread), Some(inner)) = (self.unread.take(), self.inner.take())
            && !inner.is_end_stream()
        {
            *unread.0.rest.borrow_mut() = Some(inner);
        }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.get_mut().inner.as_mut().map_or(Poll::Ready(None), |inner| Pin::new(inner).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}
