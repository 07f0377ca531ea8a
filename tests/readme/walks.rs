//! The walks of the deployment chapter, each as a newcomer takes it: from an empty folder to a partner's request that the
//! service behind answers and one that is refused.
//!
//! All blocks of one walk run in one shell. Other than on the page are only the ports, which are this test's own, in the
//! page and in the shipped files of the proxies. What a walk starts is ended by it; where it fails, by the test.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use super::{
    compare, folder, outputs,
    page::{Block, blocks},
    postgres_support::{self, PostgresDatabase},
    without_linkgates_variables,
};

/// Below the time after which the runner would end the test, and leave the walk's processes alone.
const PATIENCE: Duration = Duration::from_secs(240);
/// The ports that the walks name; 8000 stands in the shipped files for the service, and the page changes it.
const NAMED: [u16; 12] = [8080, 8081, 8082, 8083, 8084, 8085, 8086, 8087, 8088, 8089, 8090, 8443];
/// Below those that the kernel gives away itself.
const FREE: std::ops::Range<u16> = 640..2040;

/// Ports of this test's own, one for each that the page names.
struct Ports {
    first: u16,
    /// Whoever holds the first has the others.
    _held: TcpListener,
}

impl Ports {
    fn new() -> Self {
        // From another place on in each process.
        let shift = usize::try_from(std::process::id()).unwrap() % FREE.len();
        FREE.skip(shift)
            .chain(FREE.take(shift))
            .find_map(|block| {
                let first = block * 16;
                let bind = |port| TcpListener::bind(("127.0.0.1", port));
                let held = bind(first).ok()?;
                (1..=u16::try_from(NAMED.len()).unwrap()).all(|at| bind(first + at).is_ok()).then_some(())?;
                Some(Self { first, _held: held })
            })
            .unwrap()
    }

    /// The text with these ports in the place of the page's.
    fn put_in(&self, text: &str) -> String {
        // In two steps, since a new port may look like one of the page's.
        let marked =
            NAMED.iter().fold(text.to_owned(), |text, port| text.replace(&port.to_string(), &format!("<{port}>")));
        NAMED
            .iter()
            .zip(self.first + 1..)
            .fold(marked, |text, (named, port)| text.replace(&format!("<{named}>"), &port.to_string()))
    }
}

/// A shell and all that it started, ended when this is dropped.
struct Shell {
    child: Child,
    group: Pid,
    output: PathBuf,
}

impl Shell {
    fn start(dir: &Path, text: &str, variables: &[(&str, &str)]) -> Self {
        // Should the test be killed, nobody holds the other end of standard input any more: then all of the group goes.
        let before =
            "exec 2>&1 9<&0 </dev/null\n{ read -r _ <&9; kill -- -$$; } >/dev/null 2>&1 &\nwatch=$!\nexec 9<&-\n";
        fs::write(dir.join("script"), format!("{before}{text}kill $watch; wait $watch\n")).unwrap();
        let output = dir.join("output");
        let mut command = Command::new("bash");
        without_linkgates_variables(&mut command);
        command.arg("script").current_dir(dir).envs(variables.iter().copied());
        command.stdin(Stdio::piped()).stdout(fs::File::create(&output).unwrap()).process_group(0);
        let child = command.spawn().unwrap();
        Self { group: Pid::from_child(&child), child, output }
    }

    fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap()
    }

    fn is_empty(&self) -> bool {
        test_kill_process_group(self.group).is_err()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        for signal in [Signal::TERM, Signal::KILL] {
            // An error says that nobody is left.
            let _ = kill_process_group(self.group, signal);
            let since = Instant::now();
            while !self.is_empty() && since.elapsed() < Duration::from_secs(10) {
                let _ = self.child.try_wait();
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Takes the walk whose blocks are `sh walk-NAME`.
fn walk(name: &str, variables: &[(&str, &str)]) {
    let dir = folder();
    let ports = Ports::new();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::create_dir(dir.path().join("deploy")).unwrap();
    for file in ["nginx.conf", "envoy.yaml"] {
        let text = fs::read_to_string(sources.join("deploy").join(file)).unwrap();
        fs::write(dir.path().join("deploy").join(file), ports.put_in(&text)).unwrap();
    }
    if let Ok(envoy) = std::env::var("LINKGATE_TEST_ENVOY") {
        symlink(envoy, dir.path().join("target/debug/envoy")).unwrap();
    }

    let (setup, own) = (blocks("sh walk-setup"), blocks(&format!("sh walk-{name}")));
    assert!(setup.len() >= 4 && !own.is_empty(), "no walk {name}");
    let scripts: Vec<(String, &Block)> =
        setup.iter().chain(&own).map(|block| (ports.put_in(&block.text), block)).collect();
    let mut shell = Shell::start(dir.path(), &super::script(&scripts), variables);
    let since = Instant::now();
    let ended = loop {
        match shell.child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if since.elapsed() > PATIENCE => break None,
            None => thread::sleep(Duration::from_millis(20)),
        }
    };
    let text = shell.output();
    assert!(ended.is_some(), "the walk {name} does not end; so far:\n{text}\n{}", logs(dir.path()));
    let wrong = compare(outputs(&text, &scripts), &scripts);
    assert!(wrong.is_empty(), "{}\n\n{}", wrong.join("\n\n"), logs(dir.path()));

    until(&format!("the walk {name} has ended all that it started"), || shell.is_empty());
}

/// The last lines of each program's log.
fn logs(dir: &Path) -> String {
    let Ok(folders) = fs::read_dir(dir.join("target/walk")) else { return String::new() };
    let files = folders.filter_map(|folder| fs::read_dir(folder.ok()?.path()).ok()).flatten();
    let logs =
        files.filter_map(|file| Some(file.ok()?.path())).filter(|path| path.extension().is_some_and(|it| it == "log"));
    let told = logs.map(|path| {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("--- {}\n{}", path.display(), lines[lines.len().saturating_sub(20)..].join("\n"))
    });
    told.collect::<Vec<_>>().join("\n")
}

#[test]
fn gateway() {
    walk("gateway", &[]);
}

#[test]
fn sidecar() {
    let database = PostgresDatabase::make(&postgres_support::server());
    walk("sidecar", &[("DATABASE_URL", &database.url)]);
}

#[test]
fn behind_envoy() {
    assert!(
        std::env::var("LINKGATE_TEST_ENVOY").is_ok(),
        "LINKGATE_TEST_ENVOY is not set: run the tests with `tests/run`"
    );
    walk("envoy", &[]);
}

#[test]
fn behind_nginx() {
    walk("nginx", &[]);
}

#[test]
fn three_replicas() {
    let database = PostgresDatabase::make(&postgres_support::server());
    walk("replicas", &[("DATABASE_URL", &database.url)]);
}

/// Waits for it, for the time that a walk has.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "it never comes: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_a_broken_walk_has_started_is_ended() {
    for killed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut shell = Shell::start(dir.path(), "sleep 1000 & echo started\nwait\n", &[]);
        until("it runs", || shell.output() == "started\n");
        let group = shell.group;
        assert!(test_kill_process_group(group).is_ok());
        if killed {
            // As where the test dies: it holds no pipe any more, and does nothing else.
            drop(shell.child.stdin.take());
            until("it ends by itself", || {
                let _ = shell.child.try_wait();
                shell.is_empty()
            });
        }
        drop(shell);
        assert!(test_kill_process_group(group).is_err());
    }
}
