//! How long a revocation takes to be in force on every replica (I4), under load; prints the figures.
//!
//! `cargo nextest run --test crash --no-capture revocations_are_in_force` shows them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    client::{Connection, Request},
    gateway::eventually,
    load::{Due, Mix},
    three::{BOUND, PAUSE, Three, stop},
};

const ROUNDS: usize = 60;
const TENANT: &str = "t-revoked";
/// Between two looks at a replica.
const LOOK: Duration = Duration::from_millis(1);

/// One look at a replica.
#[derive(Clone, Copy)]
struct Look {
    sent: Instant,
    answered: Instant,
    allowed: bool,
}

/// Asks one replica again and again on one connection.
fn watch(request: &Request, mut connection: Connection, over: &AtomicBool, last: &AtomicU64) -> Vec<Look> {
    let mut looks = Vec::new();
    while !over.load(Ordering::SeqCst) {
        let sent = Instant::now();
        connection.write(&request.bytes());
        let status = connection.answer().status;
        assert!([200, 403, 503].contains(&status), "{status}");
        last.store(u64::from(status), Ordering::SeqCst);
        looks.push(Look { sent, answered: Instant::now(), allowed: status == 200 });
        thread::sleep(LOOK);
    }
    looks
}

#[test]
fn revocations_are_in_force_on_every_replica_within_a_second() {
    let three = Three::start(&[]);
    let link = three.house.add_tenant(TENANT);
    let one = three.house.token1();
    let get = |tenant: &str| Request::get("/api/invoices").tenant(tenant).bearer(&one);
    let shapes = vec![(get("t-full"), Due::Allowed), (get("t-unlinked"), Due::Refused)];
    let load = three.load(&Mix::new(shapes, PAUSE));
    let over = Arc::new(AtomicBool::new(false));
    let last: Vec<_> = three.gateways.iter().map(|_| Arc::new(AtomicU64::new(0))).collect();
    let watching: Vec<_> = three
        .gateways
        .iter()
        .zip(&last)
        .map(|(gateway, last)| {
            let (connection, request) = (Connection::open(gateway.public), get(TENANT));
            let (over, last) = (Arc::clone(&over), Arc::clone(last));
            thread::spawn(move || watch(&request, connection, &over, &last))
        })
        .collect();
    let all_say = |status: u64| last.iter().all(|last| last.load(Ordering::SeqCst) == status);
    let mut revoked = Vec::new();
    for _ in 0..ROUNDS {
        eventually("all allow", || all_say(200));
        three.house.revoke(link);
        let acknowledged = Instant::now();
        eventually("all refuse", || all_say(403));
        revoked.push((acknowledged, Instant::now()));
        three.house.grant(TENANT);
    }
    over.store(true, Ordering::SeqCst);
    let looks: Vec<_> = watching.into_iter().map(|thread| thread.join().unwrap()).collect();
    let told = stop(load);
    let mut latencies = Vec::new();
    for looks in &looks {
        for (acknowledged, refused_by_all) in &revoked {
            let meanwhile = looks.iter().filter(|look| look.sent >= *acknowledged && look.answered <= *refused_by_all);
            for look in meanwhile.clone().filter(|look| look.allowed) {
                let since = look.sent - *acknowledged;
                assert!(since <= BOUND, "allowed {since:?} after the revocation was acknowledged");
            }
            let refused = looks.iter().find(|look| !look.allowed && look.answered >= *acknowledged).unwrap();
            latencies.push(refused.answered - *acknowledged);
        }
    }
    latencies.sort();
    let at = |share: f64| latencies[(latencies.len() as f64 * share) as usize];
    eprintln!(
        "{} revocations x {} replicas, beside {} requests of others: p50 {:?}, p99 {:?}, longest {:?}",
        ROUNDS,
        looks.len(),
        told.len(),
        at(0.5),
        at(0.99),
        latencies[latencies.len() - 1]
    );
}
