//! A Redis for one test, which goes down and comes up at the same address.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests: what fails here fails the test"
)]

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use linkgate::{
    domain::Secret,
    limit::{RedisBuckets, settings::SharedSettings},
};

/// Without a file: what it counted is gone when it goes down.
pub struct Redis {
    port: u16,
    child: Option<Child>,
}

impl Redis {
    pub fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut redis = Self { port, child: None };
        redis.up();
        redis
    }

    pub fn up(&mut self) {
        let port = self.port.to_string();
        let arguments = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let child = Command::new("redis-server").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.child = Some(child.expect("redis-server: `tests/run` installs it"));
        let since = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(since.elapsed() < Duration::from_secs(20), "redis-server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub fn buckets(&self, prefix: &str) -> RedisBuckets {
        let settings = SharedSettings {
            url: Secret::new(self.url().into_bytes()),
            prefix: prefix.to_owned(),
            interval: Duration::from_millis(10),
        };
        RedisBuckets::new(&settings).unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.down();
    }
}
