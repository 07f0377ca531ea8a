//! Exports and `kill -9`: a job of a process that died is made again, whole, and never by two processes at once.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use linkgate::{
    domain::PartnerId,
    store::{ExportJobs, Owner},
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    consolidated::Consolidated,
    gateway::{Gateway, House, ISSUER, P1, Setup, eventually},
};

/// Beside the house's own.
const TENANTS: usize = 3;
const INVOICES: u64 = 2_500;
/// Of one page of a service's, in milliseconds: an export takes seconds.
const LATENCY: usize = 40;

fn of(house: House) -> Consolidated {
    let portal = Consolidated::over(house, TENANTS, INVOICES);
    portal.service.latency.store(LATENCY, Ordering::SeqCst);
    portal
}

/// 0 to 1: every run kills at other moments.
pub fn random() -> f64 {
    let [high, low, ..] = *Uuid::new_v4().as_bytes();
    f64::from(u16::from_be_bytes([high, low])) / f64::from(u16::MAX)
}

/// How often the job was begun.
fn attempts(portal: &Consolidated, export: &str) -> i64 {
    let partner_id = PartnerId(Uuid::try_parse(P1).unwrap());
    let owner = Owner { partner_id, issuer: ISSUER.into(), sub: "user-1".into() };
    let jobs = ExportJobs::new(&portal.house.database);
    let job = portal.house.block_on(jobs.of::<Value>(Uuid::try_parse(export).unwrap(), &owner));
    job.unwrap().expect("the job is known").attempts
}

/// Names of finished files, and of drafts.
fn files(portal: &Consolidated) -> (Vec<String>, Vec<String>) {
    let folder = std::fs::read_dir(portal.house.dir.path().join("exports")).unwrap();
    folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).partition(|name| !name.ends_with(".part"))
}

#[test]
fn an_export_is_whole_after_kill_9_in_the_middle() {
    rounds(&of(House::new()), 5);
}

#[test]
fn an_export_is_whole_after_kill_9_in_the_middle_on_postgres() {
    let (house, _relay, _made) = crate::database::on_postgres();
    rounds(&of(house), 2);
}

fn rounds(portal: &Consolidated, rounds: usize) {
    let mut gateway = portal.start();
    let began = Instant::now();
    let undisturbed = portal.queue(&gateway);
    portal.check_file(&gateway, &undisturbed);
    let (whole, pages) = (began.elapsed(), portal.pages_of_one());
    assert!(whole > Duration::from_millis(LATENCY as u64 * pages as u64), "{whole:?}");
    let (mut in_the_middle, mut kills) = (0, 0);
    for round in 0..rounds {
        let mut before = portal.pages();
        let export = portal.queue(&gateway);
        // The second time while the job that the first one left is made again.
        for again in 0..=(round % 2) {
            let is_over = |gateway: &Gateway| {
                let state = portal.state(gateway, &export);
                !["queued", "processing"].contains(&state["status"].as_str().unwrap_or_default())
            };
            if again == 1 {
                let begun = attempts(portal, &export);
                before = portal.pages();
                eventually("the job is taken over", || attempts(portal, &export) > begun || is_over(&gateway));
            }
            // After so many pages, however fast the machine is; the last quarter is left for the kill itself.
            let enough = before + 1 + (0.75 * random() * (pages - 1) as f64) as usize;
            eventually("so many pages are read", || portal.pages() >= enough || is_over(&gateway));
            gateway.kill();
            kills += 1;
            in_the_middle += usize::from(portal.pages() - before < pages);
            gateway = portal.start();
        }
        portal.check_file(&gateway, &export);
        let attempts = attempts(portal, &export);
        assert!((1..=2 + (round % 2) as i64).contains(&attempts), "begun {attempts} times");
        // What was whole before is so still.
        portal.check_file(&gateway, &undisturbed);
    }
    assert!(in_the_middle > kills / 2, "the kills came too late: {in_the_middle} of {kills}");
    let (whole_files, drafts) = files(portal);
    assert_eq!(whole_files.len(), rounds + 1, "{whole_files:?}");
    assert!(drafts.len() <= kills, "{drafts:?}");
}

#[test]
fn three_replicas_never_make_one_export_twice() {
    let (house, _relay, _made) = crate::database::on_postgres();
    let portal = of(house);
    let start = |journal| portal.house.start(&Setup { journal, ..portal.setup.clone() });
    let [one, other, third] = ["audit", "second", "third"].map(start);
    let replicas = [&one, &other, &third];
    let queue = |count: usize| -> Vec<String> { (0..count).map(|at| portal.queue(replicas[at % 3])).collect() };
    let exports = queue(6);
    for export in &exports {
        // At whichever: all know every job, and each gives the file that another made.
        replicas.iter().for_each(|replica| portal.check_file(replica, export));
        assert_eq!(attempts(&portal, export), 1);
    }
    assert_eq!(portal.pages(), exports.len() * portal.pages_of_one(), "each page is asked for once an export");
    // Each replica works on one at a time: two questions at once are of two replicas.
    assert!(portal.service.most_under_way.load(Ordering::SeqCst) >= 2, "one replica did all the work");

    // So slow that each is in the middle of its job when one dies.
    portal.service.latency.store(1_500, Ordering::SeqCst);
    let before = portal.pages();
    let exports = queue(5);
    let begun = |portal: &Consolidated| -> Vec<i64> { exports.iter().map(|export| attempts(portal, export)).collect() };
    eventually("all are at work", || begun(&portal).iter().sum::<i64>() == 3 && portal.pages() > before);
    other.kill();
    portal.service.latency.store(LATENCY, Ordering::SeqCst);
    for export in &exports {
        portal.check_file(&one, export);
        portal.check_file(&third, export);
    }
    let mut begun = begun(&portal);
    begun.sort_unstable();
    assert_eq!(begun, [1, 1, 1, 1, 2], "the job of the dead one is begun again, and no other");
    let read = portal.pages() - before;
    assert!(read <= (exports.len() + 1) * portal.pages_of_one(), "{read}");
}
