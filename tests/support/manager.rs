//! A gateway as a service manager runs it: a process of its own, on sockets that outlive it, with a log to read.

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
    thread,
    time::{Duration, Instant},
};

use linkgate::identity::mint::{DevAlgorithm, DevKey};
use rustix::process::{Pid, Signal, kill_process};

use super::cli_support::{PATIENCE, linkgate};

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

fn configure(dir: &Path, public: SocketAddr, health: SocketAddr, more: &str) {
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
{more}"#,
        upstream()
    );
    std::fs::write(dir.join("linkgate.toml"), text).unwrap();
}

/// What a service manager does: keeps the sockets, and starts the gateway on copies of them.
pub struct Manager {
    pub dir: tempfile::TempDir,
    public: TcpListener,
    pub health: TcpListener,
    told: UnixDatagram,
    /// Run by the shell that starts the gateway.
    pub before: &'static str,
}

impl Manager {
    /// With further sections of the configuration.
    pub fn new(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let told = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        told.set_read_timeout(Some(PATIENCE)).unwrap();
        let manager = Self { public: bind(), health: bind(), told, dir, before: "" };
        configure(manager.dir.path(), manager.address(), manager.health.local_addr().unwrap(), more);
        manager
    }

    pub fn address(&self) -> SocketAddr {
        self.public.local_addr().unwrap()
    }

    /// The sockets come as standard input and output, and the shell puts them where systemd would: 3 and 4.
    pub fn command(&self, names: &str) -> Command {
        let program = linkgate(&[]);
        let mut command = Command::new("bash");
        let script = r#"exec 3<&0 4<&1 0</dev/null 1>&2; LISTEN_PID=$$ LISTEN_FDS=2 exec "$0" "$@""#;
        command.args(["-c", &format!("{} {script}", self.before), program.get_program().to_str().unwrap(), "--config"]);
        command.arg(self.dir.path().join("linkgate.toml")).arg("serve");
        for (name, _) in program.get_envs() {
            command.env_remove(name);
        }
        command.env("LISTEN_FDNAMES", names).env("NOTIFY_SOCKET", self.dir.path().join("notify"));
        let copy = |socket: &TcpListener| Stdio::from(OwnedFd::from(socket.try_clone().unwrap()));
        command.stdin(copy(&self.public)).stdout(copy(&self.health));
        command
    }

    pub fn start(&self) -> Gateway {
        let log = File::options().append(true).create(true).mode(0o600).open(self.dir.path().join("log")).unwrap();
        let gateway = Gateway(self.command("public:health").stderr(log).spawn().unwrap());
        self.hears("READY=1");
        gateway
    }

    /// The next message of the gateway.
    pub fn hears(&self, expected: &str) {
        let mut message = [0; 256];
        let length = self.told.recv(&mut message).unwrap_or_else(|error| panic!("{expected}: {error}; {}", self.log()));
        let message = std::str::from_utf8(&message[..length]).unwrap();
        assert!(message.lines().any(|line| line == expected), "{message}");
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// A running gateway; it goes with the test, however that ends.
pub struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn signal(gateway: &Gateway, signal: Signal) {
    kill_process(Pid::from_child(&gateway.0), signal).unwrap();
}

pub fn ended(mut gateway: Gateway) -> ExitStatus {
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
pub fn ask(address: SocketAddr) -> Result<String, std::io::Error> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET /open HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
