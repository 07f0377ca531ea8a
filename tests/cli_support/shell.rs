//! A configuration and a database of SQLite, for tests that give one command after another.

use std::{fs, path::PathBuf, process::Command};

use super::{Ran, linkgate, run};

/// The partner that is there from the beginning.
pub const PARTNER: &str = "11111111-1111-4111-8111-111111111111";

/// Where the commands run.
pub struct Shell {
    pub dir: tempfile::TempDir,
    pub config: PathBuf,
}

impl Shell {
    /// With two tenants and a partner that is at home in the first.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("gateway.toml");
        let text = "[database]\nsqlite = \"linkgate.db\"\n[issuers.main]\nissuer = \"https://login.example\"\n\
             audiences = [\"linkgate\"]\nalgorithms = [\"ES256\"]\njwks_url = \"https://login.example/jwks.json\"\n";
        fs::write(&config, text).unwrap();
        let shell = Self { dir, config };
        for words in [
            &["migrate"][..],
            &["tenant", "create", "home"],
            &["tenant", "create", "t1"],
            &["partner", "create", "--id", PARTNER, "--name", "Blue", "--home-tenant", "home"],
        ] {
            shell.run(0, words);
        }
        shell
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = linkgate(&[&["--config", self.config.to_str().unwrap()], words].concat());
        command.current_dir(self.dir.path());
        command
    }

    pub fn run(&self, code: i32, words: &[&str]) -> Ran {
        let ran = run(&mut self.command(words));
        assert_eq!(ran.code, code, "{words:?}: {}{}", ran.out, ran.err);
        ran
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn json(&self, words: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.run(0, &[&["--json"], words].concat()).out).unwrap()
    }
}
