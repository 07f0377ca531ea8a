//! The journal's disk is full, fails, is gone or cannot be written: requests are refused, and nothing is lost.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use rustix::process::{Resource, Rlimit};
use sqlx::{Connection as _, Executor, SqliteConnection};

use crate::{
    client::{Answer, Connection, Request},
    gateway::{Gateway, House, PATIENCE, Setup, eventually},
    ledger::Ledger,
    load::{Load, Mix, Told, reconcile},
};

/// A small file system of its own for the journal.
struct Mount(PathBuf);

impl Mount {
    fn over(journal: &Path) -> Self {
        std::fs::create_dir_all(journal).unwrap();
        let path = journal.to_str().unwrap();
        let out = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs", path]).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "this test mounts a tmpfs and needs the right to (run it as root): {said}");
        Self(journal.to_owned())
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }

    /// Takes room away until it is removed.
    fn ballast(&self, bytes: usize) -> PathBuf {
        let path = self.0.join("ballast");
        std::fs::write(&path, vec![0; bytes]).unwrap();
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

struct Client<'g> {
    gateway: &'g Gateway,
    token: String,
}

impl Client<'_> {
    fn get(&self) -> Answer {
        self.gateway.ask(&Request::get("/api/invoices").bearer(&self.token).tenant("t-full"))
    }

    fn post(&self) -> Answer {
        self.gateway.ask(&Request::new("POST", "/api/invoices").bearer(&self.token).tenant("t-full").json("{}"))
    }

    fn foreign(&self) -> Answer {
        self.gateway.ask(&Request::get("/api/invoices").bearer(&self.token).tenant("t-unlinked"))
    }
}

fn unavailable(answer: &Answer) -> bool {
    answer.status == 503 && answer.error() == "AUDIT_UNAVAILABLE"
}

/// Requests, until only refusals come.
fn fill(client: &Client<'_>) {
    let mut in_a_row = 0;
    eventually("the disk is full", || {
        in_a_row = if unavailable(&client.get()) { in_a_row + 1 } else { 0 };
        in_a_row >= 30
    });
}

/// How many requests the upstream saw, once what was admitted before the trouble has arrived.
fn arrived(house: &House) -> usize {
    let mut before = usize::MAX;
    eventually("all that was admitted has arrived", || {
        let now = house.upstream.count();
        let steady = std::mem::replace(&mut before, now) == now;
        thread::sleep(Duration::from_millis(200));
        steady
    });
    before
}

/// The chain after everything: all told is in it, all is completed, nothing is broken.
fn sound(house: &House, told: &[Told]) -> Ledger {
    let ledger = Ledger::fresh(house.journal());
    reconcile(house, &ledger, told, 0);
    let open: Vec<_> = ledger.records.values().filter(|entry| entry.completion.is_none()).collect();
    assert!(open.is_empty(), "left open: {open:?}");
    ledger.verify(house);
    ledger
}

fn small() -> Setup {
    Setup { audit: "writes = \"os\"\nreads = \"os\"\nsegment_size = \"64KiB\"\n".into(), ..Setup::default() }
}

/// As a service manager's `LimitFSIZE=` has it: the signal that comes with it would end the process.
#[test]
fn files_that_may_not_grow_refuse_until_they_may() {
    let house = House::new();
    let gateway = house.start(&small());
    let client = Client { gateway: &gateway, token: house.token1() };
    assert_eq!(client.post().status, 200);
    let process = gateway.pid();
    let before = rustix::process::getrlimit(Resource::Fsize);
    let limit = |current| {
        let limits = Rlimit { current, ..before };
        rustix::process::prlimit(Some(process), Resource::Fsize, limits).unwrap();
    };
    limit(Some(1024));
    eventually("nothing can be written", || unavailable(&client.get()));
    assert!(unavailable(&client.post()));
    assert_eq!(gateway.alive(), 200, "it goes on");
    limit(before.current);
    eventually("it may again", || client.get().status == 200);
    gateway.terminate();
    assert_eq!(gateway.ended(PATIENCE), Some(0), "{}", house.log_text());
    sound(&house, &[]);
}

