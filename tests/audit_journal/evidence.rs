//! Signed checkpoints: when they are made, and what they find that the chain alone cannot tell.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::{rand::SystemRandom, signature::Ed25519KeyPair};
use base64::{Engine, engine::general_purpose::STANDARD};
use linkgate::{
    audit::{
        ChainHead, ChainId, ChangeRecord, Durability, EvidenceStore, IndexUnavailable, Journal, JournalError, Kind,
        evidence::{
            Cause, Checkpoint, Checkpointer, Kept, Keys, Signer, prune, shelf,
            tree::{Tile, TileAt},
            witness::Witness,
        },
        indexer::IndexerError,
        line::Line,
        reader::{chain_file, segment_path, segments},
        ship::{FileSettings, Form, ShipSettings, Shipper},
        verify::{Problem, Verification, VerifyOptions, verify_against},
    },
    domain::{DecisionId, Millis},
};
use tempfile::TempDir;

use crate::{support::*, tamper::journal as three_segments};

/// A database in memory, or one that is away.
#[derive(Default)]
pub(crate) struct Memory {
    kept: Mutex<Vec<Kept>>,
    tiles: Mutex<BTreeMap<TileAt, Vec<u8>>>,
    away: AtomicBool,
}

impl EvidenceStore for Memory {
    async fn last(&self, _: ChainId) -> Result<Option<(Kept, Vec<Tile>)>, IndexUnavailable> {
        let last = self.kept.lock().unwrap().last().cloned();
        let tiles = self.tiles.lock().unwrap().iter().map(|(at, bytes)| (*at, bytes.clone())).collect();
        Ok(last.map(|kept| (kept, tiles)))
    }

    async fn keep(&self, _: ChainId, signed: &[Kept], tiles: &[Tile]) -> Result<(), IndexUnavailable> {
        if self.away.load(Ordering::SeqCst) {
            return Err(IndexUnavailable::new("away"));
        }
        self.kept.lock().unwrap().extend(signed.iter().cloned());
        self.tiles.lock().unwrap().extend(tiles.iter().cloned());
        Ok(())
    }
}

