//! Services of the older generation, as far as the connector asks them, over rows that the test wrote.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};

/// What one tenant's services hold, in their own words.
#[derive(Clone, Debug, Default)]
pub struct Held {
    pub registry: Value,
    pub dashboard: Value,
    /// Newest first.
    pub invoices: Vec<Value>,
    pub tickets: Vec<Value>,
    pub breaches: Vec<Value>,
    /// Day, bytes, active subscribers.
    pub traffic: Vec<(String, i64)>,
    pub subscribers_online: i64,
    /// One row a day.
    pub compliance: Vec<Value>,
}

/// How a service misbehaves.
#[derive(Clone, Debug)]
pub enum Chaos {
    Slow(Duration),
    Status(u16),
    Garbage,
    Huge,
    Closes,
    /// 200 with an empty list.
    Zeros,
    Redirects,
    /// So, and only for queries that hold this.
    Where(&'static str, Box<Chaos>),
}

#[derive(Clone)]
pub struct Service {
    pub address: SocketAddr,
    held: Arc<BTreeMap<String, Held>>,
    chaos: Arc<Mutex<HashMap<(String, &'static str), Chaos>>>,
    /// Requests of a tenant for a kind of data.
    asked: Arc<Mutex<HashMap<(String, &'static str), usize>>>,
    pub latency: Arc<AtomicUsize>,
    under_way: Arc<AtomicUsize>,
    /// Most requests that were here at once.
    pub most_under_way: Arc<AtomicUsize>,
    /// Slow answers that nobody waited for.
    pub abandoned: Arc<AtomicUsize>,
    /// The headers of every request.
    heads: Arc<Mutex<Vec<Head>>>,
    /// Credentials and assertions that came, as they stood in their headers.
    pub credentials: Arc<Mutex<BTreeSet<String>>>,
}

/// The headers of one request, by their lower-case names.
pub type Head = HashMap<String, String>;

impl Service {
    pub fn start(held: BTreeMap<String, Held>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let service = Self {
            address: listener.local_addr().unwrap(),
            held: Arc::new(held),
            chaos: Arc::default(),
            asked: Arc::default(),
            latency: Arc::default(),
            under_way: Arc::default(),
            most_under_way: Arc::default(),
            abandoned: Arc::default(),
            heads: Arc::default(),
            credentials: Arc::default(),
        };
        let shared = service.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                thread::spawn(move || shared.serve(stream));
            }
        });
        service
    }

    pub fn misbehave(&self, tenant: &str, kind: &'static str, chaos: Option<Chaos>) {
        let mut all = self.chaos.lock().unwrap();
        match chaos {
            Some(chaos) => all.insert((tenant.to_owned(), kind), chaos),
            None => all.remove(&(tenant.to_owned(), kind)),
        };
    }

    pub fn asked(&self, tenant: &str, kind: &'static str) -> usize {
        self.asked.lock().unwrap().get(&(tenant.to_owned(), kind)).copied().unwrap_or(0)
    }

    /// The headers of the requests since the last call.
    pub fn take_heads(&self) -> Vec<Head> {
        std::mem::take(&mut self.heads.lock().unwrap())
    }

    pub fn asked_in_all(&self) -> usize {
        self.asked.lock().unwrap().values().sum()
    }

