//! Exact HTTP/1 framing: the rules, apart from sockets.
//!
//! A bare hyper server drops a `Content-Length` that stands beside `Transfer-Encoding`, takes a lone LF for a line end and
//! cuts a `#fragment` off the target without a word. Each is a way by which two parsers see two requests. Here a request head
//! is either exact or refused, before hyper sees it (RFC 9112, sections 2.2, 3, 5, 6 and 7).

use memchr::memchr;

/// Why a request was refused; the word is told to the caller and logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inexact(pub &'static str);

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    pub body: BodyFraming,
    /// `Connection: upgrade` was asked for: what follows may be another protocol.
    pub upgrade: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    None,
    Length(u64),
    Chunked,
}

/// Reads one complete head (with its final empty line) and says how its body is framed.
pub fn check_head(head: &[u8], max_headers: usize) -> Result<Framing, Inexact> {
    let mut lines = Lines(head);
    let http_1_0 = check_request_line(lines.next().ok_or(Inexact("no request line"))?)?;
    let mut seen = Seen::default();
    let mut count = 0usize;
    for line in lines {
        if line.is_empty() {
            break;
        }
        count += 1;
        if count > max_headers {
            return Err(Inexact("too many header fields"));
        }
        seen.field(line)?;
    }
    seen.framing(http_1_0)
}

/// Splits at CRLF; whoever calls has made sure that there is no lone CR or LF.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];
    fn next(&mut self) -> Option<&'a [u8]> {
        let at = memchr(b'\n', self.0)?;
        let (line, rest) = self.0.split_at_checked(at + 1)?;
        self.0 = rest;
        line.get(..at.saturating_sub(1))
    }
}

/// The line has three words and the last is no version of HTTP: whoever sends it speaks something else, such as a broken
/// HTTP/2 preface, and would not understand an answer.
pub(super) const NOT_HTTP: Inexact = Inexact("not HTTP");

/// Returns whether the version is 1.0.
fn check_request_line(line: &[u8]) -> Result<bool, Inexact> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version) = (parts.next(), parts.next(), parts.next());
    let (Some(method), Some(target), Some(version), None) = (method, target, version, parts.next()) else {
        return Err(Inexact("malformed request line"));
    };
    if !is_token_word(method) {
        return Err(Inexact("malformed method"));
    }
    if target.is_empty() || any(target, |byte| (byte <= 0x20) | (byte == 0x7f)) {
        return Err(Inexact("malformed request target"));
    }
    if any(target, |byte| (byte >= 0x80) | (byte == b'#') | (byte == b'\\')) {
        return Err(Inexact(AMBIGUOUS_TARGET));
    }
    // What the parser behind would refuse without an answer of ours; where all is plain it need not be asked twice.
    let plain = target.first() == Some(&b'/') && !any(target, |byte| b"\"<>^`{|}".contains(&byte));
    if !plain && http::Uri::try_from(target).is_err() {
        return Err(Inexact("malformed request target"));
    }
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        other if other.starts_with(b"HTTP/") => Err(Inexact("unknown HTTP version")),
        _ => Err(NOT_HTTP),
    }
}

/// Told apart from the others, because its code is `AMBIGUOUS_PATH`.
pub const AMBIGUOUS_TARGET: &str = "ambiguous request target";

#[derive(Default)]
struct Seen {
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
    connection_upgrade: bool,
    upgrade: bool,
}

impl Seen {
    fn field(&mut self, line: &[u8]) -> Result<(), Inexact> {
        let colon = memchr(b':', line).ok_or(Inexact("header field without a colon"))?;
        let (name, value) = line.split_at_checked(colon).ok_or(Inexact("malformed header field"))?;
        if !is_token_word(name) {
            // Leading white space (a folded line) and white space before the colon end here too.
            return Err(Inexact("malformed header field name"));
        }
        let value = value.get(1..).unwrap_or_default();
        if any(value, |byte| ((byte < 0x20) & (byte != b'\t')) | (byte == 0x7f)) {
            return Err(Inexact("control character in a header field"));
        }
        let value = value.trim_ascii();
        if name.eq_ignore_ascii_case(b"host") {
            self.hosts += 1;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            if self.length.replace(decimal(value)?).is_some() {
                return Err(Inexact("repeated content-length"));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Inexact("transfer-encoding other than a single chunked"));
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"connection") {
            self.connection_upgrade |=
                value.split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        }
        Ok(())
    }

    fn framing(self, http_1_0: bool) -> Result<Framing, Inexact> {
        if self.hosts > 1 || (self.hosts == 0 && !http_1_0) {
            return Err(Inexact("exactly one host header is needed"));
        }
        let body = match (self.chunked, self.length) {
            (true, Some(_)) => return Err(Inexact("transfer-encoding beside content-length")),
            (true, None) if http_1_0 => return Err(Inexact("transfer-encoding in HTTP/1.0")),
            (true, None) => BodyFraming::Chunked,
            (false, Some(0)) | (false, None) => BodyFraming::None,
            (false, Some(length)) => BodyFraming::Length(length),
        };
        Ok(Framing { body, upgrade: self.upgrade && self.connection_upgrade })
    }
}