pub(crate) fn signer() -> Arc<Signer> {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let body = STANDARD.encode(pkcs8.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
    Arc::new(Signer::from_pem(pem.as_bytes()).unwrap())
}

fn keys(of: &Signer) -> Keys {
    let mut keys = Keys::default();
    keys.extend([of.public().clone()]);
    keys
}

/// A journal of three segments with checkpoints in between, closed; and one that continues from there.
struct House {
    dir: TempDir,
    store: Arc<Memory>,
    signer: Arc<Signer>,
    /// The head that the database saw.
    head: ChainHead,
}

const HOUR: Duration = Duration::from_secs(3600);

impl House {
    async fn new() -> Self {
        let dir = folder();
        let head = three_segments(dir.path()).await;
        let house = Self { dir, store: Arc::default(), signer: signer(), head };
        house.sign().await.unwrap();
        house
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn open(&self) -> Journal {
        let mut small = settings(self.path());
        small.segment_bytes = 8_000;
        Journal::open(small).unwrap().0
    }

    fn checkpointer(&self, journal: &Journal) -> Checkpointer<Memory> {
        Checkpointer::new(journal.clone(), Arc::clone(&self.store), Arc::clone(&self.signer), HOUR)
    }

    async fn sign(&self) -> Result<(), IndexerError> {
        let journal = self.open();
        self.checkpointer(&journal).finish().await
    }

    fn shelf(&self) -> Vec<(Checkpoint, Kept)> {
        let mut all = Vec::new();
        shelf::each::<std::io::Error>(self.path(), |kept| {
            all.push((kept.checkpoint().unwrap(), kept));
            Ok(())
        })
        .unwrap();
        all
    }

    fn newest(&self) -> String {
        shelf::last(self.path()).unwrap().unwrap().note
    }

    /// What `audit verify --checkpoint` finds; the shelf is left aside unless asked for.
    fn verify(&self, notes: &[&str], keys: &Keys, beside: bool) -> Verification {
        let chain = chain_file(self.path()).unwrap().unwrap().chain_id;
        let mut witness = Witness::new(chain);
        notes.iter().for_each(|note| witness.present(note, keys, "kept elsewhere"));
        if beside {
            witness.recall_shelf(self.path(), keys).unwrap();
        }
        verify_against(self.path(), VerifyOptions::default(), Some(&mut witness)).unwrap()
    }

    fn findings(&self, notes: &[&str]) -> Vec<Problem> {
        let found = self.verify(notes, &keys(&self.signer), false).findings;
        found.into_iter().map(|finding| finding.what).collect()
    }
}

/// Writes the chain anew from the line that `change` alters, as someone who has the whole disk and the database can.
fn rewrite(dir: &Path, change: impl Fn(&mut Vec<String>)) {
    let numbers = segments(dir).unwrap();
    let mut prev = None;
    let mut seq = 0;
    for number in numbers {
        let path = segment_path(dir, number);
        let mut all = lines(&path);
        if number == 2 {
            change(&mut all);
        }
        for text in &mut all {
            let original = text.clone();
            let line = Line::parse(original.as_bytes()).unwrap();
            let mut anew = line.clone();
            seq += 1;
            (anew.seq, anew.prev) = (seq, prev.unwrap_or(line.prev));
            anew.hash = anew.computed_hash();
            *text = text
                .replacen(&format!("\"seq\":{}", line.seq), &format!("\"seq\":{seq}"), 1)
                .replacen(&line.hash.to_string(), &anew.hash.to_string(), 1)
                .replacen(&format!("\"prev\":\"{}\"", line.prev), &format!("\"prev\":\"{}\"", anew.prev), 1);
            prev = Some(anew.hash);
        }
        write_lines(&path, &all);
    }
}

#[tokio::test]
async fn checkpoints_come_at_the_end_of_segments_at_the_interval_and_at_a_stop() {
    let house = House::new().await;
    let journal = house.open();
    let mut running =
        Checkpointer::new(journal.clone(), Arc::clone(&house.store), Arc::clone(&house.signer), Duration::ZERO);
    let progress = running.progress();
    running.sign_now().await.unwrap();
    let quiet = house.shelf().len();
    running.sign_now().await.unwrap();
    assert_eq!(house.shelf().len(), quiet, "nothing was written: nothing is signed");
    write(&journal, 2).await;
    running.sign_now().await.unwrap();
    assert_eq!(progress.signed_seq(), journal.status().last_seq);
    write(&journal, 1).await;
    running.finish().await.unwrap();
    let shelf = house.shelf();
    let causes: Vec<Cause> = shelf.iter().map(|(_, kept)| kept.cause).collect();
    assert_eq!(causes, [Cause::Segment, Cause::Segment, Cause::Stop, Cause::Interval, Cause::Stop]);
    for (said, kept) in &shelf {
        assert_eq!(Checkpoint::open(&kept.note, &keys(&house.signer)).as_ref(), Ok(said));
        assert_eq!(said.first, 1);
    }
    // A segment's checkpoint ends with the segment's last line.
    let second = lines(&segment_path(house.path(), 2));
    assert_eq!(Line::parse(second[0].as_bytes()).unwrap().seq, shelf[0].0.head.seq + 1);
    assert!(house.verify(&[], &keys(&house.signer), true).is_sound());
    assert_eq!(house.verify(&[], &keys(&house.signer), true).checkpoints, 5);
    assert_eq!(*house.store.kept.lock().unwrap().iter().map(|kept| &kept.note).collect::<Vec<_>>(), {
        shelf.iter().map(|(_, kept)| &kept.note).collect::<Vec<_>>()
    });
}

#[tokio::test]
async fn a_tree_goes_on_over_restarts_and_while_the_database_is_away() {
    let house = House::new().await;
    for round in 0..4 {
        let journal = house.open();
        let mut running = house.checkpointer(&journal);
        // More than one tile of the tree.
        write(&journal, 100).await;
        house.store.away.store(round == 1, Ordering::SeqCst);
        running.sign_now().await.unwrap();
        house.store.away.store(round == 3, Ordering::SeqCst);
        write(&journal, 3).await;
        running.finish().await.unwrap();
    }
    let (head, _) = house.shelf().pop().unwrap();
    assert!(head.size() > 800, "{head:?}");
    let result = house.verify(&[], &keys(&house.signer), true);
    assert!(result.is_sound() && result.checkpoints > 8, "{:?}", result.findings);
    // The tiles in the database lead from every line to the root.
    house.store.away.store(false, Ordering::SeqCst);
    house.sign().await.unwrap();
    let last = house.store.kept.lock().unwrap().last().unwrap().checkpoint().unwrap();
    let tiles = linkgate::audit::evidence::tree::Tiles(house.store.tiles.lock().unwrap().clone().into_iter().collect());
    assert!((0..last.size()).all(|index| tiles.way(index, last.size()).is_some()));
}

#[tokio::test]
async fn a_chain_that_was_written_anew_is_found_by_a_checkpoint_only() {
    let house = House::new().await;
    let kept = house.newest();
    let shelf = house.shelf();
    assert_eq!(house.findings(&[&kept]), []);
    assert_eq!(house.verify(&[&kept], &keys(&house.signer), false).checkpoints, 1);
    rewrite(house.path(), |all| {
        let at = all.iter().position(|line| line.contains("invoices")).unwrap();
        all[at] = all[at].replacen("invoices", "invoicez", 1);
    });
    assert_eq!(house.findings(&[]), [], "the chain itself is perfect again");
    let [Problem::Rewritten { good: 0, .. }] = house.findings(&[&kept])[..] else {
        panic!("{:?}", house.findings(&[&kept]))
    };
    // With one from before, the place is known better.
    let early = &shelf[0];
    let found = house.verify(&[&kept, &early.1.note], &keys(&house.signer), false);
    let [finding] = &found.findings[..] else { panic!("{:?}", found.findings) };
    assert_eq!(finding.seq, Some(shelf[2].0.head.seq));
    assert!(finding.what.to_string().contains(&format!("lies between {}", early.0.head.seq + 1)), "{finding}");
    assert_eq!(found.checkpoints, 1, "the early one holds");
    // Nor does a server go on with it; and where the checkpoints beside it went too, whoever signs on refuses to
    // contradict what was signed.
    let refused = Journal::open(settings(house.path())).map(drop);
    assert!(matches!(refused, Err(JournalError::NotAsSigned(_))), "{refused:?}");
    fs::remove_file(shelf::path(house.path())).unwrap();
    let refused = house.sign().await;
    assert!(matches!(refused, Err(IndexerError::Journal(JournalError::Diverged(_)))), "{refused:?}");
}

#[tokio::test]
async fn every_kind_of_tampering_is_found_with_a_checkpoint() {
    let house = House::new().await;
    let kept = house.newest();
    let path = segment_path(house.path(), 2);
    let original = lines(&path);
    type Act = (&'static str, fn(&mut Vec<String>), &'static str);
    let acts: [Act; 4] = [
        ("an alteration", |all| all[4] = all[4].replacen("\"id\":\"0", "\"id\":\"1", 1), "altered"),
        ("a gap", |all| drop(all.drain(3..5)), "removed: records"),
        ("a reordering", |all| all.swap(5, 6), "removed: records"),
        ("an insertion", |all| all.insert(4, all[3].clone()), "inserted or moved"),
    ];
    for (what, act, words) in acts {
        let mut changed = original.clone();
        act(&mut changed);
        write_lines(&path, &changed);
        let found = house.findings(&[&kept]);
        assert!(found[0].to_string().contains(words), "{what}: {found:?}");
        assert!(found.len() <= 3, "{what} is told once: {found:?}");
        write_lines(&path, &original);
        assert_eq!(house.findings(&[&kept]), [], "{what} undone");
    }
    // A slice that was altered together with the chain behind it, its hash kept: nothing is left of that way.
    rewrite(house.path(), |all| {
        let at = all.iter().position(|line| line.contains("\"slices\":[")).unwrap();
        all[at] = all[at].replacen("\"t-2\"", "\"t-9\"", 1);
    });
    assert!(matches!(house.findings(&[&kept])[..], [Problem::Rewritten { .. }]));
}

#[tokio::test]
async fn a_tail_that_was_cut_off_is_found_though_the_database_was_cut_as_well() {
    let house = House::new().await;
    let (early, kept) = (house.shelf()[1].1.note.clone(), house.newest());
    let last = segment_path(house.path(), 3);
    let all = lines(&last);
    write_lines(&last, &all[..all.len() - 2]);
    assert_eq!(house.findings(&[]), []);
    assert_eq!(house.findings(&[&early]), [], "what it covers is all there");
    let [Problem::Shorter { signed, found, .. }] = house.findings(&[&kept])[..] else { panic!() };
    assert_eq!((signed, found), (house.head.seq, house.head.seq - 2));
    fs::remove_file(&last).unwrap();
    assert!(matches!(house.findings(&[&kept, &early])[..], [Problem::Shorter { .. }]));
}

#[tokio::test]
async fn a_checkpoint_must_be_signed_by_the_key_and_of_the_chain() {
    let house = House::new().await;
    let kept = house.newest();
    let own = keys(&house.signer);
    assert!(house.verify(&[&kept], &own, false).is_sound());
    let words = |notes: &[&str], keys: &Keys| {
        let found = house.verify(notes, keys, false).findings;
        found.iter().map(|finding| finding.what.to_string()).collect::<Vec<_>>().join("; ")
    };
    let forged =
        kept.replacen(&format!("records 1-{}", house.head.seq), &format!("records 1-{}", house.head.seq + 1), 1);
    assert!(words(&[&forged], &own).contains("do not fit together"));
    let size = house.head.seq + 1;
    let forged = forged.replacen(&format!("\n{}\n", house.head.seq), &format!("\n{size}\n"), 1);
    assert!(words(&[&forged], &own).contains("forged"), "{}", words(&[&forged], &own));
    assert!(words(&[&kept], &keys(&signer())).contains("none of the given keys"));
    assert!(words(&["nonsense"], &own).contains("no signed note"));
    // Of another chain, by the same key.
    let other = House { signer: Arc::clone(&house.signer), ..House::new().await };
    other.store.kept.lock().unwrap().clear();
    fs::remove_file(shelf::path(other.path())).unwrap();
    other.sign().await.unwrap();
    assert!(other.verify(&[&other.newest()], &own, false).is_sound());
    assert!(words(&[&other.newest()], &own).contains("another one"), "{}", words(&[&other.newest()], &own));
    // One of the future: signed when the journal was longer.
    let older = folder();
    for entry in fs::read_dir(house.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), older.path().join(entry.file_name())).unwrap();
    }
    let journal = house.open();
    write(&journal, 1).await;
    house.checkpointer(&journal).finish().await.unwrap();
    let future = house.newest();
    assert!(house.verify(&[&future], &own, true).is_sound());
    let copy = House { dir: older, store: Arc::default(), signer: Arc::clone(&house.signer), head: house.head };
    assert!(matches!(copy.findings(&[&future])[..], [Problem::Shorter { .. }]));
    assert_eq!(copy.findings(&[&kept]), []);
}