#[test]
fn a_full_disk_refuses_until_there_is_room_again() {
    let house = House::new();
    let mount = Mount::over(&house.journal());
    let gateway = house.start(&small());
    let client = Client { gateway: &gateway, token: house.token1() };
    assert_eq!(client.get().status, 200);
    let ballast = mount.ballast(600_000);
    let load = Load::start(&Mix::of(&house), gateway.public, 4);
    fill(&client);
    let done = arrived(&house);
    for _ in 0..20 {
        for answer in [client.get(), client.post(), client.foreign()] {
            assert!(unavailable(&answer), "{}", answer.text());
        }
    }
    assert_eq!(house.upstream.count(), done, "something was done that cannot be recorded");
    let (status, wrong) = gateway.ready();
    assert_eq!((status, wrong.len(), &*wrong[0].0), (503, 1, "audit"), "{wrong:?}");
    assert!(wrong[0].1.contains("free space on its disk"), "{wrong:?}");
    assert_eq!(Request::get("/healthz").send(gateway.health).status, 200);
    std::fs::remove_file(ballast).unwrap();
    eventually("it goes on by itself", || client.get().status == 200);
    assert_eq!((client.post().status, client.foreign().status), (200, 403));
    eventually("it is ready again", || gateway.ready().0 == 200);
    let told = load.stop();
    assert!(told.iter().any(|one| one.code == "AUDIT_UNAVAILABLE"));
    assert!(told.iter().all(|one| one.status != 0));
    gateway.terminate();
    assert_eq!(gateway.ended(PATIENCE), Some(0));
    sound(&house, &told);
    assert!(
        house.log_text().contains("the audit journal cannot be written: requests that must be audited are refused")
    );
    assert!(house.log_text().contains("the audit journal is written again"));
}

#[test]
fn killed_and_started_on_a_full_disk() {
    let house = House::new();
    let mount = Mount::over(&house.journal());
    let gateway = house.start(&small());
    let client = Client { gateway: &gateway, token: house.token1() };
    let slow = Request::get("/t/slow/60000").bearer(&client.token).tenant("t-full").header("X-Request-ID", "slow");
    let open: Vec<_> = (0..3)
        .map(|_| {
            let mut connection = Connection::open(gateway.public);
            connection.write(&slow.bytes());
            connection
        })
        .collect();
    eventually("three are under way", || house.upstream.count() == 3);
    let ballast = mount.ballast(700_000);
    let load = Load::start(&Mix::of(&house), gateway.public, 4);
    fill(&client);
    gateway.kill();
    let told = load.stop();
    // What the kernel kept free for the open records may have gone to others meanwhile.
    let filler = mount.0.join("filler");
    let mut more = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut more, &[0; 256]).is_ok() {}
    let gateway = house.start(&small());
    let client = Client { gateway: &gateway, token: house.token1() };
    fill(&client);
    assert_eq!(gateway.ready().0, 503);
    std::fs::remove_file(ballast).unwrap();
    std::fs::remove_file(filler).unwrap();
    eventually("it goes on by itself", || client.get().status == 200);
    gateway.terminate();
    assert_eq!(gateway.ended(PATIENCE), Some(0));
    let ledger = sound(&house, &told);
    let slow = ledger.by_request("slow");
    assert_eq!(slow.len(), 3);
    for (id, entry) in slow {
        let completion = entry.completion.as_ref().unwrap();
        assert_eq!((completion.aborted, &*completion.reason), (true, "process_ended"), "{id}");
    }
    drop(open);
}