/// 8 EiB; no body is that long.
const MAX_LENGTH: u64 = 1 << 63;

fn decimal(text: &[u8]) -> Result<u64, Inexact> {
    const BAD: Inexact = Inexact("malformed content-length");
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(BAD);
    }
    let length = text.iter().try_fold(0u64, |sum, digit| {
        sum.checked_mul(10).and_then(|sum| sum.checked_add(u64::from(digit - b'0'))).ok_or(BAD)
    })?;
    // hyper keeps the largest values for itself and would answer without our body.
    if length > MAX_LENGTH { Err(BAD) } else { Ok(length) }
}

/// The characters of RFC 9110's `token`.
fn is_token(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'0'..=b'9' | b'A'..=b'Z' | b'^'..=b'z' | b'|' | b'~')
}

fn is_token_word(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(|byte| is_token(*byte))
}

/// Whether a byte is of this kind. Whole blocks are tested without a branch for each byte, many bytes at once: tokens
/// make heads long.
fn any(bytes: &[u8], is: impl Fn(u8) -> bool) -> bool {
    let (blocks, rest) = bytes.as_chunks::<32>();
    blocks.iter().any(|block| block.iter().fold(false, |found, byte| found | is(*byte)))
        || rest.iter().any(|byte| is(*byte))
}

