//! What a start takes for a torn tail, and what it refuses because records could be lost by cutting it off.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use linkgate::audit::{Journal, JournalError, evidence::Checkpointer, line::Line, reader::segment_path};
use tempfile::TempDir;

use crate::{
    evidence::{Memory, signer},
    support::*,
};

const SECTOR: usize = 512;

/// A journal whose server ended, with this many records at least; in its last line a sector ends, and not at its seams.
async fn ended() -> (TempDir, Vec<u8>) {
    let dir = folder();
    let journal = open(dir.path());
    write(&journal, 20).await;
    loop {
        write(&journal, 1).await;
        journal.settle().await.unwrap();
        let bytes = fs::read(last_segment(dir.path())).unwrap();
        let begin = starts(&bytes).pop().unwrap();
        let sector = (bytes.len() - 1) / SECTOR * SECTOR;
        if begin + 10 < sector && sector + 10 < bytes.len() {
            drop(journal);
            assert_eq!(fs::read(last_segment(dir.path())).unwrap(), bytes, "closing adds nothing");
            return (dir, bytes);
        }
    }
}

/// Where each line begins.
fn starts(bytes: &[u8]) -> Vec<usize> {
    let behind = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    [0].into_iter().chain(behind.filter(|at| *at < bytes.len())).collect()
}

fn all_files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect()
}

/// A start is refused, and leaves everything as it is.
fn refused(dir: &Path) -> JournalError {
    let before = all_files(dir);
    let error = Journal::open(settings(dir)).map(drop).unwrap_err();
    assert_eq!(all_files(dir), before, "nothing is changed");
    error
}

/// Zeros up to the very end, and those of whole sectors behind which no whole line stands.
#[tokio::test]
async fn zeros_that_a_crash_left_are_cut() {
    let (dir, whole) = ended().await;
    let path = last_segment(dir.path());
    let starts = starts(&whole);
    let (last, before) = (starts[starts.len() - 1], starts[starts.len() - 3]);
    let sector = (whole.len() - 1) / SECTOR * SECTOR;
    let zeroed = |from: usize, to: usize| {
        let mut bytes = whole.clone();
        bytes.resize(to.max(whole.len()), b'x');
        bytes[from..to].fill(0);
        bytes
    };
    let tails = [
        ("up to the end", zeroed(last + 10, whole.len()), last),
        ("from a line's end on", zeroed(last, whole.len() + 4000), last),
        ("over several lines up to the end", zeroed(before + 10, whole.len()), before),
        ("a sector in the last line", zeroed(last + 10, sector), last),
        ("over several lines into the last one", zeroed(before + 10, sector), before),
    ];
    for (what, bytes, cut) in tails {
        let copy = folder();
        fs::copy(dir.path().join("chain.json"), copy.path().join("chain.json")).unwrap();
        let path = copy.path().join(path.file_name().unwrap());
        fs::write(&path, &bytes).unwrap();
        let (journal, recovery) = Journal::open(settings(copy.path())).unwrap();
        assert_eq!(recovery.cut_bytes, (bytes.len() - cut) as u64, "{what}");
        drop(journal);
        sound(copy.path());
    }
}

/// One byte that became zero: a crash leaves no such thing, and the records behind it were promised.
#[tokio::test]
async fn a_zero_in_a_line_is_an_alteration_wherever_it_stands() {
    let (dir, whole) = ended().await;
    let path = last_segment(dir.path());
    let starts = starts(&whole);
    for line in [0, 1, starts.len() / 2, starts.len() - 1] {
        // Not just before a sector's end.
        let at = (starts[line] + 20..).find(|at| (at + 1) % SECTOR != 0).unwrap();
        let mut bytes = whole.clone();
        bytes[at] = 0;
        fs::write(&path, bytes).unwrap();
        let error = refused(dir.path());
        assert!(
            matches!(&error, JournalError::Broken { line: found, file, .. } if *file == path
            && *found == line as u64 + 1),
            "line {line}: {error}"
        );
    }
    fs::write(&path, whole).unwrap();
    open(dir.path());
}

/// A sector of zeros with whole lines behind it: a power failure or an alteration, which nobody here can know. The message
/// says how to go on.
#[tokio::test]
async fn a_hole_with_whole_lines_behind_it_is_refused_and_told() {
    let (dir, whole) = ended().await;
    let path = last_segment(dir.path());
    let starts = starts(&whole);
    // To the end of the sector, and from a line's middle to just where another one begins.
    let middle = whole.len() / 2 / SECTOR * SECTOR;
    for (from, to) in [(middle, middle + SECTOR), (0, SECTOR)] {
        let mut bytes = whole.clone();
        bytes[from..to].fill(0);
        fs::write(&path, &bytes).unwrap();
        let begin = *starts.iter().rfind(|start| **start <= from).unwrap();
        let line = starts.iter().position(|start| *start == begin).unwrap() as u64 + 1;
        let error = refused(dir.path());
        let JournalError::Hole { line: found, keep, .. } = &error else { panic!("{error}") };
        assert_eq!((*found, *keep), (line, begin as u64 + 1));
        assert!(error.to_string().contains(&format!("truncate -s {keep} {}", path.display())), "{error}");
    }
    let mut bytes = whole.clone();
    bytes[middle..middle + SECTOR].fill(0);
    fs::write(&path, &bytes).unwrap();
    let JournalError::Hole { keep, .. } = refused(dir.path()) else { panic!("another refusal") };
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(keep).unwrap();
    let (journal, recovery) = Journal::open(settings(dir.path())).unwrap();
    assert_eq!(recovery.cut_bytes, 1, "the cut is told");
    drop(journal);
    sound(dir.path());
}