/// A library that lets `fdatasync` and `fsync` below the journal fail while the file `trigger` is there.
fn failing_sync(house: &House) -> (PathBuf, Setup) {
    let (library, trigger) = (house.dir.path().join("failing_sync.so"), house.dir.path().join("fail-sync"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/failing_sync.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status().unwrap();
    assert!(built.success(), "this test needs a C compiler, as building linkgate does");
    let setup = Setup {
        audit: "writes = \"disk\"\nreads = \"os\"\n".into(),
        environment: vec![
            ("LD_PRELOAD", library.into()),
            ("FAILING_SYNC_BELOW", house.journal().into()),
            ("FAILING_SYNC_TRIGGER", trigger.clone().into()),
        ],
        ..Setup::default()
    };
    (trigger, setup)
}

#[test]
fn a_failed_sync_refuses_everything_until_a_restart() {
    let house = House::new();
    let (trigger, setup) = failing_sync(&house);
    let gateway = house.start(&setup);
    let client = Client { gateway: &gateway, token: house.token1() };
    assert_eq!((client.get().status, client.post().status), (200, 200));
    let load = Load::start(&Mix::of(&house), gateway.public, 4);
    load.until(50);
    std::fs::write(&trigger, "").unwrap();
    eventually("a write is refused", || unavailable(&client.post()));
    let done = arrived(&house);
    // The disk says that all is well again: it is not believed.
    std::fs::remove_file(&trigger).unwrap();
    for _ in 0..20 {
        for answer in [client.post(), client.get(), client.foreign()] {
            assert!(unavailable(&answer), "{}", answer.text());
        }
    }
    assert_eq!(house.upstream.count(), done);
    let (status, wrong) = gateway.ready();
    assert_eq!(status, 503);
    assert!(wrong.iter().any(|(name, what)| name == "audit" && what.contains("failed to sync")), "{wrong:?}");
    assert!(house.log_text().contains("no audited request is accepted until a restart"));
    let told = load.stop();
    gateway.terminate();
    assert_eq!(gateway.ended(PATIENCE), Some(0));
    let gateway = house.start(&Setup { environment: Vec::new(), ..setup });
    let client = Client { gateway: &gateway, token: house.token1() };
    assert_eq!((client.get().status, client.post().status, gateway.ready().0), (200, 200, 200));
    gateway.terminate();
    assert_eq!(gateway.ended(PATIENCE), Some(0));
    sound(&house, &told);
}

/// What is promised on stable storage is refused once the wait is too long; what is promised less goes on.
#[test]
fn a_disk_that_hangs_refuses_what_needs_it() {
    let house = House::new();
    let (trigger, mut setup) = failing_sync(&house);
    setup.audit.push_str("commit_timeout = \"700ms\"\n");
    let gateway = house.start(&setup);
    let client = Client { gateway: &gateway, token: house.token1() };
    eventually("the disk answers in time", || client.post().status == 200);
    let done = house.upstream.count();
    std::fs::write(&trigger, "hang").unwrap();
    for count in 1..=3 {
        let request = Request::new("POST", "/api/invoices").bearer(&client.token).tenant("t-full").json("{}");
        let answer = gateway.ask(&request.header("X-Request-ID", &format!("hung-{count}")));
        assert!(unavailable(&answer), "{}", answer.text());
        assert_eq!(client.get().status, 200);
        assert_eq!(house.upstream.count(), done + count, "something was done that is not on stable storage");
    }
    std::fs::remove_file(&trigger).unwrap();
    eventually("it goes on by itself", || client.post().status == 200);
    assert_eq!(gateway.ready().0, 200);
    gateway.terminate();
    assert_eq!(gateway.ended(PATIENCE), Some(0));
    let ledger = sound(&house, &[]);
    for count in 1..=3 {
        let found = ledger.by_request(&format!("hung-{count}"));
        assert_eq!(found.len(), 1, "{found:?}");
        let completion = found[0].1.completion.as_ref().unwrap();
        assert_eq!((completion.decision.as_deref(), completion.status), (Some("deny"), Some(503)), "{found:?}");
    }
}

#[test]
fn a_journal_folder_that_is_gone_refuses_until_it_is_back() {
    let house = House::new();
    let gateway = house.start(&Setup::default());
    let client = Client { gateway: &gateway, token: house.token1() };
    let load = Load::start(&Mix::of(&house), gateway.public, 4);
    load.until(50);
    let away = house.dir.path().join("audit-away");
    std::fs::rename(house.journal(), &away).unwrap();
    eventually("requests are refused", || unavailable(&client.get()));
    let done = arrived(&house);
    for answer in [client.post(), client.get(), client.foreign()] {
        assert!(unavailable(&answer), "{}", answer.text());
    }
    assert_eq!(house.upstream.count(), done);
    let (status, wrong) = gateway.ready();
    assert_eq!((status, wrong.len(), &*wrong[0].0), (503, 1, "audit"), "{wrong:?}");
    assert!(wrong[0].1.contains("is gone"), "{wrong:?}");
    // Long enough for the index to look as well.
    thread::sleep(Duration::from_millis(600));
    std::fs::rename(&away, house.journal()).unwrap();
    eventually("it goes on by itself", || client.get().status == 200);
    eventually("it is ready again", || gateway.ready().0 == 200);
    let told = load.stop();
    gateway.terminate();
    assert_eq!(gateway.ended(PATIENCE), Some(0));
    sound(&house, &told);
}

#[test]
fn a_journal_that_cannot_be_written_at_all_refuses_the_start() {
    let house = House::new();
    std::fs::write(house.journal(), "no folder").unwrap();
    let (status, log) = house.refused_start(&Setup::default());
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("the audit journal in `") && log.contains("Not a directory"), "{log}");
    std::fs::remove_file(house.journal()).unwrap();
    let mount = Mount::over(&house.journal());
    mount.remount("ro");
    let (status, log) = house.refused_start(&Setup::default());
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("cannot open `") && log.contains("Read-only file system"), "{log}");
    mount.remount("rw");
    let disk = Setup { audit: "writes = \"disk\"\nreads = \"os\"\n".into(), ..Setup::default() };
    let (status, log) = house.refused_start(&disk);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("is on tmpfs, where nothing is on stable storage"), "{log}");
    let gateway = house.start(&Setup::default());
    let (status, log) = house.refused_start(&Setup::default());
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("is in use by another server"), "{log}");
    drop(gateway);
}

