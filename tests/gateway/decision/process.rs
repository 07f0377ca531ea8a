//! Real proxies, started with the configurations that ship: only ports, the place of what nginx writes, and the name of the
//! service behind are put in.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{EDGE, listener};
use crate::rig::Rig;

/// A proxy that runs until it is dropped.
pub struct Front {
    pub address: SocketAddr,
    child: Child,
    pub dir: tempfile::TempDir,
}

impl Drop for Front {
    fn drop(&mut self) {
        // nginx ends its workers only where it is asked to.
        let asked = Command::new("kill").arg(self.child.id().to_string()).status();
        let deadline = Instant::now() + Duration::from_secs(5);
        while asked.as_ref().is_ok_and(|status| status.success())
            && matches!(self.child.try_wait(), Ok(None))
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a condition; fails the test where it does not come.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "not in a minute: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The file as it ships, with this test's ports.
fn shipped(name: &str, rig: &Rig, address: SocketAddr) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
    let mut text = fs::read_to_string(path).unwrap();
    for (port, address) in [(8443, address), (8082, listener(rig)), (8080, rig.public), (8000, rig.upstream.address)] {
        for (from, to) in [
            (format!("127.0.0.1:{port}"), address.to_string()),
            (format!("port_value: {port}"), format!("port_value: {}", address.port())),
            (format!("\n:{port} {{"), format!("\n:{} {{", address.port())),
        ] {
            text = text.replace(&from, &to);
        }
    }
    text
}

fn start(mut command: Command, address: SocketAddr, dir: tempfile::TempDir) -> Front {
    let log = fs::File::create(dir.path().join("log")).unwrap();
    let child = command
        .env("LINKGATE_CALLER", EDGE)
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .stdin(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} does not start ({error}): run the tests with `tests/run`"));
    let mut front = Front { address, child, dir };
    eventually("the proxy listens", || {
        let ended = front.child.try_wait().unwrap();
        assert!(ended.is_none(), "the proxy ended: {}", front.log());
        TcpStream::connect(address).is_ok()
    });
    front
}

impl Front {
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    pub fn nginx(rig: &Rig) -> Self {
        let (dir, address) = (tempfile::tempdir().unwrap(), free());
        let place = dir.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("    {kind}_temp_path {place}/{kind};\n"))
            .collect();
        let text = shipped("nginx.conf", rig, address)
            .replace("/run/nginx-linkgate.pid", &format!("{place}/pid"))
            .replace("upstream isp {", "upstream up {")
            .replace("http {\n", &format!("http {{\n{temporary}"));
        let path = dir.path().join("nginx.conf");
        fs::write(&path, text).unwrap();
        let secret = format!("proxy_set_header X-Linkgate-Caller \"{EDGE}\";\n");
        fs::write(dir.path().join("linkgate-caller.conf"), secret).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-c").arg(path).args(["-g", "daemon off;"]);
        start(command, address, dir)
    }

    pub fn caddy(rig: &Rig) -> Self {
        let (dir, address) = (tempfile::tempdir().unwrap(), free());
        let path = dir.path().join("Caddyfile");
        fs::write(&path, shipped("Caddyfile", rig, address)).unwrap();
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(path);
        command.env("HOME", dir.path()).env("XDG_DATA_HOME", dir.path()).env("XDG_CONFIG_HOME", dir.path());
        start(command, address, dir)
    }

    pub fn envoy(rig: &Rig) -> Self {
        let address = free();
        Self::envoy_with(shipped("envoy.yaml", rig, address), address)
    }

    /// It records every request, and tells this collector.
    pub fn envoy_that_traces(rig: &Rig, collector: SocketAddr) -> Self {
        let address = free();
        let shipped = shipped("envoy.yaml", rig, address);
        let tracer = format!(
            r#"
                tracing:
                  provider:
                    name: envoy.tracers.opentelemetry
                    typed_config:
                      "@type": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig
                      service_name: edge
                      http_service:
                        http_uri: {{ uri: "http://{collector}/v1/traces", cluster: collector, timeout: 5s }}"#
        );
        let cluster = format!(
            r#"
    - name: collector
      connect_timeout: 1s
      type: STATIC
      load_assignment:
        cluster_name: collector
        endpoints:
          - lb_endpoints:
              - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {} }} }} }}"#,
            collector.port()
        );
        let mut text = shipped;
        for (before, added) in [("                codec_type: AUTO", tracer), ("  clusters:", cluster)] {
            assert_eq!(text.matches(before).count(), 1, "{before}");
            text = text.replace(before, &format!("{before}{added}"));
        }
        // Spans are sent after a while, or when there are some.
        let soon = "
layered_runtime:
  layers:
    - name: soon
      static_layer: { tracing.opentelemetry.min_flush_spans: 1, tracing.opentelemetry.flush_interval_ms: 100 }
";
        Self::envoy_with(text + soon, address)
    }

    fn envoy_with(text: String, address: SocketAddr) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("envoy.yaml");
        fs::write(&path, text).unwrap();
        let program = std::env::var("LINKGATE_TEST_ENVOY").unwrap_or_else(|_| {
            panic!("LINKGATE_TEST_ENVOY is not set: run the tests with `tests/run`, which installs an Envoy for them")
        });
        let mut command = Command::new(program);
        // Several tests run at once, each with an Envoy of its own.
        command.arg("-c").arg(path).args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]);
        start(command, address, dir)
    }
}
