//! The socket as hyper's HTTP/1 server sees it: only exact requests come through (see `framing`).
//!
//! Stands between the socket and hyper. A head is held back until it is complete and exact; then it and its body go
//! on unchanged. An inexact head is replaced by a request for an unguessable path, so that hyper answers it in
//! order behind what was pipelined before, with our own error body, and closes. An inexact body ends with an error where it
//! is no longer exact, and the connection behind the answer. A client that still sends when its connection closes is listened
//! to for a moment: a socket that is closed with something unread takes back the answer that is on its way.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll},
    time::Duration,
};

use hyper::rt::{Read, ReadBufCursor, Write};
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use uuid::Uuid;

use super::framing::{BodyFraming, Chunks, Inexact, NOT_HTTP, check_head};

/// Path of the request that stands for a refused one; nobody outside this process can know it.
static REFUSED_PATH: LazyLock<String> = LazyLock::new(|| format!("/{}", Uuid::new_v4().simple()));

/// What was inexact, if this request stands for a refused one.
pub fn refusal_of(path: &str, query: Option<&str>) -> Option<String> {
    (path == REFUSED_PATH.as_str()).then(|| query.unwrap_or_default().replace('+', " "))
}

/// One read of the socket.
const READ_BYTES: usize = 16 * 1024;

/// How long a client that still sends is listened to once our side is closed.
const FAREWELL: Duration = Duration::from_secs(5);

/// Limits of a request head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    pub bytes: usize,
    pub count: usize,
}

/// A socket with exact framing towards hyper.
#[derive(Debug)]
pub struct Guarded<T> {
    io: T,
    limits: HeadLimits,
    /// Bytes from the socket, not yet given to hyper.
    buffer: Vec<u8>,
    /// Given to hyper so far.
    start: usize,
    /// Checked so far; `start..checked` may be given.
    checked: usize,
    /// Searched for the end of a head so far.
    scanned: usize,
    state: State,
    upgrade_follows: bool,
    /// A good head has come: answers are owed, in order.
    began: bool,
    /// Our side is closed; when the client's must be.
    farewell: Option<Pin<Box<tokio::time::Sleep>>>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Head,
    Length(u64),
    Chunked(Chunks),
    /// An upgrade was asked for: another protocol may follow. The connection serves no further HTTP request.
    Raw,
    /// A refused request was replaced; what still comes is thrown away.
    Refused,
    /// A body is inexact from here on. What was good before it is given first, so that it is answered.
    Inexact(Inexact),
}

impl<T> Guarded<T> {
    /// `first`: bytes already read from the socket.
    pub fn new(io: T, first: Vec<u8>, limits: HeadLimits) -> Self {
        Self {
            io,
            limits,
            buffer: first,
            start: 0,
            checked: 0,
            scanned: 0,
            state: State::Head,
            upgrade_follows: false,
            began: false,
            farewell: None,
        }
    }

