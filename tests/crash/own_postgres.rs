//! A Postgres of a test's own, which may be restarted: nobody else is on it.

use std::{path::Path, process::Command};

pub struct OwnPostgres {
    dir: tempfile::TempDir,
    pub url: String,
}

fn script(act: &str, dir: &Path) -> String {
    let done =
        Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/postgres.sh")).arg(act).arg(dir).output().unwrap();
    assert!(done.status.success(), "postgres.sh {act}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

impl OwnPostgres {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = script("start", dir.path());
        Self { dir, url }
    }

    /// Every connection is broken, and it is back at the same address when this returns.
    pub fn restart(&self) {
        script("restart", self.dir.path());
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        script("stop", self.dir.path());
    }
}
