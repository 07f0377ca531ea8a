//! A collector: takes spans over OTLP (HTTP, protobuf), reads them with OpenTelemetry's own types, and keeps them.
//!
//! It can go away and come back on the same port, and it can fall silent.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value, trace::v1::Span,
};
use prost::Message;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// One span, ids in hex, attributes as text.
#[derive(Clone, Debug)]
pub struct Told {
    pub name: String,
    pub trace: String,
    pub id: String,
    pub parent: String,
    /// 2: server, 3: client.
    pub kind: i32,
    pub failed: bool,
    pub ended_after_begun: bool,
    pub attributes: BTreeMap<String, String>,
}

impl Told {
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

pub struct Collector {
    pub address: SocketAddr,
    spans: Arc<Mutex<Vec<Told>>>,
    /// Heads of exports, in lower case.
    heads: Arc<Mutex<Vec<String>>>,
    mood: Arc<Mood>,
}

/// How it treats exports.
#[derive(Default)]
struct Mood {
    /// Breaks off.
    away: AtomicBool,
    /// Reads, and never answers.
    silent: AtomicBool,
    /// Spans that were read and will never be answered for.
    unanswered: AtomicUsize,
}

impl Collector {
    pub fn start() -> Self {
        Self::listening(|stream| stream)
    }

    /// Speaks TLS.
    #[allow(dead_code, reason = "each test binary uses its own part")]
    pub fn secure(config: ServerConfig) -> Self {
        let config = Arc::new(config);
        Self::listening(move |stream| StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream))
    }

    fn listening<S: Read + Write + Send>(wrap: impl Fn(TcpStream) -> S + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let collector = Self {
            address: listener.local_addr().unwrap(),
            spans: Arc::default(),
            heads: Arc::default(),
            mood: Arc::default(),
        };
        let (spans, heads, mood) =
            (Arc::clone(&collector.spans), Arc::clone(&collector.heads), Arc::clone(&collector.mood));
        let wrap = Arc::new(wrap);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let wrap = Arc::clone(&wrap);
                let (spans, heads, mood) = (Arc::clone(&spans), Arc::clone(&heads), Arc::clone(&mood));
                thread::spawn(move || serve(wrap(stream.unwrap()), &spans, &heads, &mood));
            }
        });
        collector
    }

    /// The section of a configuration whose spans come here.
    pub fn section(&self, ratio: &str) -> String {
        format!("[tracing]\nendpoint = \"http://{}/v1/traces\"\nsample_ratio = {ratio}\n", self.address)
    }

    /// From now on connections break off unanswered, or no more.
    pub fn go_away(&self, away: bool) {
        self.mood.away.store(away, Ordering::SeqCst);
    }

    /// From now on exports are read and never answered, or no more.
    pub fn fall_silent(&self, silent: bool) {
        self.mood.silent.store(silent, Ordering::SeqCst);
    }

    /// Spans that were read and will never be answered for.
    pub fn unanswered(&self) -> usize {
        self.mood.unanswered.load(Ordering::SeqCst)
    }

    pub fn spans(&self) -> Vec<Told> {
        self.spans.lock().unwrap().clone()
    }

    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// Waits until there are spans of which this is true.
    pub fn wait(&self, what: &str, enough: impl Fn(&[Told]) -> bool) -> Vec<Told> {
        let patience = Instant::now() + Duration::from_secs(30);
        loop {
            let spans = self.spans();
            if enough(&spans) {
                return spans;
            }
            assert!(Instant::now() < patience, "{what}: {spans:#?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn serve(stream: impl Read + Write, spans: &Mutex<Vec<Told>>, heads: &Mutex<Vec<String>>, mood: &Mood) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let head = head.to_lowercase();
        let mut body = body(&head, &mut reader);
        if mood.away.load(Ordering::SeqCst) {
            return;
        }
        let request = ExportTraceServiceRequest::decode(&*body).unwrap();
        let told: Vec<_> = request
            .resource_spans
            .into_iter()
            .flat_map(|resource| resource.scope_spans)
            .flat_map(|scope| scope.spans)
            .collect();
        if mood.silent.load(Ordering::SeqCst) {
            mood.unanswered.fetch_add(told.len(), Ordering::SeqCst);
            // Until the other side gives up.
            reader.read_to_end(&mut body).ok();
            return;
        }
        heads.lock().unwrap().push(head);
        spans.lock().unwrap().extend(told.into_iter().map(read));
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    }
}

/// By its length, or in chunks: whoever exports may choose.
fn body(head: &str, reader: &mut impl BufRead) -> Vec<u8> {
    let mut body = Vec::new();
    let mut take = |reader: &mut dyn BufRead, length: usize| {
        let at = body.len();
        body.resize(at + length, 0);
        reader.read_exact(&mut body[at..]).unwrap();
    };
    if let Some(length) = head.lines().find_map(|line| line.strip_prefix("content-length: ")) {
        take(reader, length.trim().parse().unwrap());
        return body;
    }
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let length = usize::from_str_radix(line.trim(), 16).unwrap();
        take(reader, length);
        reader.read_line(&mut line).unwrap();
        if length == 0 {
            return body;
        }
    }
}

fn read(span: Span) -> Told {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let text = |value: Value| match value {
        Value::StringValue(text) => text,
        other => format!("{other:?}"),
    };
    Told {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        kind: span.kind,
        failed: span.status.is_some_and(|status| status.code == 2),
        ended_after_begun: span.end_time_unix_nano >= span.start_time_unix_nano && span.start_time_unix_nano > 0,
        attributes: span.attributes.into_iter().map(|one| (one.key, text(one.value.unwrap().value.unwrap()))).collect(),
        name: span.name,
    }
}
