//! Claims on idempotency keys and leases on exports: one holder at a time, on both databases, across restarts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use linkgate::{
    domain::{Millis, PartnerId},
    store::{
        Claim, Claimed, ExportJob, ExportJobs, FinishedFile, IdempotencyKeys, JobState, Owner, Settlement, StoreError,
        StoredAnswer, Whose,
    },
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixture::Fixture;

const HOUR: i64 = 3_600_000;

fn answer() -> StoredAnswer {
    StoredAnswer { status: 201, tenant_id: Some("t".into()), body: r#"{"b":1,"a":"ü"}"#.into() }
}

pub(crate) async fn a_key_is_claimed_by_one_of_many(fixture: Arc<Fixture>) {
    let mut racers = Vec::new();
    for _ in 0..8 {
        let keys = IdempotencyKeys::new(&fixture.another().await);
        racers
            .push(tokio::spawn(async move { keys.claim([1; 32], [2; 32], Millis(0), HOUR, 24 * HOUR).await.unwrap() }));
    }
    let mut mine = 0;
    for racer in racers {
        match racer.await.unwrap() {
            Claimed::Mine(_) => mine += 1,
            other => assert_eq!(other, Claimed::Running),
        }
    }
    assert_eq!(mine, 1);
}

/// The claims of a test, made of now: none is over before it is settled.
async fn claimed(keys: &IdempotencyKeys, scope: u8, request: u8) -> Claimed {
    keys.claim([scope; 32], [request; 32], Millis::now(), HOUR, 24 * HOUR).await.unwrap()
}

async fn mine(keys: &IdempotencyKeys, scope: u8) -> Claim {
    match claimed(keys, scope, 1).await {
        Claimed::Mine(claim) => claim,
        other => panic!("{other:?}"),
    }
}

/// From now on the database takes no outcome, or does again.
async fn away(f: &Fixture, away: bool) {
    let (from, to) = if away { ("idempotency_keys", "aside") } else { ("aside", "idempotency_keys") };
    f.raw(format!("ALTER TABLE {from} RENAME TO {to}")).await.unwrap();
}

pub(crate) async fn an_outcome_waits_for_the_database_and_is_told_meanwhile(f: Arc<Fixture>) {
    let keys = IdempotencyKeys::new(&f.db);
    let bringing = tokio::spawn(keys.clone().bring());
    let (done, freed, unknown) = (mine(&keys, 1).await, mine(&keys, 2).await, mine(&keys, 3).await);
    away(&f, true).await;
    for (claim, settlement) in
        [(&done, Settlement::Answered(answer())), (&freed, Settlement::Freed), (&unknown, Settlement::GivenUp)]
    {
        keys.settled(claim, &settlement).await.unwrap();
    }
    assert_eq!(claimed(&keys.clone(), 1, 1).await, Claimed::Done(answer()), "from memory");
    assert_eq!(claimed(&keys, 1, 2).await, Claimed::Other);
    assert_eq!(claimed(&keys, 2, 1).await, Claimed::Running);
    assert_eq!(claimed(&keys, 3, 1).await, Claimed::Unknown);
    // What nobody knows anything of is asked of the database.
    let error = keys.claim([4; 32], [1; 32], Millis::now(), HOUR, HOUR).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    away(&f, false).await;
    // Another process: nothing of this is in memory.
    let other = IdempotencyKeys::new(&f.another().await);
    let began = Instant::now();
    while f.count("SELECT count(*) FROM idempotency_keys WHERE state = 'running'").await > 0 {
        assert!(began.elapsed() < Duration::from_secs(30), "the outcomes are not brought");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(claimed(&other, 3, 1).await, Claimed::Unknown);
    assert_eq!(claimed(&other, 1, 1).await, Claimed::Done(answer()), "byte for byte");
    mine(&other, 2).await;
    bringing.abort();
}

pub(crate) async fn an_outcome_that_waits_settles_no_other_claim(f: Arc<Fixture>) {
    let keys = IdempotencyKeys::new(&f.db);
    let (late, expired) = (mine(&keys, 1).await, [2; 32]);
    let Claimed::Mine(over) = keys.claim(expired, [1; 32], Millis(0), HOUR, HOUR).await.unwrap() else { panic!() };
    away(&f, true).await;
    for claim in [&late, &over] {
        keys.settled(claim, &Settlement::Answered(answer())).await.unwrap();
    }
    away(&f, false).await;
    // Both keys are somebody else's by now.
    f.raw("DELETE FROM idempotency_keys").await.unwrap();
    let other = IdempotencyKeys::new(&f.another().await);
    let (theirs, _) = (mine(&other, 1).await, mine(&other, 2).await);
    keys.bring_last(Duration::from_secs(60)).await;
    for scope in [1, 2] {
        assert_eq!(claimed(&other, scope, 1).await, Claimed::Running);
        assert_eq!(claimed(&keys, scope, 1).await, Claimed::Running, "and nothing waits any more");
    }
    assert!(other.free(&theirs).await.unwrap(), "it holds its claim");
}

pub(crate) async fn a_stop_brings_outcomes_once_more_and_waits_for_no_database(f: Arc<Fixture>) {
    let keys = IdempotencyKeys::new(&f.db);
    let claims = [mine(&keys, 1).await, mine(&keys, 2).await, mine(&keys, 3).await];
    away(&f, true).await;
    for claim in &claims {
        keys.settled(claim, &Settlement::Answered(answer())).await.unwrap();
    }
    // It does not come back: the stop ends all the same, each having been tried once.
    keys.bring_last(Duration::from_secs(60)).await;
    assert_eq!(claimed(&keys, 3, 1).await, Claimed::Done(answer()), "still known here");
    away(&f, false).await;
    keys.bring_last(Duration::from_secs(60)).await;
    let other = IdempotencyKeys::new(&f.another().await);
    for scope in 1..=3 {
        assert_eq!(claimed(&other, scope, 1).await, Claimed::Done(answer()));
    }
}

pub(crate) async fn a_claim_keeps_its_outcome_across_restarts(fixture: Arc<Fixture>) {
    let keys = IdempotencyKeys::new(&fixture.db);
    let claim = async |keys: &IdempotencyKeys, scope: u8, request: u8, now: i64| {
        keys.claim([scope; 32], [request; 32], Millis(now), HOUR, 24 * HOUR).await.unwrap()
    };
    let Claimed::Mine(done) = claim(&keys, 1, 1, 0).await else { panic!() };
    let Claimed::Mine(freed) = claim(&keys, 2, 1, 0).await else { panic!() };
    let Claimed::Mine(unknown) = claim(&keys, 3, 1, 0).await else { panic!() };
    let Claimed::Mine(_crashed) = claim(&keys, 4, 1, 0).await else { panic!() };
    assert!(keys.settle(&done, &answer()).await.unwrap());
    assert!(keys.free(&freed).await.unwrap());
    assert!(keys.give_up(&unknown).await.unwrap());
    // Another process: nothing of this is in memory.
    let keys = IdempotencyKeys::new(&fixture.another().await);
    assert_eq!(claim(&keys, 1, 1, 1).await, Claimed::Done(answer()), "byte for byte");
    assert_eq!(claim(&keys, 1, 2, 1).await, Claimed::Other);
    assert!(matches!(claim(&keys, 2, 9, 1).await, Claimed::Mine(_)), "freed");
    assert_eq!(claim(&keys, 3, 1, 1).await, Claimed::Unknown);
    assert_eq!(claim(&keys, 4, 1, 1).await, Claimed::Running);
    assert_eq!(claim(&keys, 4, 1, HOUR).await, Claimed::Unknown, "left by a crash");
    // Its time is over: the same key is a new one, and the old holder settles nothing.
    let Claimed::Mine(_) = claim(&keys, 1, 2, 24 * HOUR).await else { panic!() };
    assert!(!keys.settle(&done, &answer()).await.unwrap());
    assert_eq!(keys.clean(Millis(24 * HOUR + 1), 1).await.unwrap(), 1, "bounded");
    assert_eq!(keys.clean(Millis(24 * HOUR + 1), 100).await.unwrap(), 2);
    assert_eq!(keys.clean(Millis(24 * HOUR + 1), 100).await.unwrap(), 0);
}

fn owner(partner: u128, sub: &str) -> Owner {
    Owner { partner_id: PartnerId(Uuid::from_u128(partner)), issuer: "i".into(), sub: sub.into() }
}

pub(crate) async fn queued(jobs: &ExportJobs, n: u128) -> Uuid {
    let id = Uuid::from_u128(n);
    let created = Millis(i64::try_from(n).unwrap());
    jobs.create(id, &owner(1, "me"), &json!({"n": n.to_string()}), created, Millis(created.0 + HOUR)).await.unwrap();
    id
}

async fn read(jobs: &ExportJobs, id: Uuid) -> ExportJob<Value> {
    jobs.of(id, &owner(1, "me")).await.unwrap().unwrap()
}

pub(crate) async fn an_export_is_leased_to_one_worker_at_a_time(fixture: Arc<Fixture>) {
    let jobs = ExportJobs::new(&fixture.db);
    for n in 1..=3 {
        queued(&jobs, n).await;
    }
    let mut racers = Vec::new();
    for _ in 0..8 {
        let jobs = ExportJobs::new(&fixture.another().await);
        racers.push(tokio::spawn(async move {
            jobs.lease::<Value>(Whose::Anyones, Millis(100), Millis(200)).await.unwrap()
        }));
    }
    let mut taken = Vec::new();
    for racer in racers {
        if let Some((lease, job)) = racer.await.unwrap() {
            assert_eq!((lease.job, job.attempts, job.state), (job.id, 1, JobState::Running));
            taken.push(job.id.as_u128());
        }
    }
    // A racer that lost its row may go home empty; none is ever given out twice.
    while let Some((lease, _)) = jobs.lease::<Value>(Whose::Anyones, Millis(100), Millis(200)).await.unwrap() {
        taken.push(lease.job.as_u128());
    }
    taken.sort_unstable();
    assert_eq!(taken, [1, 2, 3]);
}

pub(crate) async fn no_partners_exports_hold_up_those_of_others(fixture: Arc<Fixture>) {
    let jobs = ExportJobs::new(&fixture.db);
    for (n, partner) in [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (6, 2), (7, 3)] {
        let created = Millis(i64::try_from(n).unwrap());
        let (id, owner) = (Uuid::from_u128(n), owner(partner, "me"));
        jobs.create(id, &owner, &json!({}), created, Millis(created.0 + HOUR)).await.unwrap();
    }
    let other = ExportJobs::new(&fixture.another().await);
    let lease = async |whose, now, until| {
        let leased = other.lease::<Value>(whose, Millis(now), Millis(until)).await.unwrap();
        leased.map(|(lease, job)| (lease, job.id.as_u128()))
    };
    // Each partner's oldest, then their second ones.
    let mut leases = Vec::new();
    for expected in [1, 5, 7, 2, 6] {
        let (lease, job) = lease(Whose::Anyones, 100, 200).await.unwrap();
        assert_eq!(job, expected);
        leases.push(lease);
    }
    assert!(lease(Whose::Newcomers, 100, 200).await.is_none(), "partner 1 has two under way");
    // Whose work ended counts no more, and whose lease ran out neither: partner 1 has none left.
    assert!(other.fail(leases[0], "x", Millis(110)).await.unwrap());
    assert!(lease(Whose::Newcomers, 110, 200).await.is_none(), "it has one still");
    assert!(jobs.renew(leases[1], Millis(300), 0).await.unwrap());
    assert_eq!(lease(Whose::Newcomers, 200, 300).await.map(|(_, job)| job), Some(2));
    assert_eq!(lease(Whose::Newcomers, 200, 300).await.map(|(_, job)| job), Some(7));
    assert!(lease(Whose::Newcomers, 200, 300).await.is_none());
    // Partners 1, 2 and 3 have one each: by age.
    assert_eq!(lease(Whose::Anyones, 200, 300).await.map(|(_, job)| job), Some(3));
    assert_eq!(lease(Whose::Anyones, 200, 300).await.map(|(_, job)| job), Some(6));
}

pub(crate) async fn a_lease_that_ran_out_goes_to_the_next_worker(fixture: Arc<Fixture>) {
    let (jobs, other) = (ExportJobs::new(&fixture.db), ExportJobs::new(&fixture.another().await));
    let id = queued(&jobs, 7).await;
    let (dead, _) = jobs.lease::<Value>(Whose::Anyones, Millis(100), Millis(200)).await.unwrap().unwrap();
    assert!(jobs.renew(dead, Millis(300), 41).await.unwrap());
    assert_eq!(read(&other, id).await.row_count, 41, "progress shows");
    assert!(other.lease::<Value>(Whose::Anyones, Millis(299), Millis(400)).await.unwrap().is_none());
    let (next, job) = other.lease::<Value>(Whose::Anyones, Millis(300), Millis(400)).await.unwrap().unwrap();
    assert_eq!((job.attempts, job.row_count), (2, 0));
    let file = FinishedFile { name: "a.csv".into(), bytes: 10, rows: 3 };
    // The first one wakes up: nothing that it says counts.
    assert!(!jobs.renew(dead, Millis(900), 1).await.unwrap());
    assert!(!jobs.complete(dead, &file, Millis(301)).await.unwrap());
    assert!(!jobs.fail(dead, "x", Millis(301)).await.unwrap());
    assert!(!jobs.give_back(dead).await.unwrap());
    assert!(other.give_back(next).await.unwrap());
    let (next, job) = other.lease::<Value>(Whose::Anyones, Millis(301), Millis(400)).await.unwrap().unwrap();
    assert_eq!(job.attempts, 2, "what was given back was no attempt");
    assert!(other.knows_file(next, "a.csv").await.unwrap());
    assert!(other.complete(next, &file, Millis(350)).await.unwrap());
    let done = read(&jobs, id).await;
    assert_eq!((done.state, done.row_count, done.file_size), (JobState::Completed, 3, Some(10)));
    assert!(jobs.lease::<Value>(Whose::Anyones, Millis(10_000), Millis(20_000)).await.unwrap().is_none());
    // A lease by a clock that ran years ahead is none, once that was found out.
    let (id, now) = (queued(&jobs, 8).await, Millis::now());
    let ahead = |days: i64| Millis(now.0 + days * 86_400_000);
    jobs.lease::<Value>(Whose::Anyones, ahead(1_000), ahead(1_001)).await.unwrap().unwrap();
    assert!(other.lease::<Value>(Whose::Newcomers, now, ahead(1)).await.unwrap().is_none());
    assert_eq!((other.mend(now).await.unwrap(), other.mend(now).await.unwrap()), (1, 0));
    let (mended, _) = other.lease::<Value>(Whose::Newcomers, now, ahead(1)).await.unwrap().unwrap();
    assert_eq!(other.mend(now).await.unwrap(), 0);
    assert!(other.complete(mended, &file, now).await.unwrap());
    assert_eq!(read(&jobs, id).await.state, JobState::Completed);
    assert!(jobs.knows_file(next, "a.csv").await.unwrap() && !jobs.knows_file(dead, "b.csv").await.unwrap());
}

pub(crate) async fn an_export_is_its_owners_and_expires(fixture: Arc<Fixture>) {
    let jobs = ExportJobs::new(&fixture.db);
    let id = queued(&jobs, 1).await;
    for stranger in [owner(2, "me"), owner(1, "you"), Owner { issuer: "j".into(), ..owner(1, "me") }] {
        assert!(jobs.of::<Value>(id, &stranger).await.unwrap().is_none());
    }
    assert_eq!(jobs.unfinished(owner(1, "me").partner_id).await.unwrap(), 1);
    let (lease, _) = jobs.lease::<Value>(Whose::Anyones, Millis(2), Millis(3)).await.unwrap().unwrap();
    jobs.complete(lease, &FinishedFile { name: "a.csv".into(), bytes: 1, rows: 1 }, Millis(3)).await.unwrap();
    assert_eq!(jobs.unfinished(owner(1, "me").partner_id).await.unwrap(), 0);
    let over = Millis(HOUR + 1);
    assert!(jobs.expire(Millis(HOUR), 10).await.unwrap().is_empty());
    let expected = vec![(id, Some("a.csv".to_owned()))];
    assert_eq!(jobs.expire(over, 10).await.unwrap(), expected);
    assert_eq!(jobs.expire(over, 10).await.unwrap(), expected, "until the file is gone");
    assert_eq!(jobs.forget(over, 10).await.unwrap(), 0);
    jobs.file_removed(id).await.unwrap();
    assert!(jobs.expire(over, 10).await.unwrap().is_empty());
    assert_eq!(read(&jobs, id).await.state, JobState::Expired);
    assert_eq!(jobs.forget(over, 10).await.unwrap(), 1);
    assert!(jobs.of::<Value>(id, &owner(1, "me")).await.unwrap().is_none());
}
