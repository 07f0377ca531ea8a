//! `kill -9` under load: every record that was acknowledged is there exactly once.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use linkgate::{
    audit::{Durability, Journal},
    domain::DecisionId,
};

use crate::support::*;

const CHILD: &str = "LINKGATE_AUDIT_TEST_CHILD";
const ROUNDS: usize = 20;
/// Rounds that go on with the same journal.
const RESTARTS: usize = 4;

/// Writes records on four threads until it is killed, telling each on standard output once it is acknowledged.
fn child(dir: &Path) {
    let mut small = settings(dir);
    (small.segment_bytes, small.flush_interval) = (200_000, Duration::from_millis(10));
    let journal = Journal::open(small).unwrap().0;
    let out = Mutex::new(std::io::stdout());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (journal, out) = (&journal, &out);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                runtime.block_on(async {
                    let mut held = Vec::new();
                    loop {
                        let id = DecisionId::generate();
                        let level = if thread == 0 { Durability::Disk } else { Durability::Os };
                        let record = journal.admit(&opening(id), level).await.unwrap();
                        writeln!(out.lock().unwrap(), "\n{id}.").unwrap();
                        held.push(record);
                        if held.len() > 20 {
                            held.drain(..).for_each(|record| record.complete(done(200)));
                        }
                    }
                });
            });
        }
    });
}

/// The test runs itself as the child: then it never returns.
#[test]
fn acknowledged_records_survive_kill_9() {
    if let Some(dir) = std::env::var_os(CHILD) {
        return child(Path::new(&dir));
    }
    let mut dir = folder();
    let mut acknowledged = HashSet::new();
    for round in 0..ROUNDS {
        if round % RESTARTS == 0 {
            dir = folder();
            acknowledged.clear();
        }
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::acknowledged_records_survive_kill_9", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let seen = Arc::new(AtomicUsize::new(0));
        let reader = std::thread::spawn({
            let seen = Arc::clone(&seen);
            move || {
                // A line that the kill cut short has no full stop.
                let whole = lines.map_while(Result::ok).filter_map(|line| line.strip_suffix('.')?.parse().ok());
                let counted = whole.inspect(|_| {
                    seen.fetch_add(1, Ordering::Relaxed);
                });
                counted.collect::<Vec<DecisionId>>()
            }
        });
        let start = Instant::now();
        while seen.load(Ordering::Relaxed) < 100 {
            assert!(start.elapsed() < Duration::from_secs(30), "round {round}: the child writes nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        // A different moment of the flush interval each time.
        std::thread::sleep(Duration::from_micros(1700 * round as u64));
        process.kill().unwrap();
        process.wait().unwrap();
        let told = reader.join().unwrap();
        acknowledged.extend(told);

        let (journal, recovery) = Journal::open(settings(dir.path())).unwrap();
        drop(journal);
        let found = records(dir.path());
        assert!(acknowledged.iter().all(|id| found.contains_key(id)), "round {round}");
        assert!(found.values().all(|record| record.completion.is_some()), "round {round}: all are completed");
        assert!(recovery.aborted.iter().all(|id| found[id].aborted == Some(true)));
        let strays = found.len() - acknowledged.len();
        // Written but not told: at most one for each thread and round.
        assert!(strays <= 4 * (round % RESTARTS + 1), "{strays} records that nobody asked for");
        sound(dir.path());
    }
}
