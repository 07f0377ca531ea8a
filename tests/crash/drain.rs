//! SIGTERM: what is open finishes, nothing new begins, and what outlives the deadline is cut and recorded so.

use std::{
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use sqlx::{Connection as _, Executor, SqliteConnection};

use crate::{
    client::{Connection, Request},
    database::on_postgres,
    gateway::{Gateway, House, PATIENCE, Setup, eventually},
    ledger::{Entry, Ledger},
    load::{Load, Mix, reconcile},
};

fn drain_within(timeout: &str) -> Setup {
    Setup { listen: format!("drain_timeout = \"{timeout}\"\n"), ..Setup::default() }
}

/// A request sent and not waited for.
fn send(gateway: &Gateway, request: &Request) -> Connection {
    let mut connection = Connection::open(gateway.public);
    connection.write(&request.bytes());
    connection
}

fn one(ledger: &Ledger, request_id: &str) -> Entry {
    let found = ledger.by_request(request_id);
    assert_eq!(found.len(), 1, "{request_id}: {found:?}");
    found[0].1.clone()
}

/// The end of a drained gateway: by itself, with code 0, and with nothing left for a recovery.
fn ended(house: &House, gateway: Gateway, patience: Duration) -> Ledger {
    assert_eq!(gateway.ended(patience), Some(0), "{}", house.log_text());
    let mut ledger = Ledger::new(house.journal());
    ledger.read();
    let open: Vec<_> = ledger.records.values().filter(|entry| entry.completion.is_none()).collect();
    assert!(open.is_empty(), "left open: {open:?}");
    assert_eq!(ledger.recoveries, 0);
    assert_eq!(ledger.verify(house).open_records, 0);
    let indexed = house.indexed(ledger.chain()).map(|head| head.seq);
    assert_eq!(indexed, Some(ledger.last_seq), "who asks the index after a stop misses the last records");
    ledger
}

/// Whoever copies the database after a stop has all that is in it: SQLite took its logs into the files.
#[test]
fn a_stop_leaves_no_log_beside_the_database() {
    let house = House::new();
    // What the test itself has open would keep them.
    house.block_on(house.database.close());
    let gateway = house.start(&drain_within("1s"));
    let asked = Request::get("/api/invoices").bearer(&house.token1()).tenant("t-full");
    assert_eq!(gateway.ask(&asked).status, 200);
    // So much that taking it into the file takes its time.
    let url = format!("sqlite://{}", house.dir.path().join("linkgate.db").display());
    house.block_on(async {
        let mut conn = SqliteConnection::connect(&url).await.unwrap();
        conn.execute("PRAGMA wal_autocheckpoint = 0; CREATE TABLE filler (x)").await.unwrap();
        conn.execute("INSERT INTO filler VALUES (zeroblob(50000000))").await.unwrap();
        conn.close().await.unwrap();
    });
    gateway.terminate();
    assert_eq!(gateway.ended(Duration::from_secs(20)), Some(0), "{}", house.log_text());
    for beside in ["linkgate.db-wal", "linkgate.db-shm", "audit-index.db-wal", "audit-index.db-shm"] {
        assert!(!house.dir.path().join(beside).exists(), "{beside} is left");
    }
}

#[test]
fn open_requests_finish_and_new_connections_are_refused() {
    let house = House::new();
    let gateway = house.start(&drain_within("30s"));
    let token = house.token1();
    let ask = |path: &str, id: &str| Request::get(path).bearer(&token).tenant("t-full").header("X-Request-ID", id);
    let mut slow = send(&gateway, &ask("/t/slow/3000", "slow"));
    let mut download = send(&gateway, &ask("/t/download/30000000", "download"));
    assert_eq!(download.head().status, 200);
    // Neither may hold up the end: one that never said a word, one that waits between two requests.
    let silent = TcpStream::connect(gateway.public).unwrap();
    let mut idle = send(&gateway, &ask("/own", "idle").tenant("home-1"));
    idle.answer();
    eventually("the upstream works on both", || house.upstream.count() >= 2);
    gateway.terminate();
    let since = Instant::now();
    eventually("new connections are refused", || TcpStream::connect(gateway.public).is_err());
    assert!(since.elapsed() < Duration::from_millis(2500), "{:?}", since.elapsed());
    assert!(idle.read_some().is_empty(), "an idle connection is closed");
    let answer = slow.answer();
    assert_eq!((answer.status, answer.text()), (200, "slow".into()));
    assert_eq!(download.drain(), 30_000_000);
    let ledger = ended(&house, gateway, Duration::from_secs(20));
    for id in ["slow", "download"] {
        let completion = one(&ledger, id).completion.unwrap();
        assert_eq!((completion.aborted, completion.status), (false, Some(200)), "{id}");
    }
    drop(silent);
}

#[test]
fn what_outlives_the_deadline_is_cut_and_recorded_as_aborted() {
    let house = House::new();
    let gateway = house.start(&drain_within("700ms"));
    let token = house.token1();
    let ask = |method: &str, path: &str, id: &str| {
        Request::new(method, path).bearer(&token).tenant("t-full").header("X-Request-ID", id)
    };
    let mut events = send(&gateway, &ask("GET", "/t/sse", "events"));
    assert_eq!(events.head().status, 200);
    let mut slow = send(&gateway, &ask("GET", "/t/slow/60000", "slow"));
    let mut upload = send(&gateway, &ask("POST", "/t/upload", "upload").header("Content-Length", "1000"));
    eventually("all are under way", || {
        house.upstream.count() >= 2 && !Ledger::fresh(house.journal()).by_request("upload").is_empty()
    });
    gateway.terminate();
    let ledger = ended(&house, gateway, Duration::from_secs(15));
    for id in ["events", "slow", "upload"] {
        let entry = one(&ledger, id);
        let completion = entry.completion.unwrap();
        assert_eq!(
            (&*entry.decision, completion.aborted, &*completion.reason),
            ("allow", true, "gateway_stopped"),
            "{id}"
        );
    }
    events.drain();
    assert_eq!(slow.answer().status, 0);
    assert_eq!(upload.answer().status, 0);
}

/// A tunnel has left the server of its connection, and is an open connection all the same.
#[test]
fn a_tunnel_goes_on_until_the_deadline() {
    let house = House::new();
    let gateway = house.start(&drain_within("2500ms"));
    let mut socket = send(&gateway, &websocket(&house).header("X-Request-ID", "socket"));
    assert_eq!(socket.head().status, 101);
    let connections = || {
        let metrics = Request::get("/metrics").send(gateway.health).text();
        let line = metrics.lines().find(|line| line.starts_with("linkgate_connections ")).unwrap().to_owned();
        line.split(' ').nth(1).unwrap().parse::<u32>().unwrap()
    };
    thread::sleep(Duration::from_millis(100));
    assert_eq!(connections(), 1);
    gateway.terminate();
    for _ in 0..4 {
        thread::sleep(Duration::from_millis(100));
        socket.write(b"still there");
        assert_eq!(socket.read_some(), b"still there");
    }
    let ledger = ended(&house, gateway, Duration::from_secs(15));
    let completion = one(&ledger, "socket").completion.unwrap();
    assert_eq!((completion.aborted, &*completion.reason), (true, "gateway_stopped"));
    assert!(socket.read_some().is_empty());
}

fn websocket(house: &House) -> Request {
    Request::get("/t/ws")
        .bearer(&house.token1())
        .tenant("t-full")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
}

#[test]
fn nothing_is_lost_when_it_stops_under_load() {
    let house = House::new();
    let gateway = house.start(&drain_within("10s"));
    let load = Load::start(&Mix::of(&house), gateway.public, 8);
    load.until(300);
    gateway.terminate();
    let ledger = ended(&house, gateway, PATIENCE);
    let told = load.stop();
    reconcile(&house, &ledger, &told, 0);
    let aborted: Vec<_> = ledger.records.values().filter(|entry| entry.completion.as_ref().unwrap().aborted).collect();
    assert!(aborted.is_empty(), "{aborted:?}");
    for one in told.iter().filter(|one| one.status == 0) {
        assert!(ledger.by_request(&one.request_id).is_empty(), "done, and never answered: {one:?}");
    }
}

#[test]
fn a_client_that_reads_nothing_cannot_hold_up_the_end() {
    let house = House::new();
    let gateway = house.start(&drain_within("300ms"));
    let request = Request::get("/t/download/200000000").bearer(&house.token1()).tenant("t-full");
    let stuck = send(&gateway, &request.header("X-Request-ID", "stuck"));
    eventually("the download runs", || house.upstream.count() == 1);
    gateway.terminate();
    let ledger = ended(&house, gateway, Duration::from_secs(15));
    assert!(one(&ledger, "stuck").completion.unwrap().aborted);
    drop(stuck);
}

/// Whatever waits for the database gives up, each in its time; the journal is whole without it.
#[test]
fn a_database_that_hangs_keeps_no_process_from_ending() {
    let (house, relay, _made) = on_postgres();
    let gateway = house.start(&drain_within("1s"));
    let ask = || Request::get("/t/a").bearer(&house.token1()).tenant("t-full").send(gateway.public).status;
    assert_eq!(ask(), 200);
    relay.freeze(true);
    // Long enough for questions to be under way that nobody answers.
    eventually("the links are stale", || ask() == 503);
    gateway.terminate();
    assert_eq!(gateway.ended(PATIENCE), Some(0), "{}", house.log_text());
    relay.freeze(false);
    assert!(house.log_text().contains("the database does not answer"), "{}", house.log_text());
    let mut ledger = Ledger::new(house.journal());
    ledger.read();
    assert!(ledger.records.values().all(|entry| entry.completion.is_some()));
    assert_eq!(ledger.recoveries, 0);
}
