//! Watches the bytes of a CSV file for a quote that is never closed.
//!
//! The parser takes such a quote to the end of the file for one cell and says nothing. Here the same bytes are looked at by
//! the parser's own rule: a quote opens at the beginning of a field, two of them in a quoted one are one of its characters.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Stands for "no quote is open".
const NONE: u64 = u64::MAX;
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// Where the open quote stands, if one is.
#[derive(Clone, Debug)]
pub(super) struct Open(Arc<Place>);

#[derive(Debug)]
struct Place {
    byte: AtomicU64,
    line: AtomicU64,
}

impl Open {
    /// The line of the quote that is open and lies before this byte. The reader may be ahead of the parser, but a record that
    /// was parsed and holds the quote ended with the file.
    pub(super) fn before(&self, byte: u64) -> Option<u64> {
        (self.0.byte.load(Ordering::Relaxed) < byte).then(|| self.0.line.load(Ordering::Relaxed))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    FieldBegins,
    Field,
    Quoted,
    /// The quote closes, unless another one follows.
    QuoteInQuoted,
}

pub(super) struct Quotes<R> {
    source: R,
    state: State,
    byte: u64,
    line: u64,
    /// Byte and line of the last quote that opened.
    opened: (u64, u64),
    open: Open,
}

impl<R> Quotes<R> {
    pub(super) fn watch(source: R) -> (Self, Open) {
        let open = Open(Arc::new(Place { byte: AtomicU64::new(NONE), line: AtomicU64::new(0) }));
        (Self { source, state: State::FieldBegins, byte: 0, line: 1, opened: (NONE, 0), open: open.clone() }, open)
    }

    fn take(&mut self, byte: u8) {
        let mark = usize::try_from(self.byte).ok().and_then(|at| BYTE_ORDER_MARK.get(at)) == Some(&byte);
        self.state = match (self.state, byte) {
            (State::FieldBegins, b'"') => {
                self.opened = (self.byte, self.line);
                State::Quoted
            }
            (State::Quoted, b'"') => State::QuoteInQuoted,
            (State::Quoted, _) | (State::QuoteInQuoted, b'"') => State::Quoted,
            (_, b',' | b'\n' | b'\r') => State::FieldBegins,
            (State::FieldBegins, _) if mark => State::FieldBegins,
            _ => State::Field,
        };
        self.line += u64::from(byte == b'\n');
        self.byte += 1;
    }
}

impl<R: Read> Read for Quotes<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(into)?;
        into.iter().take(read).for_each(|byte| self.take(*byte));
        let (byte, line) = if self.state == State::Quoted { self.opened } else { (NONE, 0) };
        self.open.0.line.store(line, Ordering::Relaxed);
        self.open.0.byte.store(byte, Ordering::Relaxed);
        Ok(read)
    }
}
