//! Reads from an upstream in turns, so that one that never stops sending does not keep its worker to itself.
//!
//! Whoever parses what comes takes as much as there is: an upstream that sends interim answers (1xx) without end is read
//! for seconds in one go, while no other task of the thread runs and no timer goes off.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read in one turn, in bytes. An ordinary download reaches it only if it comes faster than it is read.
const TURN_BYTES: usize = 256 * 1024;

/// A connection that lets others run now and then.
#[derive(Debug)]
pub(super) struct InTurns<S> {
    io: S,
    /// Read since it was last waited for, in bytes.
    read: usize,
}

impl<S> InTurns<S> {
    pub(super) fn new(io: S) -> Self {
        Self { io, read: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for InTurns<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read >= TURN_BYTES {
            self.read = 0;
            // The runtime wakes this task after it has looked at sockets and timers; a task that wakes itself at once
            // could run many more times before that.
            if pin!(tokio::task::yield_now()).poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.read = match polled {
            Poll::Pending => 0,
            Poll::Ready(_) => self.read + (buf.filled().len() - before),
        };
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for InTurns<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    /// Another task runs once for each turn, and nothing is lost.
    #[tokio::test]
    async fn others_run_while_something_comes_without_end() {
        let endless = InTurns::new(tokio::io::repeat(b'x'));
        let turns = std::rc::Rc::new(std::cell::Cell::new(0));
        let seen = std::rc::Rc::clone(&turns);
        let local = tokio::task::LocalSet::new();
        local.spawn_local(async move {
            loop {
                turns.set(turns.get() + 1);
                tokio::task::yield_now().await;
            }
        });
        let mut bytes = Vec::new();
        local.run_until(endless.take(10 * TURN_BYTES as u64).read_to_end(&mut bytes)).await.unwrap();
        assert_eq!(bytes.len(), 10 * TURN_BYTES);
        assert!(seen.get() >= 4, "{}", seen.get());
    }
}