/// Follows a chunked body to its end, byte by byte outside of chunk data.
#[derive(Clone, Copy, Debug)]
pub struct Chunks {
    state: ChunkState,
    /// Bytes of framing since the last chunk's data: sizes, extensions, trailers.
    overhead: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    Size { value: u64, digits: u8 },
    Extension { value: u64 },
    SizeLf { value: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

/// Most bytes of one chunk's extensions, and of all trailers.
const MAX_CHUNK_OVERHEAD: usize = 8 * 1024;

impl Default for Chunks {
    fn default() -> Self {
        Self { state: ChunkState::Size { value: 0, digits: 0 }, overhead: 0 }
    }
}

impl Chunks {
    /// How many of these bytes belong to the body, and whether it ends with them.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<(usize, bool), Inexact> {
        let mut at = 0usize;
        while self.state != ChunkState::Done {
            if let ChunkState::Data { left } = self.state {
                let here = u64::try_from(bytes.len() - at).unwrap_or(u64::MAX).min(left);
                at += usize::try_from(here).unwrap_or(usize::MAX);
                self.state = if here == left { ChunkState::DataCr } else { ChunkState::Data { left: left - here } };
                self.overhead = 0;
                if here < left {
                    break;
                }
            }
            let Some(byte) = bytes.get(at) else { break };
            self.state = self.step(*byte)?;
            self.overhead += 1;
            if self.overhead > MAX_CHUNK_OVERHEAD {
                return Err(Inexact("too much chunk framing"));
            }
            at += 1;
        }
        Ok((at, self.state == ChunkState::Done))
    }

    fn step(&self, byte: u8) -> Result<ChunkState, Inexact> {
        use ChunkState::{
            Data, DataCr, DataLf, Done, EndLf, Extension, Size, SizeLf, Trailer, TrailerLf, TrailerStart,
        };
        const BAD: Inexact = Inexact("malformed chunk framing");
        Ok(match (self.state, byte) {
            (Size { value, digits: 1.. }, b'\r') | (Extension { value }, b'\r') => SizeLf { value },
            (Size { value, digits: 1.. }, b';') => Extension { value },
            (Size { value, digits }, _) if digits < 16 => {
                let digit = char::from(byte).to_digit(16).ok_or(BAD)?;
                Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
            }
            (Extension { value }, b'\t' | 0x20..=0x7e | 0x80..) => Extension { value },
            (SizeLf { value: 0 }, b'\n') => TrailerStart,
            (SizeLf { value }, b'\n') => Data { left: value },
            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => Size { value: 0, digits: 0 },
            (TrailerStart, b'\r') => EndLf,
            (Trailer, b'\r') => TrailerLf,
            (TrailerStart, byte) if is_token(byte) => Trailer,
            (Trailer, b'\t' | 0x20..=0x7e | 0x80..) => Trailer,
            (TrailerLf, b'\n') => TrailerStart,
            (EndLf, b'\n') => Done,
            _ => return Err(BAD),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &str) -> Result<Framing, Inexact> {
        check_head(format!("{}\r\n\r\n", lines.replace('\n', "\r\n")).as_bytes(), 100)
    }

    #[test]
    fn exact_heads_pass() {
        let plain = Framing { body: BodyFraming::None, upgrade: false };
        assert_eq!(head("GET / HTTP/1.1\nHost: a"), Ok(plain));
        assert_eq!(head("GET / HTTP/1.0"), Ok(plain));
        assert_eq!(head("POST / HTTP/1.1\nhost: a\ncontent-length: 7").unwrap().body, BodyFraming::Length(7));
        assert_eq!(head("POST / HTTP/1.1\nhost: a\nTransfer-Encoding: Chunked").unwrap().body, BodyFraming::Chunked);
        assert!(head("GET / HTTP/1.1\nhost: a\nupgrade: websocket\nconnection: keep-alive, Upgrade").unwrap().upgrade);
    }

    /// At every place of the blocks in which bytes are tested.
    #[test]
    fn a_bad_byte_is_found_wherever_it_stands() {
        for at in 0..100 {
            let before = "x".repeat(at);
            let after = "x".repeat(100 - at);
            assert!(head(&format!("GET / HTTP/1.1\nhost: a\nx: {before}\u{7f}{after}")).is_err(), "{at}");
            assert!(head(&format!("GET / HTTP/1.1\nhost: a\nx: {before}\t{after}")).is_ok(), "{at}");
            assert!(head(&format!("GET /{before}#{after} HTTP/1.1\nhost: a")).is_err(), "{at}");
            assert!(head(&format!("GET /{before}\u{1}{after} HTTP/1.1\nhost: a")).is_err(), "{at}");
        }
        for byte in 0..=255u8 {
            let usual = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert_eq!(is_token(byte), usual, "{byte}");
        }
    }

    #[test]
    fn inexact_heads_are_refused() {
        for bad in [
            "GET / HTTP/1.1",
            "GET / HTTP/1.1\nhost: a\nhost: a",
            "GET  / HTTP/1.1\nhost: a",
            "GET / HTTP/1.1 \nhost: a",
            "GET /a b HTTP/1.1\nhost: a",
            "GET ?x HTTP/1.1\nhost: a",
            "GET http:///x HTTP/1.1\nhost: a",
            "GET /x?a=\"<> HTTP/1.1\nhost: a",
            "GET / HTTP/2.0\nhost: a",
            "GET / http/1.1\nhost: a",
            "GET /#x HTTP/1.1\nhost: a",
            "GET /\\x HTTP/1.1\nhost: a",
            "GET /\u{fc} HTTP/1.1\nhost: a",
            "G(T / HTTP/1.1\nhost: a",
            "GET / HTTP/1.1\nhost : a",
            "GET / HTTP/1.1\nhost: a\n folded",
            "GET / HTTP/1.1\nhost: a\nno colon",
            "GET / HTTP/1.1\nhost: a\n: empty",
            "GET / HTTP/1.1\nhost: a\nx: \u{1}",
            "POST / HTTP/1.1\nhost: a\ncontent-length: 1\ncontent-length: 1",
            "POST / HTTP/1.1\nhost: a\ncontent-length: 1, 1",
            "POST / HTTP/1.1\nhost: a\ncontent-length: +1",
            "POST / HTTP/1.1\nhost: a\ncontent-length: 0x1",
            "POST / HTTP/1.1\nhost: a\ncontent-length:",
            "POST / HTTP/1.1\nhost: a\ncontent-length: 99999999999999999999",
            "POST / HTTP/1.1\nhost: a\ncontent-length: 18446744073709551615",
            "POST / HTTP/1.1\nhost: a\ncontent-length: 1\ntransfer-encoding: chunked",
            "POST / HTTP/1.1\nhost: a\ntransfer-encoding: chunked\ncontent-length: 1",
            "POST / HTTP/1.1\nhost: a\ntransfer-encoding: identity, chunked",
            "POST / HTTP/1.1\nhost: a\ntransfer-encoding: chunked\ntransfer-encoding: chunked",
            "POST / HTTP/1.1\nhost: a\ntransfer-encoding: \u{b}chunked",
            "POST / HTTP/1.1\nhost: a\ntransfer-encoding: xchunked",
            "POST / HTTP/1.0\ntransfer-encoding: chunked",
        ] {
            assert!(head(bad).is_err(), "{bad:?}");
        }
    }

    fn chunked(body: &str) -> Result<(usize, bool), Inexact> {
        Chunks::default().advance(body.as_bytes())
    }

    #[test]
    fn chunked_bodies_end_where_they_say() {
        let whole = "5;ext=1\r\nhello\r\n0\r\nx-trailer: 1\r\n\r\n";
        assert_eq!(chunked(&format!("{whole}GET /")), Ok((whole.len(), true)));
        assert_eq!(chunked("5\r\nhel"), Ok((6, false)));
        let mut split = Chunks::default();
        let mut total = 0;
        for byte in whole.as_bytes() {
            total += split.advance(&[*byte]).unwrap().0;
        }
        assert_eq!((total, split.state), (whole.len(), ChunkState::Done));
    }

    #[test]
    fn inexact_chunks_are_refused() {
        for bad in [
            "\r\n",
            "5\nhello\r\n",
            "5\r\nhelloX",
            "5\r\nhello\n0\r\n\r\n",
            "g\r\n",
            "0x5\r\n",
            " 5\r\n",
            "5 \r\n",
            "-1\r\n",
            "00000000000000005\r\n",
            "0\r\n\n",
            "0\r\n x\r\n",
            "5;a\n\r\n",
            "0\r\nx: \u{1}\r\n\r\n",
        ] {
            assert!(chunked(bad).is_err(), "{bad:?}");
        }
        assert!(chunked(&format!("5;{}\r\n", "x".repeat(MAX_CHUNK_OVERHEAD))).is_err());
    }
}
