//! An upstream that records what arrives, byte for byte where it matters, and behaves as its paths say.
//!
//! `/t/...` paths choose a behaviour: `raw/HEX` (answers these bytes; see [`raw`]), `sse`, `interim`, `slow/MS`, `download/BYTES`, `upload`, `ws`, `trailers`, `reset`,
//! `close-after` (answers once, then closes the connection without saying so).

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// The path by which such an answer is asked for: its bytes as hex digits. It closes the connection if it says so.
pub fn raw(below: &str, answer: &str) -> String {
    let hex: String = answer.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("/{below}/raw/{hex}")
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// One request as it stood on the wire.
#[derive(Clone, Debug)]
pub struct Seen {
    pub line: String,
    /// As written, order kept.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Seen {
    /// All values of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |known: &str| known.eq_ignore_ascii_case(name);
        self.headers.iter().filter(|(known, _)| same(known)).map(|(_, value)| value.as_str()).collect()
    }

    /// The only value of a field, or the empty text.
    pub fn one(&self, name: &str) -> &str {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} stands {} times", all.len());
        all.first().copied().unwrap_or("")
    }

    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap()
    }
}

#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    pub connections: Arc<AtomicUsize>,
    /// Exchanges that the gateway broke off.
    pub broken: Arc<AtomicUsize>,
    /// The status of all answers; 0: as their paths say.
    status: Arc<AtomicUsize>,
}

