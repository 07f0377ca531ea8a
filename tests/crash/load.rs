//! Many clients at once on keep-alive connections, and a note of everything that they were told.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    client::{Connection, Request},
    gateway::{House, eventually},
    ledger::Ledger,
};

/// What becomes of a request that is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Allowed,
    Refused,
    /// Refused before the caller is known: no record.
    Unrecorded,
}

/// One request as its client saw it end.
#[derive(Clone, Debug)]
pub struct Told {
    pub request_id: String,
    pub due: Due,
    /// 0: no answer came.
    pub status: u16,
    /// `X-Decision-Id`.
    pub decision_id: String,
    pub code: String,
    /// Which request of the mix it was.
    pub shape: usize,
    /// Before its first byte was written.
    pub sent: Instant,
    /// Once its answer, or the end of the connection, was read.
    pub answered: Instant,
}

/// The mix: each shape of request with what is due to it.
#[derive(Clone)]
pub struct Mix {
    shapes: Vec<(Request, Due)>,
    /// Of each client, before a request.
    pause: Duration,
}

impl Mix {
    pub fn new(shapes: Vec<(Request, Due)>, pause: Duration) -> Self {
        Self { shapes, pause }
    }

    pub fn of(house: &House) -> Self {
        let (one, two) = (house.token1(), house.token2());
        let post = |tenant: &str| Request::new("POST", "/api/invoices").tenant(tenant).bearer(&one).json("{}");
        let get = |path: &str, tenant: &str| Request::get(path).tenant(tenant).bearer(&one);
        let shapes = vec![
            (get("/api/invoices", "t-full"), Due::Allowed),
            (post("t-full"), Due::Allowed),
            (get("/api/invoices", "t-unlinked"), Due::Refused),
            (get("/t/slow/15", "t-full"), Due::Allowed),
            (post("t-auditor"), Due::Refused),
            (Request::get("/own").bearer(&one), Due::Allowed),
            (Request::get("/api/invoices").tenant("t-other").bearer(&two), Due::Allowed),
            (Request::get("/api/invoices").tenant("t-other").bearer(&one), Due::Refused),
            (Request::get("/api/invoices").tenant("t-full").bearer("forged"), Due::Unrecorded),
            (get("/dead", "t-auditor"), Due::Allowed),
            (get("/t/download/20000", "t-full"), Due::Allowed),
        ];
        Self::new(shapes, Duration::ZERO)
    }
}

/// Clients at work until stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    pub answers: Arc<AtomicUsize>,
    clients: Vec<thread::JoinHandle<Vec<Told>>>,
}

/// Marks all request ids of one load.
static LOADS: AtomicUsize = AtomicUsize::new(0);

impl Load {
    pub fn start(mix: &Mix, to: SocketAddr, clients: usize) -> Self {
        Self::follow(mix, &Arc::new(Mutex::new(to)), clients)
    }

    /// The address is looked up for each new connection: a gateway that was started again has another.
    pub fn follow(mix: &Mix, to: &Arc<Mutex<SocketAddr>>, clients: usize) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let name = LOADS.fetch_add(1, Ordering::SeqCst);
        let clients = (0..clients)
            .map(|client| {
                let (mix, stop, answers) = (mix.clone(), Arc::clone(&stop), Arc::clone(&answers));
                let to = Arc::clone(to);
                thread::spawn(move || work(&mix, &to, &format!("l{name}-c{client}"), &stop, &answers))
            })
            .collect();
        Self { stop, answers, clients }
    }

    pub fn until(&self, answers: usize) {
        eventually("answers under load", || self.answers.load(Ordering::SeqCst) >= answers);
    }

    /// Ends the clients; each finishes what it waits for.
    pub fn stop(self) -> Vec<Told> {
        self.stop.store(true, Ordering::SeqCst);
        self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    }
}

fn work(mix: &Mix, to: &Mutex<SocketAddr>, name: &str, stop: &AtomicBool, answers: &AtomicUsize) -> Vec<Told> {
    let mut all = Vec::new();
    let mut connection: Option<Connection> = None;
    for count in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let Some(open) = connection.as_mut() else {
            let address = *to.lock().unwrap();
            match TcpStream::connect(address) {
                Ok(stream) => connection = Some(Connection::over(stream)),
                // Killed: the next gateway has another port.
                Err(_) => thread::sleep(Duration::from_millis(2)),
            }
            continue;
        };
        // Each client begins elsewhere in the mix, so that all shapes are under way at any moment.
        let shape = (count + name.len() * 7 + all.len()) % mix.shapes.len();
        let (request, due) = &mix.shapes[shape];
        thread::sleep(mix.pause);
        let told = Told { shape, ..send(open, request, *due, format!("{name}-{count}")) };
        if told.status == 0 {
            connection = None;
        } else {
            answers.fetch_add(1, Ordering::SeqCst);
        }
        all.push(told);
    }
    all
}

