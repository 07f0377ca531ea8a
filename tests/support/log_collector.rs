//! A collector: takes log records over OTLP (HTTP, protobuf), reads them with OpenTelemetry's own types, and keeps them.
//!
//! It can break off, refuse, refuse in part and fall silent.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests: what fails here fails the test")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse},
    common::v1::{KeyValue, any_value::Value},
    logs::v1::LogRecord,
};
use prost::Message;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// How it treats exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// Breaks off.
    Away,
    /// Reads, and never answers.
    Silent,
    Status(u16),
    /// Says that it took all but so many.
    Part(i64),
}

pub struct Collector {
    pub address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
}

struct Kept {
    mood: Mood,
    records: Vec<LogRecord>,
    resource: Vec<KeyValue>,
    /// Heads of exports, in lower case.
    heads: Vec<String>,
}

impl Collector {
    pub fn start() -> Self {
        Self::listening(|stream| stream)
    }

    /// Speaks TLS.
    pub fn secure(config: ServerConfig) -> Self {
        let config = Arc::new(config);
        Self::listening(move |stream| {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            StreamOwned::new(session, stream)
        })
    }

    fn listening<S: Read + Write + Send>(wrap: impl Fn(TcpStream) -> S + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let kept = Kept { mood: Mood::Well, records: Vec::new(), resource: Vec::new(), heads: Vec::new() };
        let kept = Arc::new(Mutex::new(kept));
        let taking = Arc::clone(&kept);
        let wrap = Arc::new(wrap);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (taking, wrap) = (Arc::clone(&taking), Arc::clone(&wrap));
                // A client that dies in the middle of a post is no fault of the collector's, nor is one that hangs up on
                // a certificate.
                thread::spawn(move || serve(wrap(stream.unwrap()), &taking).ok());
            }
        });
        Self { address, kept }
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1/logs", self.address)
    }

    pub fn feel(&self, mood: Mood) {
        self.kept.lock().unwrap().mood = mood;
    }

    /// What it has answered for.
    pub fn records(&self) -> Vec<LogRecord> {
        self.kept.lock().unwrap().records.clone()
    }

    /// The lines in them.
    pub fn lines(&self) -> Vec<String> {
        self.records().iter().map(|record| said(record.body.clone().unwrap().value)).collect()
    }

    pub fn resource(&self, name: &str) -> String {
        attribute(&self.kept.lock().unwrap().resource, name)
    }

    pub fn heads(&self) -> Vec<String> {
        self.kept.lock().unwrap().heads.clone()
    }
}

pub fn attribute(of: &[KeyValue], name: &str) -> String {
    let found = of.iter().find(|one| one.key == name);
    found.map(|one| said(one.value.clone().unwrap().value)).unwrap_or_default()
}

fn said(value: Option<Value>) -> String {
    match value.unwrap() {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn serve(stream: impl Read + Write, kept: &Mutex<Kept>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let head = head.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().trim();
        let mut body = vec![0; length.parse().unwrap()];
        reader.read_exact(&mut body)?;
        let request = ExportLogsServiceRequest::decode(&*body).unwrap();
        let mood = kept.lock().unwrap().mood;
        let mut answer = ExportLogsServiceResponse::default();
        let status = match mood {
            Mood::Away => return Ok(()),
            Mood::Silent => {
                // Until the other side gives up.
                reader.read_to_end(&mut body)?;
                return Ok(());
            }
            Mood::Status(status) => status,
            Mood::Part(refused) => {
                let why = "too long".to_owned();
                answer.partial_success =
                    Some(ExportLogsPartialSuccess { rejected_log_records: refused, error_message: why });
                200
            }
            Mood::Well => {
                let mut kept = kept.lock().unwrap();
                kept.heads.push(head);
                for logs in request.resource_logs {
                    kept.resource = logs.resource.unwrap().attributes;
                    kept.records.extend(logs.scope_logs.into_iter().flat_map(|scope| scope.log_records));
                }
                200
            }
        };
        let answer = answer.encode_to_vec();
        let head = format!("HTTP/1.1 {status} Told\r\ncontent-length: {}\r\n\r\n", answer.len());
        reader.get_mut().write_all(&[head.as_bytes(), &answer].concat())?;
    }
}
