//! The database is away: cross-tenant requests are refused, home goes on, and the index catches up later.

use std::{
    net::SocketAddr,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use linkgate::{
    config::settings::DatabaseSettings,
    domain::{Millis, Secret},
};

use crate::{
    client::{Connection, Request},
    gateway::{Gateway, House, POSTGRES, Setup, eventually, folder},
    ledger::Ledger,
    load::{Due, Load, Mix, Told, reconcile},
    postgres_support::{PostgresDatabase, server},
    relay::Relay,
};

/// The gateway's own database files, moved out of the way and back.
struct Moved {
    from: PathBuf,
    to: PathBuf,
}

const FILES: [&str; 2] = ["linkgate.db", "audit-index.db"];

impl Moved {
    fn away(house: &House) -> Self {
        let (from, to) = (house.dir.path().to_owned(), house.dir.path().join("away"));
        std::fs::create_dir(&to).unwrap();
        let moved = Self { from, to };
        moved.all(&moved.from, &moved.to);
        moved
    }

    fn all(&self, from: &std::path::Path, to: &std::path::Path) {
        for file in FILES {
            for suffix in ["", "-wal", "-shm"] {
                let name = format!("{file}{suffix}");
                if from.join(&name).exists() {
                    std::fs::rename(from.join(&name), to.join(&name)).unwrap();
                }
            }
        }
    }

    fn back(&self) {
        for file in FILES {
            assert!(!self.from.join(file).exists(), "`{file}` was made anew while the database was away");
        }
        self.all(&self.to, &self.from);
    }
}

/// Load goes on while the database goes and comes back.
fn away_and_back(house: &House, gateway: &Gateway, leave: impl FnOnce(), come_back: impl FnOnce()) {
    let (one, two) = (house.token1(), house.token2());
    let ask = |request: Request| gateway.ask(&request).status;
    let cross = || ask(Request::get("/api/invoices").bearer(&one).tenant("t-full"));
    let home = || ask(Request::get("/own").bearer(&one));
    assert_eq!((cross(), home()), (200, 200));
    // Known before, so that home may go on with it.
    assert_eq!(ask(Request::get("/own").bearer(&two)), 200);
    let load = Load::start(&Mix::of(house), gateway.public, 6);
    load.until(100);
    leave();
    let since = Instant::now();
    eventually("stale links refuse", || {
        let (began, status) = (since.elapsed(), cross());
        // The bound is 1 s; the moment of the start counts, however slow the machine is.
        assert!(status != 200 || began < Duration::from_millis(1300), "allowed after {began:?}");
        status == 503
    });
    let refused = gateway.ask(&Request::get("/api/invoices").bearer(&one).tenant("t-full"));
    assert_eq!(refused.error(), "LINKS_STALE");
    assert_ne!(refused.header("x-decision-id"), "", "a refusal that names a tenant is recorded");
    assert_eq!(home(), 200);
    let (status, wrong) = gateway.ready();
    assert_eq!((status, &*wrong[0].0), (503, "database"), "{wrong:?}");
    let before = load.answers.load(std::sync::atomic::Ordering::SeqCst);
    load.until(before + 200);
    come_back();
    eventually("cross-tenant requests go on by themselves", || cross() == 200);
    let after = load.answers.load(std::sync::atomic::Ordering::SeqCst);
    load.until(after + 100);
    let told = load.stop();
    assert!(told.iter().any(|one| one.code == "LINKS_STALE"));
    assert!(told.iter().any(|one| one.due == Due::Allowed && one.status == 200));
    eventually("it is ready again", || gateway.ready().0 == 200);
    settled(house, &told);
}

/// The journal holds all that was told, and the index the same.
fn settled(house: &House, told: &[Told]) {
    let mut ledger = Ledger::new(house.journal());
    eventually("all records are completed", || {
        ledger.read();
        ledger.records.values().all(|entry| entry.completion.is_some())
    });
    reconcile(house, &ledger, told, 0);
    // A download that is cut ends its connection, before its head got out or after; what is sent on it then never arrives.
    for one in told.iter().filter(|one| one.status == 0) {
        for (_, entry) in ledger.by_request(&one.request_id) {
            let end = entry.completion.as_ref().unwrap();
            assert_eq!((end.aborted, &*end.reason), (true, "links_stale"), "{one:?}");
        }
    }
    ledger.agrees_with_index(house, Millis(0), 0);
    ledger.verify(house);
}

#[test]
fn sqlite_away() {
    let house = House::new();
    let gateway = house.start(&Setup::default());
    let moved = std::cell::OnceCell::new();
    away_and_back(&house, &gateway, || assert!(moved.set(Moved::away(&house)).is_ok()), || moved.get().unwrap().back());
}

/// A token that nobody has seen yet cannot be resolved while the database is away; naming a tenant, it is recorded.
#[test]
fn a_stranger_is_refused_on_the_record_while_the_database_is_away() {
    let house = House::new();
    let gateway = house.start(&Setup::default());
    let moved = Moved::away(&house);
    eventually("stale links refuse", || gateway.ready().0 == 503);
    let request = Request::get("/api/invoices").bearer(&house.token2()).tenant("t-other");
    let answer = gateway.ask(&request.header("X-Request-ID", "stranger"));
    assert_eq!(answer.error(), "LINKS_STALE");
    // Many at once, at home and away, so that the pools of connections grow: none may make a database of its own.
    let strangers: Vec<_> = (0..16)
        .map(|number| {
            let (token, to) = (house.token(&format!("stranger-{number}"), "home-1"), gateway.public);
            let request = Request::get("/own").bearer(&token);
            let home = number % 2 == 0;
            let request = if home { request } else { request.tenant("t-other") };
            thread::spawn(move || (home, request.send(to).status))
        })
        .collect();
    for stranger in strangers {
        let (home, status) = stranger.join().unwrap();
        assert!(status == 503 || home, "a cross-tenant request was answered {status}");
    }
    let ledger = Ledger::fresh(house.journal());
    let found = ledger.by_request("stranger");
    assert_eq!((found.len(), answer.header("x-decision-id")), (1, &**found[0].0));
    moved.back();
}

/// A server of its own for Postgres, reached through a relay that can be frozen.
pub fn on_postgres() -> (House, Relay, PostgresDatabase) {
    on_server(&server())
}

pub fn on_server(server: &str) -> (House, Relay, PostgresDatabase) {
    let made = PostgresDatabase::make(server);
    let address: SocketAddr = server.split('@').nth(1).unwrap().split('/').next().unwrap().parse().unwrap();
    let relay = Relay::start(address);
    let through = made.url.replace(&address.to_string(), &relay.address.to_string());
    let settings = DatabaseSettings::Postgres { url: Secret::new(made.url.clone().into_bytes()), max_connections: 4 };
    let section = format!("postgres_url_env = \"{POSTGRES}\"");
    let house = House::over(folder(), &settings, &section, vec![(POSTGRES, through.into())]);
    (house, relay, made)
}

#[test]
fn postgres_hangs_and_comes_back() {
    let (house, relay, _made) = on_postgres();
    let gateway = house.start(&Setup::default());
    away_and_back(&house, &gateway, || relay.freeze(true), || relay.freeze(false));
}

#[test]
fn an_open_stream_of_a_stale_link_is_cut_and_recorded_so() {
    let house = House::new();
    let gateway = house.start(&Setup::default());
    let mut stream = Connection::open(gateway.public);
    let request = Request::get("/t/sse").bearer(&house.token1()).tenant("t-full").header("X-Request-ID", "stream");
    stream.write(&request.bytes());
    assert_eq!(stream.head().status, 200);
    let moved = Moved::away(&house);
    stream.drain();
    let mut entry = None;
    eventually("the record says so", || {
        entry =
            Ledger::fresh(house.journal()).by_request("stream").pop().and_then(|(_, entry)| entry.completion.clone());
        entry.is_some()
    });
    let completion = entry.unwrap();
    assert_eq!((completion.aborted, &*completion.reason), (true, "links_stale"));
    thread::sleep(Duration::from_millis(50));
    moved.back();
}
