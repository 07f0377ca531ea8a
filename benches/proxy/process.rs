//! A role's process as it is watched from outside: CPU time to the nanosecond, threads, memory, system calls, and
//! instructions.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{ARG, ROLE};

/// A process of ours, ended with this value.
pub(crate) struct Role {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Role {
    pub(crate) fn start(role: &str, argument: &str) -> Self {
        Self::begin(role, Command::new(std::env::current_exe().unwrap()), argument)
    }

    /// The same inside valgrind, where its instructions are counted into files called `out`.
    pub(crate) fn under_valgrind(role: &str, argument: &str, out: &Path) -> Self {
        let mut command = Command::new("valgrind");
        command
            .args(["--quiet", "--tool=callgrind", "--fair-sched=yes", "--max-stackframe=8000000"])
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg(std::env::current_exe().unwrap());
        Self::begin(role, command, argument)
    }

    fn begin(role: &str, mut command: Command, argument: &str) -> Self {
        let mut child = command
            .env(ROLE, role)
            .env(ARG, argument)
            .stdout(Stdio::piped())
            .stderr(if role == "gateway" { Stdio::null() } else { Stdio::inherit() })
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().parse().unwrap_or_else(|_| panic!("{role} did not start: {line}"));
        Self { child, address }
    }

    fn dir(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.child.id()))
    }

    /// Time on a core since the start, user and system, of each thread that still runs.
    pub(crate) fn threads(&self) -> Threads {
        let mut times = BTreeMap::new();
        for task in fs::read_dir(self.dir().join("task")).unwrap() {
            let dir = task.unwrap().path();
            let (Ok(name), Ok(stat)) =
                (fs::read_to_string(dir.join("comm")), fs::read_to_string(dir.join("schedstat")))
            else {
                continue;
            };
            let nanos = stat.split_whitespace().next().unwrap().parse().unwrap();
            times.insert(dir, (name.trim().to_owned(), Duration::from_nanos(nanos)));
        }
        Threads(times)
    }

    pub(crate) fn resident_mib(&self) -> f64 {
        let status = fs::read_to_string(self.dir().join("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }

    /// Calls of the kernel, by name, while `work` runs.
    pub(crate) fn system_calls(&self, out: &Path, work: impl FnOnce()) -> BTreeMap<String, u64> {
        let mut strace = Command::new("strace")
            .args(["-f", "-c", "-U", "name,calls", "-p", &self.child.id().to_string(), "-o"])
            .arg(out)
            .stderr(Stdio::null())
            .spawn()
            .expect("strace is installed");
        std::thread::sleep(Duration::from_secs(1));
        work();
        interrupt(strace.id());
        strace.wait().unwrap();
        let text = fs::read_to_string(out).unwrap();
        text.lines()
            .filter_map(|line| {
                let (name, calls) = line.trim().split_once(char::is_whitespace)?;
                Some((name.to_owned(), calls.trim().parse().ok()?))
            })
            .filter(|(name, _)| name != "total")
            .collect()
    }

    /// Instructions in user space while `work` runs.
    pub(crate) fn instructions(&self, out: &Path, work: impl FnOnce()) -> u64 {
        let control = |what: &str| {
            let done = Command::new("callgrind_control").args([what, &self.child.id().to_string()]).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        control("-z");
        work();
        control("-d");
        let dumped = PathBuf::from(format!("{}.1", out.display()));
        let text = fs::read_to_string(&dumped).unwrap();
        let totals = text.lines().find_map(|line| line.strip_prefix("totals:")).unwrap();
        totals.trim().parse().unwrap()
    }
}

/// strace writes its table when it is interrupted.
fn interrupt(process: u32) {
    let done = Command::new("kill").args(["-INT", &process.to_string()]).status().unwrap();
    assert!(done.success());
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Times of the threads of a process at one moment.
pub(crate) struct Threads(BTreeMap<PathBuf, (String, Duration)>);

impl Threads {
    /// What each has used since; a thread that ended in between is left out.
    pub(crate) fn since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = (&'a str, Duration)> {
        self.0.iter().map(|(path, (name, time))| {
            let start = before.0.get(path).map_or(Duration::ZERO, |(_, start)| *start);
            (name.as_str(), time.saturating_sub(start))
        })
    }

    pub(crate) fn total_since(&self, before: &Self) -> Duration {
        self.since(before).map(|(_, time)| time).sum()
    }
}

/// Ticks of the whole machine: busy, and taken by other guests of its host.
#[derive(Clone, Copy)]
pub(crate) struct Machine {
    pub(crate) all: u64,
    pub(crate) idle: u64,
    pub(crate) stolen: u64,
}

impl Machine {
    pub(crate) fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap();
        let ticks: Vec<u64> =
            stat.lines().next().unwrap().split_whitespace().skip(1).take(8).map(|text| text.parse().unwrap()).collect();
        Self { all: ticks.iter().sum(), idle: ticks[3] + ticks[4], stolen: ticks[7] }
    }
}