fn send(connection: &mut Connection, request: &Request, due: Due, request_id: String) -> Told {
    let request = request.clone().header("X-Request-ID", &request_id);
    let sent = Instant::now();
    let answer = match connection.try_write(&request.bytes()) {
        Ok(()) => connection.answer(),
        Err(_) => crate::client::Answer::default(),
    };
    let code = if answer.status >= 400 && answer.header("content-type") == "application/json" {
        serde_json::from_slice::<serde_json::Value>(&answer.body)
            .map(|body| body["error"]["code"].as_str().unwrap_or_default().to_owned())
            .unwrap_or_default()
    } else {
        String::new()
    };
    let decision_id = answer.header("x-decision-id").to_owned();
    let answered = Instant::now();
    Told { request_id, due, status: answer.status, decision_id, code, shape: 0, sent, answered }
}

/// Holds what clients were told, and what the upstream saw from number `seen` on, against the chain.
pub fn reconcile(house: &House, ledger: &Ledger, told: &[Told], seen: usize) {
    for one in told.iter().filter(|one| one.status != 0) {
        answered(ledger, one);
    }
    for seen in &house.upstream.seen()[seen..] {
        let (id, request) = (seen.one("x-decision-id"), seen.one("x-request-id"));
        let entry =
            ledger.records.get(id).unwrap_or_else(|| panic!("upstream saw {request}, which has no record {id}"));
        assert_eq!((&*entry.request_id, &*entry.decision), (request, "allow"), "{id}");
    }
    let sent: std::collections::HashMap<&str, &Told> = told.iter().map(|one| (&*one.request_id, one)).collect();
    let mut records_of: std::collections::HashMap<&str, usize> = std::collections::HashMap::new();
    for entry in ledger.records.values() {
        *records_of.entry(&entry.request_id).or_default() += 1;
    }
    for (request, one) in sent {
        let records = records_of.get(request).copied().unwrap_or(0);
        match (one.due, one.status, &*one.code) {
            (Due::Unrecorded, ..) => assert_eq!(records, 0, "{one:?}"),
            // Nothing came back: it may have been recorded, but not twice.
            (_, 0, _) => assert!(records <= 1, "{one:?}"),
            (_, 503, "AUDIT_UNAVAILABLE") => assert!(records <= 1, "{one:?}"),
            _ => assert_eq!(records, 1, "{one:?}"),
        }
    }
}

fn answered(ledger: &Ledger, one: &Told) {
    if one.due == Due::Unrecorded {
        assert_eq!(one.decision_id, "", "{one:?}");
        return;
    }
    // What could not be made as durable as promised may stand in the chain all the same: then it is named.
    if one.code == "AUDIT_UNAVAILABLE" && one.decision_id.is_empty() {
        return;
    }
    let entry = ledger.records.get(&one.decision_id).unwrap_or_else(|| panic!("no record of {one:?}"));
    assert_eq!(entry.request_id, one.request_id, "the record of another request");
    if one.code == "AUDIT_UNAVAILABLE" {
        return;
    }
    // What was under way when the links went stale was allowed, and was cut.
    let cut = one.code == "LINKS_STALE"
        && entry.completion.as_ref().is_some_and(|completion| completion.reason == "links_stale");
    let allowed = one.due == Due::Allowed && (one.code != "LINKS_STALE" || (cut && entry.decision == "allow"));
    assert_eq!(entry.decision, if allowed { "allow" } else { "deny" }, "{one:?}: {entry:?}");
    if !allowed {
        assert!(!entry.reason.is_empty(), "a refusal without a reason: {one:?}");
    }
    let Some(completion) = &entry.completion else { return };
    // A refusal is written with its end, in one piece: no crash comes between.
    assert!(allowed || !completion.aborted, "{one:?}: {entry:?}");
    if !completion.aborted {
        assert_eq!(completion.status, Some(u64::from(one.status)), "{one:?}");
    }
}
