//! Services that misbehave: each way gives the documented partial answer, and the others' figures stay whole.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    client::Request,
    rig::{BASE, P2, Rig, status_of},
    service::Chaos,
};

const INVOICES: &str = "/billing/invoices?from_date=2020-01-01";

fn error_of(answer: &Value, tenant: &str) -> String {
    let sources = answer["sources"].as_array().unwrap();
    let found = sources.iter().find(|source| source["tenant_id"] == tenant).unwrap();
    assert!(found["as_of"].is_null(), "nothing of it is shown");
    found["error"].as_str().unwrap().to_owned()
}

#[test]
fn each_way_to_fail_is_one_tenants_error_and_leaves_no_half_data() {
    let rig = Rig::with("source_timeout = \"2s\"\nbreaker_failures = 0\nhedge_percent = 0");
    let whole = |tenant: &str| rig.world[tenant].invoices.len();
    let others =
        ["t-auditor", "t-billing", "t-reseller", "t-support"].iter().map(|tenant| whole(tenant)).sum::<usize>();
    let cases = [
        (Chaos::Status(500), "error", "status 500"),
        (Chaos::Garbage, "error", "invoices"),
        (Chaos::Huge, "error", "longer than"),
        (Chaos::Closes, "error", "isp"),
        (Chaos::Zeros, "error", "without data"),
        (Chaos::Redirects, "error", "never followed"),
        (Chaos::Slow(Duration::from_secs(10)), "timeout", "no answer in time"),
    ];
    for (chaos, status, words) in cases {
        let name = format!("{chaos:?}");
        rig.service.misbehave("t-full", "invoices", Some(chaos));
        let started = Instant::now();
        let answer = rig.ask(Request::get(&format!("{BASE}{INVOICES}")).header("Cache-Control", "no-cache"));
        assert!(started.elapsed() < Duration::from_secs(8), "{name}: {:?}", started.elapsed());
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        assert!(!answer.text().contains("secret"), "{name}: {}", answer.text());
        let answer = answer.json();
        assert_eq!(status_of(&answer, "t-full"), status, "{name}: {}", answer["sources"]);
        let error = error_of(&answer, "t-full");
        assert!(error.contains(words), "{name}: {error}");
        assert_eq!(
            (&answer["total"], &answer["partial"], &answer["total_exact"]),
            (&others.into(), &true.into(), &false.into())
        );
        let strict =
            rig.ask(Request::get(&format!("{BASE}{INVOICES}&strict=true")).header("Cache-Control", "no-cache"));
        assert_eq!((strict.status, &*strict.error()), (502, "UPSTREAM_ERROR"), "{name}");
    }
    rig.service.misbehave("t-full", "invoices", None);
    let answer = rig.ask(Request::get(&format!("{BASE}{INVOICES}&strict=true")).header("Cache-Control", "no-cache"));
    assert_eq!((answer.status, &answer.json()["total"]), (200, &(others + whole("t-full")).into()));
}

#[test]
fn a_part_that_fails_leaves_its_fields_null_and_says_which() {
    let rig = Rig::with("breaker_failures = 0");
    rig.service.misbehave("t-full", "tickets", Some(Chaos::Status(503)));
    rig.service.misbehave("t-full", "registry", Some(Chaos::Status(500)));
    let answer = rig.get("/customers?limit=100");
    let item = answer["items"].as_array().unwrap().iter().find(|item| item["tenant_id"] == "t-full").unwrap();
    assert!(item["metrics"]["open_tickets"].is_null() && item["plan_type"].is_null() && item["created_at"].is_null());
    assert_eq!(item["name"], "Own t-full", "our own table knows the name");
    assert!(item["metrics"]["outstanding_balance"].is_number());
    assert_eq!(status_of(&answer, "t-full"), "error");
    assert_eq!((&answer["total"], &answer["total_exact"]), (&6.into(), &true.into()), "who the customers are is known");
    let filtered = rig.get("/customers?limit=100&search=registry");
    assert_eq!(
        (&filtered["total"], &filtered["total_exact"]),
        (&5.into(), &false.into()),
        "what a failed registry says is not"
    );
}