/// Whatever the tail looks like: what a checkpoint beside the journal covers is not cut off, and was not.
#[tokio::test]
async fn nothing_that_a_checkpoint_covers_may_be_missing() {
    let (dir, _) = ended().await;
    let journal = open(dir.path());
    let mut checkpointer = Checkpointer::new(journal.clone(), Arc::<Memory>::default(), signer(), Default::default());
    checkpointer.sign_now().await.unwrap();
    let signed = journal.settle().await.unwrap();
    write(&journal, 2).await;
    drop((checkpointer, journal));
    let path = last_segment(dir.path());
    let whole = fs::read(&path).unwrap();
    let covered = usize::try_from(signed.offset).unwrap();
    let last = starts(&whole[..covered]).pop().unwrap();

    // At a line's end, and within the line.
    for end in [last, last + 30] {
        fs::write(&path, &whole[..end]).unwrap();
        let error = refused(dir.path());
        let found = signed.head.seq - 1;
        assert!(
            matches!(error, JournalError::BelowCheckpoint { signed: seq, found: end } if seq == signed.head.seq
            && end == found),
            "{error}"
        );
    }
    // Zeros from there to the end.
    let mut bytes = whole.clone();
    bytes[last + 30..].fill(0);
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(refused(dir.path()), JournalError::BelowCheckpoint { .. }));
    // Another past, as long: a journal that was written anew.
    let mut shelf = fs::read_to_string(dir.path().join("checkpoints.log")).unwrap();
    let text = std::str::from_utf8(&whole).unwrap();
    let hash = Line::parse(text.lines().nth(3).unwrap().as_bytes()).unwrap().hash.to_string();
    shelf = shelf.replace(&signed.head.hash.to_string(), &hash);
    let honest = fs::read(dir.path().join("checkpoints.log")).unwrap();
    fs::write(dir.path().join("checkpoints.log"), shelf).unwrap();
    fs::write(&path, &whole).unwrap();
    assert!(matches!(refused(dir.path()), JournalError::NotAsSigned(seq) if seq == signed.head.seq));
    fs::write(dir.path().join("checkpoints.log"), honest).unwrap();

    // What lies behind it may be torn, and what is no checkpoint says nothing.
    fs::write(&path, &whole[..covered + 30]).unwrap();
    let mut shelf = fs::read(dir.path().join("checkpoints.log")).unwrap();
    shelf.extend_from_slice(b"nonsense\n{\"note\":");
    fs::write(dir.path().join("checkpoints.log"), shelf).unwrap();
    let (journal, recovery) = Journal::open(settings(dir.path())).unwrap();
    assert_eq!(recovery.cut_bytes, 30);
    drop(journal);
    sound(dir.path());
}

/// The machine lost power while a new segment was begun: what comes before it had not arrived, and so nothing in it was
/// promised. Without the mark, somebody cut it.
#[tokio::test]
async fn a_marked_segment_goes_with_the_end_of_the_one_before_it() {
    let dir = folder();
    let mut small = settings(dir.path());
    small.segment_bytes = 5_000;
    let journal = Journal::open(small.clone()).unwrap().0;
    while journal.status().written.segment == 1 {
        write(&journal, 1).await;
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    write(&journal, 3).await;
    drop(journal);
    let (first, second) = (segment_path(dir.path(), 1), segment_path(dir.path(), 2));
    let (before, behind) = (fs::read(&first).unwrap(), fs::read(&second).unwrap());
    let mark = dir.path().join("segment-0000000002.seam");
    assert!(!mark.exists());
    let last = starts(&before).pop().unwrap();
    for (end, torn) in [(last, 0), (last + 30, 30)] {
        fs::write(&first, &before[..end]).unwrap();
        fs::write(&second, &behind).unwrap();
        assert!(matches!(refused(dir.path()), JournalError::Broken { .. }), "no mark");
        fs::write(&mark, "").unwrap();
        let (journal, recovery) = Journal::open(small.clone()).unwrap();
        assert_eq!(recovery.cut_bytes, torn + behind.len() as u64);
        assert!(!mark.exists() && !second.exists());
        let kept = all_files(dir.path());
        assert_eq!(kept["cut-0000000002-0.0"], behind, "it is kept beside the journal");
        write(&journal, 1).await;
        drop(journal);
        sound(dir.path());
        for name in kept.keys().filter(|name| name.starts_with("cut-")) {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        fs::remove_file(&second).ok();
    }
    // What it goes on from is whole: the mark says nothing.
    fs::write(&first, &before).unwrap();
    fs::write(&second, &behind).unwrap();
    fs::write(&mark, "").unwrap();
    let (journal, recovery) = Journal::open(small).unwrap();
    assert!(recovery.cut_bytes == 0 && !mark.exists());
    drop(journal);
    sound(dir.path());
}