impl Upstream {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            connections: Arc::default(),
            broken: Arc::default(),
            status: Arc::default(),
        };
        let shared = upstream.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let shared = shared.clone();
                thread::spawn(move || shared.serve(stream));
            }
        });
        upstream
    }

    /// From now on each answer has this status; 0: what its path says.
    pub fn say(&self, status: usize) {
        self.status.store(status, Ordering::SeqCst);
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The last request that arrived; fails the test if none did.
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("nothing reached the upstream")
    }

    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn serve(&self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut writer = stream;
        while let Some(seen) = self.read(&mut reader) {
            let path = seen.target().split('?').next().unwrap().to_owned();
            let head_only = seen.line.starts_with("HEAD ");
            self.seen.lock().unwrap().push(seen.clone());
            let status = self.status.load(Ordering::SeqCst);
            let keep = match path.split('/').skip(1).collect::<Vec<_>>().as_slice() {
                _ if status != 0 => {
                    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nhi");
                    self.write(&mut writer, head.as_bytes())
                }
                [_, "slow", ms] => {
                    thread::sleep(Duration::from_millis(ms.parse().unwrap()));
                    self.plain(&mut writer, b"slow")
                }
                [_, "download", bytes] => self.download(&mut writer, bytes.parse().unwrap()),
                [_, "raw", hex] => {
                    let bytes = unhex(hex);
                    let text = String::from_utf8_lossy(&bytes);
                    self.write(&mut writer, &bytes) && !text.contains("Connection: close")
                }
                [_, "sse"] => self.events(&mut writer),
                [_, "interim"] => self.interim(&mut writer),
                ["t", "trailers"] => self.write(
                    &mut writer,
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n",
                ),
                ["t", "ws"] => {
                    self.websocket(&mut reader, &mut writer);
                    false
                }
                ["t", "reset"] => false,
                ["impatient", _] => {
                    thread::sleep(Duration::from_secs(1));
                    self.plain(&mut writer, b"late")
                }
                ["t", "close-after"] => {
                    self.plain(&mut writer, b"once");
                    false
                }
                ["t", "status", code] => {
                    let head = format!("HTTP/1.1 {code} X\r\nContent-Length: 2\r\nVary: Accept\r\nX-Hop: 1\r\nConnection: X-Hop\r\n\r\nhi");
                    self.write(&mut writer, head.as_bytes())
                }
                _ if head_only => self.write(&mut writer, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"),
                _ => self.plain(&mut writer, b"ok"),
            };
            if !keep {
                return;
            }
        }
    }

    fn write(&self, writer: &mut TcpStream, bytes: &[u8]) -> bool {
        let written = writer.write_all(bytes).is_ok();
        if !written {
            self.broken.fetch_add(1, Ordering::SeqCst);
        }
        written
    }

    fn plain(&self, writer: &mut TcpStream, body: &[u8]) -> bool {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len());
        self.write(writer, &[head.as_bytes(), body].concat())
    }

    fn download(&self, writer: &mut TcpStream, bytes: u64) -> bool {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
        let piece = vec![b'x'; 65536];
        let mut left = bytes;
        if !self.write(writer, head.as_bytes()) {
            return false;
        }
        while left > 0 {
            let now = usize::try_from(left.min(65536)).unwrap();
            if !self.write(writer, &piece[..now]) {
                return false;
            }
            left -= now as u64;
        }
        true
    }

    /// Answers that are none, without end.
    fn interim(&self, writer: &mut TcpStream) -> bool {
        let piece = "HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000);
        while self.write(writer, piece.as_bytes()) {}
        false
    }

    fn events(&self, writer: &mut TcpStream) -> bool {
        if !self
            .write(writer, b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        {
            return false;
        }
        loop {
            if !self.write(writer, b"9\r\ndata: 1\n\n\r\n") {
                return false;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn websocket(&self, reader: &mut impl Read, writer: &mut TcpStream) {
        self.write(writer, b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n");
        let mut space = [0u8; 4096];
        loop {
            match reader.read(&mut space) {
                Ok(0) | Err(_) => {
                    self.broken.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                Ok(count) => {
                    if !self.write(writer, &space[..count]) {
                        return;
                    }
                }
            }
        }
    }

    fn read(&self, reader: &mut BufReader<TcpStream>) -> Option<Seen> {
        let line = line(reader)?;
        let mut headers = Vec::new();
        loop {
            let field = self::line(reader)?;
            if field.is_empty() {
                break;
            }
            let (name, value) = field.split_once(':')?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let mut seen = Seen { line, headers, body: Vec::new(), trailers: Vec::new() };
        let keep_body = !seen.target().starts_with("/t/upload");
        if seen.one("transfer-encoding").eq_ignore_ascii_case("chunked") {
            let mut total = 0u64;
            loop {
                let Some(size) = self::line(reader) else { return self.gone() };
                let size = usize::from_str_radix(size.split(';').next()?, 16).ok()?;
                if size == 0 {
                    break;
                }
                let mut piece = vec![0; size + 2];
                if reader.read_exact(&mut piece).is_err() {
                    return self.gone();
                }
                total += size as u64;
                if keep_body {
                    seen.body.extend_from_slice(&piece[..size]);
                }
            }
            if !keep_body {
                seen.body = total.to_string().into_bytes();
            }
            loop {
                let trailer = self::line(reader)?;
                if trailer.is_empty() {
                    break;
                }
                let (name, value) = trailer.split_once(':')?;
                seen.trailers.push((name.to_owned(), value.trim().to_owned()));
            }
        } else if let Ok(length) = seen.one("content-length").parse::<u64>() {
            let mut taken = reader.take(length);
            if keep_body {
                taken.read_to_end(&mut seen.body).ok()?;
                if (seen.body.len() as u64) < length {
                    return self.gone();
                }
            } else {
                let total = std::io::copy(&mut taken, &mut std::io::sink()).ok()?;
                seen.body = total.to_string().into_bytes();
                if total < length {
                    return self.gone();
                }
            }
        }
        Some(seen)
    }

    fn gone<T>(&self) -> Option<T> {
        self.broken.fetch_add(1, Ordering::SeqCst);
        None
    }
}

fn line(reader: &mut impl BufRead) -> Option<String> {
    let mut bytes = Vec::new();
    reader.read_until(b'\n', &mut bytes).ok()?;
    let text = String::from_utf8_lossy(bytes.strip_suffix(b"\r\n")?).into_owned();
    Some(text)
}