#[tokio::test]
async fn the_shelf_is_checked_too() {
    let house = House::new().await;
    let own = keys(&house.signer);
    assert!(house.verify(&[], &own, true).is_sound());
    // Someone rewrites the journal and signs the shelf with a key of their own.
    let all = house.shelf();
    let other = signer();
    let mut forged = shelf_lines(house.path());
    let frontier = all[2].1.frontier(&all[2].0);
    assert!(frontier.is_none(), "only the ends of segments keep their tree");
    let frontier = all[1].1.frontier(&all[1].0).unwrap();
    let (_, note) = Checkpoint::signed(&other, all[1].0.chain_id, 1, all[1].0.head, &frontier);
    forged.pop();
    forged
        .push(serde_json::to_string(&Kept { note, cause: Cause::Stop, segment: 2, offset: 0, peaks: vec![] }).unwrap());
    write_lines(&shelf::path(house.path()), &forged);
    let found = house.verify(&[], &own, true).findings;
    assert!(found[0].what.to_string().contains("none of the given keys"), "{found:?}");
    assert!(house.verify(&[], &Keys::default(), true).is_sound(), "without keys nothing can be said of signatures");
    // A segment's checkpoint with another tree vouches for nothing.
    let mut twisted = all[1].1.clone();
    twisted.peaks.reverse();
    assert!(twisted.peaks.len() < 2 || twisted.frontier(&all[1].0).is_none());
}