    fn serve(&self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut writer = stream;
        while let Some((method, target, headers)) = request(&mut reader) {
            for name in ["authorization", "x-linkgate-assertion"] {
                if let Some(value) = headers.get(name) {
                    self.credentials.lock().unwrap().insert(value.clone());
                }
            }
            let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_under_way.fetch_max(under_way, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(self.latency.load(Ordering::SeqCst) as u64));
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            let (kind, tenant) = match path.strip_prefix("/api/platform/v1/tenants/") {
                Some(id) => ("registry", decode(id)),
                None => (kind(&method, path), headers.get("x-tenant-id").map(|id| decode(id)).unwrap_or_default()),
            };
            *self.asked.lock().unwrap().entry((tenant.clone(), kind)).or_default() += 1;
            self.heads.lock().unwrap().push(headers.clone());
            let chaos = match self.chaos.lock().unwrap().get(&(tenant.clone(), kind)).cloned() {
                Some(Chaos::Where(held, chaos)) => query.contains(held).then_some(*chaos),
                chaos => chaos,
            };
            let body = self.held.get(&tenant).and_then(|held| answer(kind, held, query));
            let plain = |status: u16, body: &[u8]| {
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                [head.as_bytes(), body].concat()
            };
            let bytes = match chaos {
                Some(Chaos::Closes) => return,
                Some(Chaos::Status(status)) => plain(status, br#"{"detail": "secret-of-the-service"}"#),
                Some(Chaos::Garbage) => plain(200, b"{\"invoices\": [{\"invoice_id\": 1"),
                Some(Chaos::Huge) => plain(200, &vec![b' '; 40 * 1024 * 1024]),
                Some(Chaos::Zeros) => plain(200, br#"{"invoices": [], "total_count": 0, "has_more": false}"#),
                Some(Chaos::Redirects) => {
                    b"HTTP/1.1 307 X\r\nlocation: http://127.0.0.1:9/elsewhere\r\ncontent-length: 0\r\n\r\n".to_vec()
                }
                Some(Chaos::Where(..)) => unreachable!("taken apart above"),
                Some(Chaos::Slow(time)) => {
                    thread::sleep(time);
                    writer.set_nonblocking(true).unwrap();
                    if matches!(writer.peek(&mut [0]), Ok(0)) {
                        self.abandoned.fetch_add(1, Ordering::SeqCst);
                    }
                    writer.set_nonblocking(false).unwrap();
                    plain(200, b"{}")
                }
                None => match body {
                    Some(body) => plain(200, body.to_string().as_bytes()),
                    None => plain(404, br#"{"detail": "Not Found"}"#),
                },
            };
            if writer.write_all(&bytes).is_err() {
                return;
            }
        }
    }
}

fn kind(method: &str, path: &str) -> &'static str {
    match path {
        "/api/isp/v1/tickets/" if method == "POST" => "new_ticket",
        "/api/isp/v1/metrics/dashboard" => "metrics",
        "/api/isp/v1/subscribers/subscribers" => "subscribers",
        "/api/isp/v1/billing/invoices" => "invoices",
        "/api/isp/v1/tickets/" => "tickets",
        "/api/isp/v1/radius/analytics/tenant/usage" => "usage",
        "/api/isp/v1/faults/sla/compliance" => "compliance",
        "/api/isp/v1/faults/sla-breaches" => "breaches",
        _ => "unknown",
    }
}

fn answer(kind: &str, held: &Held, query: &str) -> Option<Value> {
    let query: HashMap<String, String> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.into(), decode(value)))
        .collect();
    let day = |name: &str| query.get(name).map(|text| text[..10].to_owned());
    let same = |row: &Value, name: &str| query.get(name).is_none_or(|wanted| row[name] == **wanted);
    match kind {
        "registry" => Some(held.registry.clone()),
        "metrics" => Some(held.dashboard.clone()),
        "subscribers" => Some(json!({"items": [], "total": held.dashboard["subscriber_metrics"]["total"]})),
        "invoices" => {
            let within = |row: &&Value| {
                let issued = &row["issue_date"].as_str().unwrap()[..10];
                same(row, "status")
                    && day("start_date").is_none_or(|from| issued >= &*from)
                    && day("end_date").is_none_or(|to| issued <= &*to)
            };
            let number = |name: &str, default: usize| query.get(name).map_or(default, |text| text.parse().unwrap());
            let (limit, offset) = (number("limit", 100), number("offset", 0));
            let rows: Vec<&Value> = held.invoices.iter().filter(within).collect();
            let page: Vec<&Value> = rows.iter().skip(offset).take(limit).copied().collect();
            Some(json!({"total_count": page.len(), "has_more": rows.len() > offset + limit, "invoices": page}))
        }
        "tickets" => {
            let rows = held.tickets.iter().filter(|row| same(row, "status") && same(row, "priority"));
            Some(rows.cloned().collect::<Vec<_>>().into())
        }
        // What it holds is of no matter: who opens one looks at the answer's being there.
        "new_ticket" => {
            let mut row = held.tickets.first()?.clone();
            row["resolution_time_minutes"] = Value::Null;
            row["messages"] = json!([]);
            Some(row)
        }
        "usage" => {
            let (from, to) = (query.get("start_date")?.clone(), query.get("end_date")?.clone());
            let rows = held.traffic.iter().filter(|(day, _)| {
                let at = format!("{day}T00:00:00Z");
                from <= at && at < to
            });
            let bytes: i64 = rows.map(|(_, bytes)| bytes).sum();
            Some(json!({
                "tenant_id": held.registry["id"], "total_bandwidth_bytes": bytes, "total_bandwidth_gb": 0.0,
                "session_count": 3, "unique_subscribers": held.subscribers_online,
            }))
        }
        "compliance" => {
            let (from, to) = (day("from_date")?, day("to_date")?);
            let rows = held.compliance.iter().filter(|row| {
                let date = row["date"].as_str().unwrap();
                *from <= *date && *date <= *to
            });
            Some(rows.cloned().collect::<Vec<_>>().into())
        }
        "breaches" => Some(held.breaches.clone().into()),
        _ => None,
    }
}

/// Method, target, fields by their lower-case names.
fn request(reader: &mut impl BufRead) -> Option<(String, String, Head)> {
    let line_of = line(reader)?;
    let (method, rest) = line_of.split_once(' ')?;
    let (method, target) = (method.to_owned(), rest.split(' ').next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let field = line(reader)?;
        if field.is_empty() {
            break;
        }
        let (name, value) = field.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    if let Some(length) = headers.get("content-length") {
        reader.take(length.parse().ok()?).read_to_end(&mut Vec::new()).ok()?;
    }
    Some((method, target, headers))
}

fn line(reader: &mut impl BufRead) -> Option<String> {
    let mut bytes = Vec::new();
    reader.read_until(b'\n', &mut bytes).ok()?;
    Some(String::from_utf8_lossy(bytes.strip_suffix(b"\r\n")?).into_owned())
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex: String = [rest.next().unwrap(), rest.next().unwrap()].iter().map(|byte| *byte as char).collect();
            bytes.push(u8::from_str_radix(&hex, 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}