/// Without its journal a server begins a new chain; that the old one is missing must be told.
#[test]
fn a_journal_that_vanished_is_told_at_the_start() {
    let house = House::new();
    let gateway = house.start(&Setup::default());
    let chain = Ledger::new(house.journal()).chain();
    eventually("the index knows the chain", || house.indexed(chain).is_some());
    gateway.terminate();
    assert_eq!(gateway.ended(PATIENCE), Some(0));
    assert!(!house.log_text().contains("a new audit chain begins"));
    std::fs::remove_dir_all(house.journal()).unwrap();
    drop(house.start(&Setup::default()));
    assert!(house.log_text().contains("a new audit chain begins, and the database knows others"));
}

#[test]
fn a_journal_whose_tail_was_cut_off_refuses_the_start() {
    let house = House::new();
    let gateway = house.start(&Setup::default());
    let client = Client { gateway: &gateway, token: house.token1() };
    assert_eq!(client.get().status, 200);
    let mut ledger = Ledger::new(house.journal());
    let chain = ledger.chain();
    eventually("the index has seen all", || {
        ledger.read();
        ledger.records.values().all(|entry| entry.completion.is_some())
            && house.indexed(chain).is_some_and(|head| head.seq == ledger.last_seq)
    });
    gateway.kill();
    let path = house.journal().join(segment(1));
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let left = lines[..lines.len() - 1].join("\n") + "\n";
    std::fs::write(&path, &left).unwrap();
    let (status, log) = house.refused_start(&Setup::default());
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("its tail was cut off"), "{log}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), left, "the evidence was written to");
    std::fs::write(&path, text).unwrap();
    let gateway = house.start(&Setup::default());
    assert_eq!(Client { gateway: &gateway, token: house.token1() }.get().status, 200);
}

fn segment(number: u64) -> String {
    let path = linkgate::audit::reader::segment_path(Path::new(""), number);
    path.to_str().unwrap().to_owned()
}

/// Whoever alters a record before it is indexed is found by the index; from then on nothing is accepted.
#[test]
fn an_altered_record_stops_the_gateway_from_accepting_more() {
    let house = House::new();
    let gateway = house.start(&Setup::default());
    let client = Client { gateway: &gateway, token: house.token1() };
    assert_eq!(client.get().status, 200);
    let url = format!("sqlite://{}", house.dir.path().join("audit-index.db").display());
    // The index waits at a lock, with what it has read, while the next record is written and altered.
    let mut lock = house.block_on(SqliteConnection::connect(&url)).unwrap();
    house.block_on(lock.execute("BEGIN IMMEDIATE")).unwrap();
    assert_eq!(client.get().status, 200);
    thread::sleep(Duration::from_millis(700));
    let marked = Request::get("/api/invoices").bearer(&client.token).tenant("t-full").header("X-Request-ID", "altered");
    assert_eq!(gateway.ask(&marked).status, 200);
    let path = house.journal().join(segment(1));
    let at = std::fs::read(&path).unwrap().windows(9).position(|bytes| bytes == b"\"altered\"").unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"\"forgery\"", at as u64).unwrap();
    house.block_on(lock.execute("ROLLBACK")).unwrap();
    eventually("requests are refused", || unavailable(&client.get()));
    let (status, wrong) = gateway.ready();
    assert_eq!(status, 503);
    assert!(wrong.iter().any(|(name, what)| name == "audit" && what.contains("linkgate audit verify")), "{wrong:?}");
    // The index goes on no more, and that is no secret either.
    assert!(wrong.iter().any(|(name, what)| name == "tasks" && what.contains("audit_index")), "{wrong:?}");
    assert_eq!(gateway.metric("linkgate_tasks_ended_total{task=\"audit_index\"}"), Some(1.0));
    for alive in ["outbox_relay", "change_feed", "stream_sweep", "housekeeping", "write_outcomes", "listener"] {
        assert_eq!(gateway.metric(&format!("linkgate_tasks_ended_total{{task=\"{alive}\"}}")), Some(0.0), "{alive}");
    }
    gateway.kill();
    let (status, log) = house.refused_start(&Setup::default());
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("its hash does not fit its content"), "{log}");
}
