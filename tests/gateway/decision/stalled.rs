//! A disk that takes its time: what was revoked while a record waited for it is not allowed.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use linkgate::audit::medium::{Medium, OsMedium, SegmentFile};
use serde_json::{Value, json};

use super::{PDP, http::nginx, listener, process::eventually, record, rig_with};
use crate::{
    client::{Answer, Request},
    rig::{Rig, Setup},
};

/// Whatever is synced waits while it is told to.
#[derive(Default)]
struct Disk {
    stalls: AtomicBool,
    waiting: AtomicUsize,
}

#[derive(Clone)]
struct Stalling(Arc<Disk>);

struct File {
    file: Arc<dyn SegmentFile>,
    disk: Arc<Disk>,
}

impl Medium for Stalling {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>> {
        Ok(Arc::new(File { file: OsMedium.create(path)?, disk: Arc::clone(&self.0) }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>> {
        Ok(Arc::new(File { file: OsMedium.open(path)?, disk: Arc::clone(&self.0) }))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsMedium.sync_dir(dir)
    }
}

impl SegmentFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.waiting.fetch_add(1, Ordering::SeqCst);
        while self.disk.stalls.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        self.disk.waiting.fetch_sub(1, Ordering::SeqCst);
        self.file.sync()
    }

    fn reserve(&self, offset: u64, length: u64) -> io::Result<bool> {
        self.file.reserve(offset, length)
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        self.file.is_at(path)
    }
}

/// Asks while the disk stalls, and revokes the link before it goes on; with the rig for what was recorded.
fn asked_and_revoked(ask: impl FnOnce(&Rig) -> (Request, std::net::SocketAddr)) -> (Rig, Answer) {
    let disk = Arc::new(Disk::default());
    let audit = "writes = \"disk\"\nreads = \"disk\"\n".to_owned();
    let rig = rig_with(Setup { audit, medium: Arc::new(Stalling(Arc::clone(&disk))), ..Setup::default() });
    let (request, to) = ask(&rig);
    // Everything is warm, and it is allowed.
    assert_eq!(request.clone().send(to).status, 200);
    disk.stalls.store(true, Ordering::SeqCst);
    let asking = thread::spawn(move || request.send(to));
    eventually("a record that waits for the disk", || disk.waiting.load(Ordering::SeqCst) > 0);
    rig.revoke("t-full");
    thread::sleep(Duration::from_secs(1));
    assert!(!asking.is_finished(), "its record is not kept yet");
    disk.stalls.store(false, Ordering::SeqCst);
    (rig, asking.join().unwrap())
}

fn assert_denied(rig: &Rig, id: &str) {
    let record = record(rig, id);
    assert_eq!((&record["decision"], &record["reason"]), (&json!("deny"), &json!("link_revoked")), "{record}");
}

#[test]
fn a_check_is_not_allowed_by_what_was_decided_before_the_disk() {
    let (rig, answer) = asked_and_revoked(|rig| (nginx(rig, "GET", "/api/invoices").tenant("t-full"), listener(rig)));
    assert_eq!((answer.status, &*answer.error()), (403, "TENANT_ACCESS_DENIED/link_inactive"), "{}", answer.text());
    assert_denied(&rig, answer.header("x-decision-id"));
}

#[test]
fn a_service_that_vouches_for_a_user_is_not_told_what_was_decided_before_the_disk() {
    let question = json!({
        "subject": {"type": "user", "id": "user-1", "properties": {"roles": ["partner_msp_full"]}},
        "action": {"name": "partner.billing.invoices.read"},
        "resource": {"type": "tenant", "id": "t-full"},
        "context": {"ip": "192.0.2.7"},
    });
    let (rig, answer) = asked_and_revoked(|rig| {
        (Request::new("POST", "/access/v1/evaluation").bearer(PDP).json(&question.to_string()), listener(rig))
    });
    let told: Value = answer.json();
    assert_eq!(told["decision"], false, "{told}");
    assert_denied(&rig, told["context"]["decision_id"].as_str().unwrap());
}

#[test]
fn a_forwarded_request_is_recorded_as_denied_where_it_is_refused_behind_the_disk() {
    let (rig, answer) =
        asked_and_revoked(|rig| (Request::get("/api/invoices").tenant("t-full").bearer(&rig.token()), rig.public));
    assert_eq!((answer.status, &*answer.error()), (403, "TENANT_ACCESS_DENIED/link_inactive"), "{}", answer.text());
    assert_eq!(rig.upstream.count(), 1, "the one before");
    assert_denied(&rig, answer.header("x-decision-id"));
}