#[test]
fn one_stuck_service_neither_delays_the_rest_nor_takes_it_away() {
    let rig = Rig::with(
        "deadline = \"1s\"\nsource_timeout = \"800ms\"\nbreaker_failures = 2\nslice_fresh = \"0s\"\nmax_slice_age = \"0s\"\nmax_stale_age = \"0s\"",
    );
    rig.service.misbehave("t-full", "invoices", Some(Chaos::Slow(Duration::from_secs(10))));
    for round in 0..4 {
        let started = Instant::now();
        let answer = rig.get(INVOICES);
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        assert_eq!(status_of(&answer, "t-auditor"), "ok");
        let expected = if round < 2 { "timeout" } else { "error" };
        assert_eq!(status_of(&answer, "t-full"), expected, "round {round}: then its breaker is open");
    }
    assert_eq!(rig.service.asked("t-full", "invoices"), 2);
}

/// What a service refuses for what was asked opens no breaker, and what one partner's questions break opens his own.
#[test]
fn what_one_partner_asks_takes_nothing_from_another() {
    let rig = Rig::with("breaker_failures = 3\nhedge_percent = 0");
    rig.link(P2, "t-full", "auditor");
    let fresh = |path: &str| Request::get(&format!("{BASE}{path}")).header("Cache-Control", "no-cache");
    let amiss = |chaos: Chaos| {
        rig.service.misbehave("t-full", "invoices", Some(Chaos::Where("2020-02-02", Box::new(chaos))));
        let ask = || rig.ask(fresh("/billing/invoices?tenant_ids=t-full&from_date=2020-02-02")).json();
        let told = |answer: Value| {
            assert_eq!(status_of(&answer, "t-full"), "error");
            error_of(&answer, "t-full")
        };
        [(); 5].map(|()| told(ask()))
    };
    let others_see_all = || {
        let answer = rig.ask_other_partner(fresh(&format!("{INVOICES}&strict=true")));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["total"], rig.world["t-full"].invoices.len());
    };

    for error in amiss(Chaos::Status(422)) {
        assert!(error.ends_with(": status 422"), "asked each time, and told as it is: {error}");
    }
    others_see_all();
    let own = rig.ask(fresh(&format!("{INVOICES}&tenant_ids=t-full&strict=true")));
    assert_eq!(own.status, 200, "he himself sees what he asks for well: {}", own.text());

    let told = amiss(Chaos::Status(500));
    assert!(told[4].contains("3 times in a row"), "{told:?}");
    others_see_all();
}

#[test]
fn a_client_that_leaves_ends_the_work() {
    let rig = Rig::start();
    rig.service.misbehave("t-full", "invoices", Some(Chaos::Slow(Duration::from_secs(1))));
    let request = Request::get(&format!("{BASE}{INVOICES}")).bearer(&rig.token("user-1", "home-1", "partner_msp_full"));
    let mut connection = super::client::Connection::open(rig.public);
    connection.write(&request.bytes());
    while rig.service.asked("t-full", "invoices") == 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(connection);
    std::thread::sleep(Duration::from_millis(1_800));
    assert_eq!(rig.service.abandoned.load(Ordering::SeqCst), 1, "the question was given up before it was answered");
    let lines = rig.journal(1);
    let completed = lines.iter().find(|line| line["type"] == "complete").unwrap();
    assert_eq!(completed["priv"]["aborted"], true);
}

#[test]
fn amounts_beyond_all_reason_are_one_tenants_error() {
    let mut world = super::world::World::new();
    for tenant in ["t-huge", "t-other", "t-small"] {
        let mut held = super::world::held(tenant, &["USD"]);
        if tenant != "t-small" {
            held.dashboard["revenue_metrics"]["mrr"] = serde_json::from_str("70000000000000000000000000000").unwrap();
            held.dashboard["subscriber_metrics"]["total"] = 9_000_000_000_000_000_000_u64.into();
        }
        world.insert(tenant.to_owned(), held);
    }
    let links = world.keys().map(|tenant| (super::rig::P1, tenant.clone(), "msp_full")).collect();
    let rig = Rig::of(world, links, "");
    for path in ["/customers", "/reports/usage?group_by=tenant"] {
        let answer = rig.get(path);
        assert_eq!(
            (status_of(&answer, "t-huge"), status_of(&answer, "t-small")),
            ("error".into(), "ok".into()),
            "{path}"
        );
        assert!(answer["sources"][0]["error"].as_str().unwrap().contains("out of range"), "{}", answer["sources"]);
    }
}