fn shelf_lines(dir: &Path) -> Vec<String> {
    lines(&shelf::path(dir))
}

fn plan(house: &House, before: Millis, indexed: Option<u64>, keys: &Keys) -> Result<prune::Plan, prune::PruneError> {
    let chain = chain_file(house.path()).unwrap().unwrap().chain_id;
    prune::plan(house.path(), chain, before, indexed, keys)
}

#[tokio::test]
async fn old_segments_go_and_the_rest_is_verified_from_the_last_one_on() {
    let house = House::new().await;
    let own = keys(&house.signer);
    let soon = Millis(Millis::now().0 + 60_000);
    assert!(matches!(plan(&house, Millis(0), Some(3), &own), Err(prune::PruneError::Nothing(_))));
    assert!(matches!(plan(&house, soon, Some(2), &own), Err(prune::PruneError::NotIndexed { seen: 2, wanted: 2 })));
    assert!(matches!(plan(&house, soon, None, &own), Err(prune::PruneError::NotIndexed { .. })));
    assert!(matches!(plan(&house, soon, Some(3), &Keys::default()), Err(prune::PruneError::NoCheckpoint(2))));
    let found = plan(&house, soon, Some(3), &own).unwrap();
    assert_eq!((found.segments, found.records), ((1, 2), (1, house.shelf()[1].0.head.seq)));

    // What was touched stays as it is.
    let path = segment_path(house.path(), 1);
    let whole = fs::read(&path).unwrap();
    let mut all = lines(&path);
    all[2] = all[2].replacen("\"bytes\":10", "\"bytes\":11", 1);
    write_lines(&path, &all);
    assert!(matches!(plan(&house, soon, Some(3), &own), Err(prune::PruneError::Unsound(_))));
    fs::write(&path, &whole).unwrap();

    // Without a record of it the missing beginning is a finding.
    let kept = house.newest();
    let keep: Vec<_> = (1..=2).map(|number| fs::read(segment_path(house.path(), number)).unwrap()).collect();
    found.remove(house.path()).unwrap();
    let result = house.verify(&[&kept], &own, true);
    assert!(matches!(result.findings[0].what, Problem::Unrecorded), "{:?}", result.findings);
    let journal = house.open();
    let record = ChangeRecord { user_id: Some("cli:root".to_owned()), ..found.record() };
    journal.append_change(&record).await.unwrap();
    let id = DecisionId::generate();
    let open = journal.admit(&opening(id), Durability::Os).await.unwrap();
    house.checkpointer(&journal).sign_now().await.unwrap();
    let result = house.verify(&[&kept], &own, true);
    assert!(result.is_sound(), "{:?}", result.findings);
    let from = result.from_checkpoint.clone().unwrap();
    assert_eq!((from.seq, from.kid), (found.records.1, house.signer.public().kid.clone()));
    assert!(result.checkpoints >= 3, "the tree goes on where it was cut: {}", result.checkpoints);
    // A database that was lost does not make the tree begin anew.
    write(&journal, 1).await;
    let lost = Arc::new(Memory::default());
    Checkpointer::new(journal.clone(), Arc::clone(&lost), Arc::clone(&house.signer), HOUR).sign_now().await.unwrap();
    assert_eq!(lost.kept.lock().unwrap().last().unwrap().checkpoint().unwrap().first, 1);
    let result = house.verify(&[&kept], &own, true);
    assert!(result.is_sound(), "{:?}", result.findings);
    open.complete(done(200));
    drop(journal);

    // A tree written anew behind the pruning is found too, and so is a missing segment in the middle.
    let without = house.verify(&[], &Keys::default(), true);
    assert!(matches!(without.findings[0].what, Problem::StartMissing(3)), "no key, no trust: {:?}", without.findings);
    fs::write(segment_path(house.path(), 1), &keep[0]).unwrap();
    assert!(house.verify(&[], &own, true).findings.iter().any(|found| found.what == Problem::SegmentMissing));
    fs::write(segment_path(house.path(), 2), &keep[1]).unwrap();
    assert!(house.verify(&[&kept], &own, true).is_sound(), "brought back from an archive");
}

