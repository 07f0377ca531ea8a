//! Many tenants in one answer: that it is complete, and no slower than a wide bound. Figures are for the benches.

use std::time::{Duration, Instant};

use super::{
    client::Request,
    rig::{BASE, P1, Rig},
    world::{World, held},
};

fn many(count: usize, portal: &str) -> Rig {
    let names: Vec<String> = (0..count).map(|at| format!("tenant-{at:04}")).collect();
    let world: World = names.iter().map(|name| (name.clone(), held(name, &["USD"]))).collect();
    Rig::of(world, names.into_iter().map(|name| (P1, name, "msp_full")).collect(), portal)
}

fn timed(rig: &Rig, path: &str) -> (Duration, serde_json::Value) {
    let request = Request::get(&format!("{BASE}{path}")).bearer(&rig.token("user-1", "home-1", "partner_msp_full"));
    let started = Instant::now();
    let answer = request.send(rig.public);
    let took = started.elapsed();
    assert_eq!(answer.status, 200, "{}", answer.text());
    (took, answer.json())
}

#[test]
fn fifty_tenants_of_slow_services_are_asked_at_once() {
    let rig = many(50, "");
    rig.service.latency.store(20, std::sync::atomic::Ordering::SeqCst);
    for path in ["/customers", "/billing/summary", "/billing/invoices", "/support/tickets"] {
        let (cold, answer) = timed(&rig, path);
        assert_eq!(answer["partial"], false, "{path}");
        let warm: Vec<Duration> = (0..10).map(|_| timed(&rig, path).0).collect();
        eprintln!("{path}: cold {cold:?}, warm {:?}", warm.iter().min().unwrap());
        // One after the other they would take a second and more.
        assert!(cold < Duration::from_millis(900), "{path}: {cold:?}");
        assert!(warm.iter().min().unwrap() < &Duration::from_millis(200), "{path}");
    }
}

#[test]
fn a_thousand_tenants_fit_one_answer() {
    let rig = many(1_000, "deadline = \"60s\"\nsource_timeout = \"60s\"");
    let expected: usize = rig.world.values().map(|held| held.tickets.len()).sum();
    let (cold, answer) = timed(&rig, "/support/tickets?limit=10");
    assert_eq!((&answer["total"], &answer["partial"]), (&expected.into(), &false.into()));
    let (warm, again) = timed(&rig, "/support/tickets?limit=10");
    assert_eq!(again["items"], answer["items"]);
    eprintln!("1,000 tenants: cold {cold:?}, warm {warm:?}");
    assert!(warm < cold);
}
