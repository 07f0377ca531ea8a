//! Many tenants in one answer: that it is complete, and that they are asked at once. Figures are for the benches.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

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
    let rig = many(50, "deadline = \"60s\"\nsource_timeout = \"60s\"\nslice_fresh = \"10m\"\nmax_slice_age = \"10m\"");
    rig.service.latency.store(100, Ordering::SeqCst);
    for path in ["/customers", "/billing/summary", "/billing/invoices", "/support/tickets"] {
        rig.service.most_under_way.store(0, Ordering::SeqCst);
        let (cold, answer) = timed(&rig, path);
        assert_eq!(answer["partial"], false, "{path}");
        let most = rig.service.most_under_way.load(Ordering::SeqCst);
        assert!(most >= 25, "{path}: {most} at once");
        let asked = rig.service.asked_in_all();
        let warm: Vec<Duration> = (0..10).map(|_| timed(&rig, path).0).collect();
        eprintln!("{path}: cold {cold:?}, warm {:?}, {most} at once", warm.iter().min().unwrap());
        assert_eq!(rig.service.asked_in_all(), asked, "{path}: warm answers ask nobody");
    }
}

#[test]
fn a_thousand_tenants_fit_one_answer() {
    let rig = many(1_000, "deadline = \"60s\"\nsource_timeout = \"60s\"\nhedge_percent = 0");
    let expected: usize = rig.world.values().map(|held| held.tickets.len()).sum();
    let (cold, answer) = timed(&rig, "/support/tickets?limit=10");
    assert_eq!((&answer["total"], &answer["partial"]), (&expected.into(), &false.into()));
    let (warm, again) = timed(&rig, "/support/tickets?limit=10");
    assert_eq!(again["items"], answer["items"]);
    eprintln!("1,000 tenants: cold {cold:?}, warm {warm:?}");
    let asked = rig.service.asked_in_all();
    assert_eq!(asked, 1_000, "each tenant once");
}
