//! The body of an answer that the gateway makes itself: counted, and its exchange settled when it has been sent.

use std::{
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;

use super::{
    body::{Broken, Cut, Ending, Finish},
    cut::CutReason,
};
use crate::domain::words::CLIENT_LEFT;

/// Bytes at hand, or chunks as a task of the service runtime makes them.
pub struct OwnedBody {
    source: Source,
    /// Bytes that are still to come, where that is known.
    left: Option<u64>,
    bytes: u64,
    ended: bool,
    broken: bool,
    /// Ends a stream whose link ended.
    cut: Option<Rc<Cut>>,
    finish: Option<Box<dyn Finish>>,
}

enum Source {
    Bytes(Option<Bytes>),
    Chunks(mpsc::Receiver<std::io::Result<Bytes>>),
}

impl OwnedBody {
    pub fn bytes(bytes: Bytes, finish: Box<dyn Finish>) -> Self {
        let length = bytes.len() as u64;
        let mut body = Self::new(Source::Bytes(Some(bytes)), Some(length), finish);
        body.ended = length == 0;
        body
    }

    /// `length`: what `Content-Length` promises, in bytes; a stream that gives another number of them is broken off.
    pub fn stream(
        length: Option<u64>,
        chunks: mpsc::Receiver<std::io::Result<Bytes>>,
        cut: Rc<Cut>,
        finish: Box<dyn Finish>,
    ) -> Self {
        let mut body = Self::new(Source::Chunks(chunks), length, finish);
        body.cut = Some(cut);
        body
    }

    fn new(source: Source, left: Option<u64>, finish: Box<dyn Finish>) -> Self {
        Self { source, left, bytes: 0, ended: false, broken: false, cut: None, finish: Some(finish) }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.ended || self.broken {
            return Poll::Ready(None);
        }
        if let Some(Poll::Ready(why)) = self.cut.as_ref().map(|cut| cut.poll_cut(cx)) {
            self.broken = true;
            return Poll::Ready(Some(Err(Broken::Cut(why))));
        }
        let next = match &mut self.source {
            Source::Bytes(bytes) => Poll::Ready(bytes.take().map(Ok)),
            Source::Chunks(chunks) => chunks.poll_recv(cx),
        };
        match next {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(chunk))) => {
                let length = chunk.len() as u64;
                if let Some(left) = &mut self.left {
                    let Some(rest) = left.checked_sub(length) else { return self.fail() };
                    *left = rest;
                }
                self.bytes += length;
                self.ended = matches!(self.source, Source::Bytes(_)) || self.left == Some(0);
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::error!(%error, "an answer of the gateway's broke off");
                self.fail()
            }
            Poll::Ready(None) if self.left.is_some_and(|left| left > 0) => self.fail(),
            Poll::Ready(None) => {
                self.ended = true;
                Poll::Ready(None)
            }
        }
    }

    fn fail(&mut self) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.broken = true;
        Poll::Ready(Some(Err(Broken::Own)))
    }

    pub(super) fn is_end(&self) -> bool {
        self.ended
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl Drop for OwnedBody {
    fn drop(&mut self) {
        let cut = self.cut.as_ref().and_then(|cut| cut.reason()).map(CutReason::as_str);
        let aborted = match (self.broken, self.ended) {
            (true, _) => Some(cut.unwrap_or("answer_broke_off")),
            // A client that reads nothing is cut with its connection.
            (false, false) if cut.is_some() => cut,
            (false, true) => None,
            (false, false) => Some(CLIENT_LEFT),
        };
        if let Some(finish) = self.finish.take() {
            finish.finish(Ending { bytes: self.bytes, aborted });
        }
    }
}