#[tokio::test]
async fn what_a_target_does_not_have_yet_stays_unless_it_is_given_up() {
    let house = House::new().await;
    let (own, out) = (keys(&house.signer), folder());
    let soon = Millis(Millis::now().0 + 60_000);
    let path = out.path().join("audit.jsonl");
    let file = FileSettings { path: path.clone(), size: 1 << 30 };
    let ship = ShipSettings { form: Form::Full, stdout: false, file: Some(file), otlp: None };
    let held = |force| plan(&house, soon, Some(3), &own).unwrap().held_for(house.path(), &ship, force);
    let last = plan(&house, soon, Some(3), &own).unwrap().records.1;
    let refused = held(false);
    assert!(
        matches!(refused, Err(prune::PruneError::NotShipped { target: "file", taken: 0, wanted }) if wanted == last),
        "{refused:?}"
    );
    let forced = held(true).unwrap();
    assert_eq!((forced.unshipped[0].target, forced.unshipped[0].taken), ("file", 0));
    assert_eq!(forced.record().before.unwrap()["unshipped"][0]["target"], "file", "the record says so");

    let journal = house.open();
    let shipper = || Shipper::new(journal.clone(), ship.targets().remove(0), Form::Full);
    shipper().catch_up().await.unwrap();
    let found = held(false).unwrap();
    assert!(found.unshipped.is_empty() && found.record().before.unwrap().get("unshipped").is_none());
    // A position at the very end of what goes: it reads on in what is left.
    let all = fs::read(&path).unwrap();
    found.remove(house.path()).unwrap();
    write(&journal, 2).await;
    shipper().catch_up().await.unwrap();
    let shipped = fs::read(&path).unwrap();
    assert!(shipped.len() > all.len() && shipped.starts_with(&all));
    let seqs: Vec<_> = lines(&path).iter().map(|line| Line::parse(line.as_bytes()).unwrap().seq).collect();
    assert_eq!(seqs, (1..=journal.status().last_seq).collect::<Vec<_>>(), "none is missing, none twice");
}

