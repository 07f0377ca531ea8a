//! `kill -9` under load, again and again on one journal and one database.

use std::time::Duration;

use linkgate::domain::Millis;

use crate::{
    gateway::{House, Setup},
    ledger::Ledger,
    load::{Load, Mix, reconcile},
};

const CLIENTS: usize = 12;

/// Every kind of promise that survives the death of the process, and segments so small that many begin under load.
fn setups() -> Vec<Setup> {
    [("os", "os"), ("disk", "os"), ("os", "os"), ("disk", "disk")]
        .map(|(writes, reads)| Setup {
            audit: format!("writes = \"{writes}\"\nreads = \"{reads}\"\nsegment_size = \"128KiB\"\n"),
            ..Setup::default()
        })
        .to_vec()
}

#[test]
fn every_answer_has_exactly_one_record_after_kill_9_under_load() {
    rounds(&House::new(), 20);
}

#[test]
fn every_answer_has_exactly_one_record_with_the_index_in_postgres() {
    let (house, _relay, _made) = crate::database::on_postgres();
    rounds(&house, 4);
}

fn rounds(house: &House, rounds: usize) {
    let mut ledger = Ledger::new(house.journal());
    let mix = Mix::of(house);
    let setups = setups();
    let mut gateway = house.start(&setups[0]);
    let (mut answered, mut unanswered, mut aborted) = (0, 0, 0);
    for round in 0..rounds {
        let (since, seen, before) = (Millis::now(), house.upstream.count(), ledger.last_seq);
        let load = Load::start(&mix, gateway.public, CLIENTS);
        // Another moment each round: in the first requests, in the middle of a flush, around a new segment.
        load.until(60 + round * 37 % 200);
        gateway.kill();
        let told = load.stop();
        if round % 2 == 0 {
            // Also while it recovers from the last one.
            house.start_and_kill(&setups[round % setups.len()], Duration::from_millis(round as u64 * 23 % 400));
        }
        gateway = house.start(&setups[(round + 1) % setups.len()]);
        ledger.read();
        reconcile(house, &ledger, &told, seen);
        let open: Vec<_> = ledger.records.iter().filter(|(_, entry)| entry.completion.is_none()).collect();
        assert!(open.is_empty(), "round {round}: recovery left records open: {open:?}");
        let verified = ledger.verify(house);
        assert_eq!((verified.open_records, verified.head.seq >= ledger.last_seq), (0, true));
        ledger.agrees_with_index(house, since, before);
        answered += told.iter().filter(|one| one.status != 0).count();
        unanswered += told.iter().filter(|one| one.status == 0).count();
        aborted += ledger
            .records
            .values()
            .filter(|entry| entry.seq > before && entry.completion.as_ref().is_some_and(|done| done.aborted))
            .inspect(|entry| assert_eq!(entry.completion.as_ref().unwrap().reason, "process_ended", "{entry:?}"))
            .count();
    }
    // The test means nothing if the kills never came in the middle of something.
    assert!(answered > 60 * rounds && unanswered > rounds && aborted > rounds, "{answered} {unanswered} {aborted}");
    assert!(ledger.recoveries > rounds / 2, "{} recoveries", ledger.recoveries);
    eprintln!("{rounds} rounds: {answered} answers, {unanswered} cut off, {aborted} records aborted by recovery");
    gateway.terminate();
    assert_eq!(gateway.ended(crate::gateway::PATIENCE), Some(0), "{}", house.log_text());
    assert_eq!(ledger.verify(house).open_records, 0);
}
