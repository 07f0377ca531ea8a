//! Raw HTTP/1: bytes in, parsed answer out. No library stands between a test and the wire.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// A parsed answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    /// Lower-case names; repeated fields joined by `, `.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// `CODE` or `CODE/reason` of an error body.
    pub fn error(&self) -> String {
        let body = self.json();
        let code = body["error"]["code"].as_str().unwrap_or_default().to_owned();
        match body["error"]["details"]["reason"].as_str() {
            Some(reason) => format!("{code}/{reason}"),
            None => code,
        }
    }
}

/// A request being put together.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.into(),
            target: target.into(),
            headers: vec![("Host".into(), "gateway.test".into())],
            body: None,
        }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    pub fn tenant(self, tenant: &str) -> Self {
        self.header("X-Active-Tenant-Id", tenant)
    }

    pub fn json(mut self, body: &str) -> Self {
        self.body = Some(body.as_bytes().to_vec());
        self.header("Content-Type", "application/json")
    }

    pub fn body(mut self, body: &str) -> Self {
        self.body = Some(body.as_bytes().to_vec());
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if let Some(body) = &self.body {
            out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            out.extend_from_slice(body);
        } else {
            out.extend_from_slice(b"\r\n");
        }
        out
    }

    pub fn send(&self, to: SocketAddr) -> Answer {
        let mut connection = Connection::open(to);
        connection.write(&self.bytes());
        connection.answer_to(&self.method)
    }
}

/// One connection; answers are read in order.
pub struct Connection<S = TcpStream> {
    pub stream: S,
    buffer: Vec<u8>,
}

pub const PATIENCE: Duration = Duration::from_secs(20);

impl Connection {
    pub fn open(to: SocketAddr) -> Self {
        Self::over(TcpStream::connect(to).unwrap())
    }

    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::on(stream)
    }
}

impl<S: Read + Write> Connection<S> {
    /// Over anything; it has its own patience.
    pub fn on(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Writes as far as the other side takes it.
    pub fn try_write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    fn more(&mut self) -> usize {
        let mut space = [0u8; 65536];
        let count = self.stream.read(&mut space).unwrap_or(0);
        self.buffer.extend_from_slice(&space[..count]);
        count
    }

    pub fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    /// Head only; what follows stays in the buffer.
    pub fn head(&mut self) -> Answer {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
                self.buffer.drain(..at + 4);
                return parse_head(&head);
            }
            if self.more() == 0 {
                return Answer { body: std::mem::take(&mut self.buffer), ..Answer::default() };
            }
        }
    }

    /// The next answer; status 0 where the connection ended without one.
    pub fn answer_to(&mut self, method: &str) -> Answer {
        let mut answer = self.head();
        while answer.status == 100 {
            answer = self.head();
        }
        if answer.status == 0
            || answer.status == 101
            || method == "HEAD"
            || answer.status == 204
            || answer.status == 304
        {
            return answer;
        }
        if answer.header("transfer-encoding") == "chunked" {
            self.chunked(&mut answer);
        } else if let Ok(length) = answer.header("content-length").parse::<usize>() {
            while self.buffer.len() < length && self.more() > 0 {}
            answer.body = self.buffer.drain(..length.min(self.buffer.len())).collect();
        } else {
            while self.more() > 0 {}
            answer.body = std::mem::take(&mut self.buffer);
        }
        answer
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
                self.buffer.drain(..at + 2);
                return Some(line);
            }
            if self.more() == 0 {
                return None;
            }
        }
    }

    fn chunked(&mut self, answer: &mut Answer) {
        while let Some(size) = self.line() {
            let size = usize::from_str_radix(&size, 16).unwrap();
            if size == 0 {
                while let Some(trailer) = self.line() {
                    if trailer.is_empty() {
                        return;
                    }
                    let (name, value) = trailer.split_once(':').unwrap();
                    answer.headers.insert(format!("trailer {}", name.to_lowercase()), value.trim().into());
                }
                return;
            }
            while self.buffer.len() < size + 2 && self.more() > 0 {}
            if self.buffer.len() < size + 2 {
                answer.headers.insert("cut".into(), "true".into());
                return;
            }
            answer.body.extend(self.buffer.drain(..size));
            self.buffer.drain(..2);
        }
        answer.headers.insert("cut".into(), "true".into());
    }

    /// Some bytes, or none when the connection ended.
    pub fn read_some(&mut self) -> Vec<u8> {
        if self.buffer.is_empty() {
            self.more();
        }
        std::mem::take(&mut self.buffer)
    }

    /// Reads until the connection ends; returns how many bytes came.
    pub fn drain(&mut self) -> usize {
        let mut total = self.buffer.len();
        self.buffer.clear();
        loop {
            let count = self.more();
            if count == 0 {
                return total;
            }
            total += count;
            self.buffer.clear();
        }
    }
}

fn parse_head(head: &str) -> Answer {
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok()).unwrap_or(0);
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap();
        headers
            .entry(name.to_lowercase())
            .and_modify(|known| *known = format!("{known}, {}", value.trim()))
            .or_insert_with(|| value.trim().to_owned());
    }
    Answer { status, headers, body: Vec::new() }
}