#[tokio::test]
async fn a_record_that_is_still_open_keeps_its_segment() {
    let house = House::new().await;
    let own = keys(&house.signer);
    let journal = house.open();
    let id = DecisionId::generate();
    let open = journal.admit(&opening(id), Durability::Os).await.unwrap();
    let segment = journal.status().written.segment;
    while journal.status().written.segment == segment {
        write(&journal, 1).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    journal.append_change(&ChangeRecord::new(Kind::Link, "link.create")).await.unwrap();
    house.checkpointer(&journal).sign_now().await.unwrap();
    let soon = Millis(Millis::now().0 + 60_000);
    let refused = plan(&house, soon, Some(segment + 1), &own);
    assert!(matches!(refused, Err(prune::PruneError::StillOpen(found)) if found == id), "{refused:?}");
    open.complete(done(200));
    journal.settle().await.unwrap();
    assert_eq!(plan(&house, soon, Some(segment + 1), &own).unwrap().segments, (1, segment));
}

/// A journal whose beginning was moved away before there were checkpoints has a tree of what is left.
#[tokio::test]
async fn a_journal_without_its_beginning_is_signed_from_where_it_begins() {
    let dir = folder();
    let head = three_segments(dir.path()).await;
    fs::remove_file(segment_path(dir.path(), 1)).unwrap();
    let house = House { dir, store: Arc::default(), signer: signer(), head };
    house.sign().await.unwrap();
    let (said, kept) = house.shelf().pop().unwrap();
    let first = Line::parse(lines(&segment_path(house.path(), 2))[0].as_bytes()).unwrap().seq;
    assert_eq!((said.first, said.size()), (first, head.seq + 1 - first));
    let chain = chain_file(house.path()).unwrap().unwrap().chain_id;
    let mut witness = Witness::new(chain);
    witness.present(&kept.note, &keys(&house.signer), "kept elsewhere");
    let options = VerifyOptions { from_segment: Some(2), stored_head: None };
    let result = verify_against(house.path(), options, Some(&mut witness)).unwrap();
    assert!(result.is_sound() && result.checkpoints == 1, "{:?}", result.findings);
}
