//! A restart over a socket that somebody else holds, and a reload: no request fails, none is refused, and the service
//! manager is told.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]
#![allow(unreachable_pub, reason = "one test program; its modules share freely")]

mod cli_support;
#[path = "support/manager.rs"]
mod manager;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use cli_support::{PATIENCE, send};
use manager::{Manager, ask, ended, signal};
use rustix::process::Signal;

/// Clients that ask without a pause until told to stop; what did not go well.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = || {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            thread::spawn(move || {
                let mut failed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match ask(address) {
                        Ok(text) if text.starts_with("HTTP/1.1 200 OK") && text.ends_with("ok") => {}
                        Ok(text) => failed.push(format!("answered `{text}`")),
                        Err(error) => failed.push(error.to_string()),
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                failed
            })
        };
        let clients = (0..8).map(|_| client()).collect();
        Self { stop, answered, clients }
    }

    /// Waits for so many further answers.
    fn go_on(&self, further: usize) {
        let (until, wanted) = (Instant::now() + PATIENCE, self.answered.load(Ordering::Relaxed) + further);
        while self.answered.load(Ordering::Relaxed) < wanted {
            assert!(Instant::now() < until, "the clients stand still");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    }
}

#[test]
fn neither_a_restart_over_a_held_socket_nor_a_reload_fails_a_request() {
    let manager = Manager::new("");
    let mut gateway = manager.start();
    let load = Load::start(manager.address());
    for _ in 0..3 {
        load.go_on(40);
        signal(&gateway, Signal::HUP);
        manager.hears("RELOADING=1");
        manager.hears("READY=1");
        load.go_on(40);
        signal(&gateway, Signal::TERM);
        manager.hears("STOPPING=1");
        let status = ended(gateway);
        assert_eq!(status.code(), Some(0), "{}", manager.log());
        // Nobody accepts now; clients wait in the queue of the socket.
        gateway = manager.start();
        load.go_on(40);
    }
    assert_eq!(load.end(), Vec::<String>::new(), "{}", manager.log());
    signal(&gateway, Signal::TERM);
    assert_eq!(ended(gateway).code(), Some(0));
}

/// Connects, stops the gateway, asks: the answer, and how long after the stop it asked.
fn ask_in_a_drain() -> (String, Duration) {
    let manager = Manager::new("");
    let gateway = manager.start();
    let mut stream = TcpStream::connect(manager.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Served, so the acceptor has had this connection and the one before it.
    assert!(ask(manager.address()).unwrap().starts_with("HTTP/1.1 200"));
    let stopped = Instant::now();
    signal(&gateway, Signal::TERM);
    manager.hears("STOPPING=1");
    let health = manager.health.local_addr().unwrap().to_string();
    while !send(&health, "GET", "/readyz", &[], "").1.contains("the gateway is stopping") {
        assert!(stopped.elapsed() < PATIENCE);
    }
    // Every worker has heard of it by now.
    thread::sleep(Duration::from_millis(100));
    let sent = stream.write_all(b"GET /open HTTP/1.1\r\nHost: gateway\r\n\r\n");
    let after = stopped.elapsed();
    let mut text = String::new();
    let _ = sent.and_then(|()| stream.read_to_string(&mut text));
    assert_eq!(ended(gateway).code(), Some(0));
    (text, after)
}

#[test]
fn a_client_that_was_just_accepted_may_still_ask_while_the_gateway_drains() {
    // The gateway gives it a second; who asks later than half of that says nothing about it.
    let asked = std::iter::repeat_with(ask_in_a_drain).take(20).find(|(_, after)| *after < Duration::from_millis(500));
    let (text, _) = asked.unwrap_or_else(|| panic!("this machine is too slow to ask within half a second"));
    assert!(text.starts_with("HTTP/1.1 200 OK") && text.ends_with("ok"), "{text}");
}

#[test]
fn sockets_that_are_not_what_the_configuration_says_are_refused() {
    let manager = Manager::new("");
    for (names, told) in [
        ("public:web", "a socket named `web` was handed over"),
        ("public", "2 sockets were handed over with 1 names"),
        ("public:public", "two sockets named `public`"),
        ("health:public", "and the configuration says"),
    ] {
        // The sockets go as standard input and output, so that only standard error is read.
        let ran = manager.command(names).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        let error = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(3), "{names}: {error}");
        assert!(error.contains(told), "{names}: {error}");
    }
}

/// Connections that say nothing.
fn idle(manager: &Manager, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(manager.address()).unwrap()).collect()
}

#[test]
fn the_usual_soft_limit_of_open_files_bounds_no_connections() {
    let mut manager = Manager::new("");
    manager.before = "export LINKGATE__LISTEN__HEADER_TIMEOUT=60s; ulimit -Sn 200;";
    let gateway = manager.start();
    let idle = idle(&manager, 300);
    assert!(ask(manager.address()).unwrap().starts_with("HTTP/1.1 200"), "{}", manager.log());
    let health = manager.health.local_addr().unwrap().to_string();
    assert_eq!(send(&health, "GET", "/healthz", &[], "").0, 200);
    for mut stream in idle {
        stream.write_all(b"GET /open HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n").unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
    signal(&gateway, Signal::TERM);
    assert_eq!(ended(gateway).code(), Some(0));
}

#[test]
fn probes_are_answered_where_files_are_few_and_clients_many() {
    let mut manager = Manager::new("");
    manager.before = "export LINKGATE__LISTEN__HEADER_TIMEOUT=60s; ulimit -Sn 300; ulimit -Hn 400;";
    let gateway = manager.start();
    let told = "`listen.max_connections` is 10000: 72 are served at once, for this process may have 400 files open";
    assert!(manager.log().contains(told), "{}", manager.log());
    let mut idle = idle(&manager, 600);
    let health = manager.health.local_addr().unwrap().to_string();
    for path in ["/healthz", "/metrics"] {
        assert_eq!(send(&health, "GET", path, &[], "").0, 200, "{}", manager.log());
    }
    // The last one is closed, and does not hang; the first one is served.
    let mut last = idle.pop().unwrap();
    last.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(matches!(last.read(&mut [0]), Ok(0)), "it is left to wait");
    idle[0].write_all(b"GET /open HTTP/1.1\r\nHost: gateway\r\n\r\n").unwrap();
    idle[0].set_read_timeout(Some(PATIENCE)).unwrap();
    let mut some = [0; 12];
    idle[0].read_exact(&mut some).unwrap();
    assert_eq!(&some, b"HTTP/1.1 200");
    assert!(!manager.log().contains("Too many open files"), "{}", manager.log());
    drop(idle);
    let until = Instant::now() + PATIENCE;
    while !ask(manager.address()).is_ok_and(|text| text.starts_with("HTTP/1.1 200")) {
        assert!(Instant::now() < until, "it does not recover");
    }
    signal(&gateway, Signal::TERM);
    assert_eq!(ended(gateway).code(), Some(0));

    let mut check = Command::new("bash");
    check.args(["-c", "ulimit -Sn 300; ulimit -Hn 400; exec \"$0\" \"$@\" 2>&1"]);
    check.args([env!("CARGO_BIN_EXE_linkgate"), "check", "--config"]).arg(manager.dir.path().join("linkgate.toml"));
    let checked = cli_support::run(&mut check);
    assert!(checked.out.contains(told), "{}", checked.out);
}
