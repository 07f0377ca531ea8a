//! A restart over a socket that somebody else holds, and a reload: no request fails, none is refused, and the service
//! manager is told.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

mod cli_support;

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::{fs::OpenOptionsExt, net::UnixDatagram},
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use cli_support::{PATIENCE, linkgate, send};
use linkgate::identity::mint::{DevAlgorithm, DevKey};
use rustix::process::{Pid, Signal, kill_process};

/// Answers every request after a moment, so that a stop finds some under way.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || answer(stream.unwrap()));
        }
    });
    address
}

fn answer(stream: TcpStream) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let mut stream = stream;
    while lines.by_ref().any(|line| line.is_empty()) {
        thread::sleep(Duration::from_millis(5));
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
            return;
        }
    }
}

fn configure(dir: &Path, public: SocketAddr, health: SocketAddr) {
    DevKey::generate(DevAlgorithm::Es256).unwrap().write_jwks(&dir.join("jwks.json")).unwrap();
    let text = format!(
        r#"
[listen]
address = "{public}"
workers = 2
[health]
address = "{health}"
[audit]
writes = "os"
[issuers.one]
issuer = "https://issuer.test"
audiences = ["linkgate"]
algorithms = ["ES256"]
jwks_file = "jwks.json"
[upstreams.up]
origin = "http://{}"
credential = "drop"
assertion = "off"
[[routes]]
methods = ["GET"]
path = "/open"
access = "public"
upstream = "up"
"#,
        upstream()
    );
    std::fs::write(dir.join("linkgate.toml"), text).unwrap();
}

/// What a service manager does: keeps the sockets, and starts the gateway on copies of them.
struct Manager {
    dir: tempfile::TempDir,
    public: TcpListener,
    health: TcpListener,
    told: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let told = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        told.set_read_timeout(Some(PATIENCE)).unwrap();
        let manager = Self { public: bind(), health: bind(), told, dir };
        configure(manager.dir.path(), manager.address(), manager.health.local_addr().unwrap());
        manager
    }

    fn address(&self) -> SocketAddr {
        self.public.local_addr().unwrap()
    }

    /// The sockets come as standard input and output, and the shell puts them where systemd would: 3 and 4.
    fn command(&self, names: &str) -> Command {
        let program = linkgate(&[]);
        let mut command = Command::new("bash");
        let script = r#"exec 3<&0 4<&1 0</dev/null 1>&2; LISTEN_PID=$$ LISTEN_FDS=2 exec "$0" "$@""#;
        command.args(["-c", script, program.get_program().to_str().unwrap(), "--config"]);
        command.arg(self.dir.path().join("linkgate.toml")).arg("serve");
        for (name, _) in program.get_envs() {
            command.env_remove(name);
        }
        command.env("LISTEN_FDNAMES", names).env("NOTIFY_SOCKET", self.dir.path().join("notify"));
        let copy = |socket: &TcpListener| Stdio::from(OwnedFd::from(socket.try_clone().unwrap()));
        command.stdin(copy(&self.public)).stdout(copy(&self.health));
        command
    }

    fn start(&self) -> Gateway {
        let log = File::options().append(true).create(true).mode(0o600).open(self.dir.path().join("log")).unwrap();
        let gateway = Gateway(self.command("public:health").stderr(log).spawn().unwrap());
        self.hears("READY=1");
        gateway
    }

    /// The next message of the gateway.
    fn hears(&self, expected: &str) {
        let mut message = [0; 256];
        let length = self.told.recv(&mut message).unwrap_or_else(|error| panic!("{expected}: {error}; {}", self.log()));
        let message = std::str::from_utf8(&message[..length]).unwrap();
        assert!(message.lines().any(|line| line == expected), "{message}");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// A running gateway; it goes with the test, however that ends.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(gateway: &Gateway, signal: Signal) {
    kill_process(Pid::from_child(&gateway.0), signal).unwrap();
}

fn ended(mut gateway: Gateway) -> ExitStatus {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Some(status) = gateway.0.try_wait().unwrap() {
            return status;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("it did not stop");
}

/// One request on a connection of its own.
fn ask(address: SocketAddr) -> Result<String, std::io::Error> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET /open HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

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
    let manager = Manager::new();
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
    let manager = Manager::new();
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
    let manager = Manager::new();
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