    /// Moves `checked` on as far as the bytes at hand allow.
    fn check(&mut self) -> io::Result<()> {
        loop {
            let pending = self.buffer.get(self.checked..).unwrap_or_default();
            if pending.is_empty() {
                return Ok(());
            }
            match &mut self.state {
                State::Raw => self.checked = self.buffer.len(),
                State::Refused | State::Inexact(_) => self.buffer.truncate(self.checked),
                State::Length(left) => {
                    let here = u64::try_from(pending.len()).unwrap_or(u64::MAX).min(*left);
                    *left -= here;
                    self.checked += usize::try_from(here).unwrap_or(usize::MAX);
                    if *left == 0 {
                        self.next_message();
                    }
                }
                State::Chunked(chunks) => match chunks.advance(pending) {
                    Ok((here, ended)) => {
                        self.checked += here;
                        if ended {
                            self.next_message();
                        }
                    }
                    Err(inexact) => self.state = State::Inexact(inexact),
                },
                State::Head => {
                    if !self.check_one_head()? {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn next_message(&mut self) {
        self.state = if self.upgrade_follows { State::Raw } else { State::Head };
        self.scanned = self.checked;
    }

    /// `false`: more bytes are needed. An error closes the connection without an answer.
    fn check_one_head(&mut self) -> io::Result<bool> {
        match self.complete_head() {
            Ok(None) => Ok(false),
            Ok(Some(end)) => {
                let head = self.buffer.get(self.checked..end).unwrap_or_default();
                match check_head(head, self.limits.count) {
                    Ok(framing) => {
                        self.checked = end;
                        self.began = true;
                        self.upgrade_follows = framing.upgrade;
                        match framing.body {
                            BodyFraming::None => self.next_message(),
                            BodyFraming::Length(length) => self.state = State::Length(length),
                            BodyFraming::Chunked => self.state = State::Chunked(Chunks::default()),
                        }
                    }
                    Err(NOT_HTTP) if !self.began => return Err(io::Error::new(io::ErrorKind::InvalidData, NOT_HTTP.0)),
                    Err(inexact) => self.refuse(inexact),
                }
                Ok(true)
            }
            Err(inexact) => {
                self.refuse(inexact);
                Ok(true)
            }
        }
    }

    /// The end of the head that begins at `checked`, once it is there. Lone CR and LF are found on the way.
    fn complete_head(&mut self) -> Result<Option<usize>, Inexact> {
        // One empty line before a request is tolerated (RFC 9112, section 2.2) and not passed on.
        if self.scanned == self.checked && self.buffer.get(self.checked..self.checked + 2) == Some(b"\r\n") {
            self.buffer.drain(self.checked..self.checked + 2);
        }
        let mut at = self.scanned.max(self.checked);
        while let Some(offset) = self.buffer.get(at..).and_then(|rest| memchr(b'\n', rest)) {
            let lf = at + offset;
            if lf == self.checked || self.buffer.get(lf - 1) != Some(&b'\r') {
                return Err(Inexact("lone line feed"));
            }
            at = lf + 1;
            if at - self.checked > self.limits.bytes {
                return Err(Inexact("header section too large"));
            }
            if self.buffer.get(lf.saturating_sub(3)..lf) == Some(b"\r\n\r") && lf.saturating_sub(3) >= self.checked {
                self.scanned = at;
                return Ok(Some(at));
            }
        }
        self.scanned = self.buffer.len();
        if self.buffer.len() - self.checked > self.limits.bytes {
            return Err(Inexact("header section too large"));
        }
        Ok(None)
    }

    fn refuse(&mut self, Inexact(why): Inexact) {
        self.buffer.truncate(self.checked);
        let stand_in = format!(
            "GET {}?{} HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n",
            REFUSED_PATH.as_str(),
            why.replace(' ', "+")
        );
        self.buffer.extend_from_slice(stand_in.as_bytes());
        self.checked = self.buffer.len();
        self.state = State::Refused;
    }

    /// Gives checked bytes to hyper; `false` where there are none.
    fn give(&mut self, out: &mut ReadBufCursor<'_>) -> bool {
        let ready = self.buffer.get(self.start..self.checked).unwrap_or_default();
        if ready.is_empty() {
            return false;
        }
        let count = ready.len().min(out.remaining());
        out.put_slice(ready.get(..count).unwrap_or_default());
        self.start += count;
        if self.start == self.buffer.len() {
            self.buffer.clear();
            (self.start, self.checked, self.scanned) = (0, 0, 0);
            if self.buffer.capacity() > 4 * READ_BYTES {
                self.buffer.shrink_to(READ_BYTES);
            }
        } else if self.start > 4 * READ_BYTES {
            self.buffer.drain(..self.start);
            self.checked -= self.start;
            self.scanned = self.scanned.saturating_sub(self.start);
            self.start = 0;
        }
        true
    }
}

fn inexact_body(Inexact(why): Inexact) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl<T: AsyncRead + Unpin> Read for Guarded<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut out: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check()?;
        loop {
            if out.remaining() == 0 || this.give(&mut out) {
                return Poll::Ready(Ok(()));
            }
            if let State::Inexact(why) = this.state {
                return Poll::Ready(Err(inexact_body(why)));
            }
            let mut space = [const { MaybeUninit::<u8>::uninit() }; READ_BYTES];
            let mut read = ReadBuf::uninit(&mut space);
            std::task::ready!(Pin::new(&mut this.io).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.buffer.extend_from_slice(read.filled());
            this.check()?;
        }
    }
}

impl<T: AsyncRead + Unpin> Guarded<T> {
    /// Throws away what comes until the client has ended, or for as long as it is listened to.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(farewell) = &mut self.farewell else { return Poll::Ready(()) };
        while farewell.as_mut().poll(cx).is_pending() {
            let mut space = [const { MaybeUninit::<u8>::uninit() }; READ_BYTES];
            let mut read = ReadBuf::uninit(&mut space);
            let ended = std::task::ready!(Pin::new(&mut self.io).poll_read(cx, &mut read)).is_err();
            if ended || read.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Write for Guarded<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.farewell.is_none() {
            std::task::ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            if matches!(this.state, State::Head | State::Raw) {
                return Poll::Ready(Ok(()));
            }
            this.farewell = Some(Box::pin(tokio::time::sleep(FAREWELL)));
        }
        this.poll_farewell(cx).map(Ok)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, slices)
    }
}
