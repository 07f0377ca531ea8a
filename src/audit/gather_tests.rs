//! What is held never grows with what is skipped, and the page is that of sorting everything.

use super::*;
use crate::audit::{ChangeRecord, Hash, Kind, Stamp};

/// A change of about `bytes`.
fn record(time: i64, seq: u64, bytes: usize) -> Record {
    let change = ChangeRecord { time: Millis(time), ..ChangeRecord::new(Kind::Admin, "x".repeat(bytes)) };
    let stamp = Stamp { seq, prev_hash: Hash::GENESIS, hash: Hash::GENESIS };
    Record::from_change(change, ChainId(uuid::Uuid::nil()), stamp)
}

fn all() -> Keep<Record> {
    Arc::new(Some)
}

/// Chunks of ten, newest first, each reaching a little into the time of the next.
fn chunks(count: i64, bytes: usize) -> Vec<(Millis, Vec<Kept<Record>>)> {
    let chunk = |at: i64| {
        let times = (at * 10..at * 10 + 10).map(|n| if n % 10 == 0 { n - 5 } else { n });
        let kept: Vec<_> =
            times.map(|n| Kept::of(record(n, u64::try_from(n + 5).unwrap(), bytes), &all()).unwrap()).collect();
        (Millis(at * 10 + 9), kept)
    };
    (0..count).rev().map(chunk).collect()
}

#[test]
fn what_is_skipped_is_not_held() {
    let mut gathering = Gathering::new(1_400, 10, 1 << 20);
    let mut most = 0;
    let mut asked = 0;
    for (latest, kept) in chunks(200, 10_000) {
        if gathering.announce(latest) {
            break;
        }
        asked += 1;
        gathering.add(kept).unwrap();
        most = most.max(gathering.bytes());
    }
    assert!((100_000..400_000).contains(&most), "{most} bytes held at most, of 14,000,000 skipped");
    assert!((141..=143).contains(&asked), "{asked} chunks");
    assert_eq!(gathering.finish().len(), 10);
}

#[test]
fn the_page_is_that_of_all_records_sorted() {
    let mut sorted: Vec<(Millis, u64)> =
        chunks(20, 1).into_iter().flat_map(|(_, kept)| kept).map(|kept| (kept.time, kept.seq)).collect();
    sorted.sort_unstable_by_key(|key| std::cmp::Reverse(*key));
    for (offset, limit) in [(0, 1), (0, 7), (3, 7), (9, 1), (10, 1), (11, 20), (95, 30), (195, 30), (200, 5), (500, 5)]
    {
        let mut gathering = Gathering::new(offset, limit, usize::MAX);
        for (latest, kept) in chunks(20, 1) {
            if gathering.announce(latest) {
                break;
            }
            gathering.add(kept).unwrap();
        }
        let found: Vec<_> = gathering.finish().iter().map(|record| (record.time, record.opening.seq)).collect();
        let expected: Vec<_> = sorted.iter().skip(offset).take(limit).copied().collect();
        assert_eq!(found, expected, "{offset} {limit}");
    }
}

#[test]
fn a_page_that_is_too_large_is_refused() {
    let page = |limit| {
        let mut gathering = Gathering::new(0, limit, 50_000);
        chunks(2, 10_000).into_iter().try_for_each(|(_, kept)| gathering.add(kept))
    };
    assert_eq!(page(4), Ok(()));
    assert_eq!(page(5), Err(TooMuch(50_000)));
}

#[test]
fn an_answer_that_ends_early_has_no_gaps() {
    let mut gathering = Gathering::new(0, 100, usize::MAX);
    let mut chunks = chunks(2, 1).into_iter();
    let (latest, kept) = chunks.next().unwrap();
    assert!(!gathering.announce(latest));
    gathering.add(kept).unwrap();
    gathering.cut_before(chunks.next().unwrap().0);
    let times: Vec<i64> = gathering.finish().iter().map(|record| record.time.0).collect();
    assert_eq!(times, [19, 18, 17, 16, 15, 14, 13, 12, 11], "5 may have others before it");
}

#[test]
fn what_is_shown_is_what_counts() {
    let none: Keep<u8> = Arc::new(|_| None);
    assert!(Kept::of(record(1, 1, 9), &none).is_none());
    let little: Keep<u8> = Arc::new(|_| Some(1));
    assert!(Kept::of(record(1, 1, 10_000), &little).unwrap().bytes < 200);
}
