//! The body of a request that goes through the stages: streamed where linkgate is the proxy, given or unseen where it
//! only decides for another one.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::unread::ClientBody;

/// What a stage may read of a request's body.
#[derive(Debug)]
pub enum Inbound {
    /// From the client's own connection.
    Streamed(ClientBody),
    /// All of it, as the proxy that asks has it.
    Given(Option<Bytes>),
    /// It may exist, but only the proxy that asks has seen it: what hangs on it cannot be decided.
    Unseen,
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Streamed(body) => Pin::new(body).poll_frame(cx),
            Self::Given(bytes) => Poll::Ready(bytes.take().filter(|bytes| !bytes.is_empty()).map(Frame::data).map(Ok)),
            Self::Unseen => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Streamed(body) => body.is_end_stream(),
            Self::Given(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Unseen => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Streamed(body) => body.size_hint(),
            Self::Given(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Unseen => SizeHint::default(),
        }
    }
}
