//! Links as requests see them: changes arrive, stale data refuses, home goes on.

use std::time::{Duration, Instant};

use linkgate::domain::link_rules::LinkInput;

use super::{
    client::{Connection, Request},
    rig::{Rig, Setup},
};

#[test]
fn a_change_by_another_process_is_in_force_within_a_second() {
    let rig = Rig::start();
    let ask = || rig.ask(Request::get("/api/invoices").tenant("t-full"));
    assert_eq!(ask().status, 200);
    let changes: [(LinkInput, &str); 4] = [
        (LinkInput { require_mfa: Some(true), ..LinkInput::default() }, "FORBIDDEN/mfa_required"),
        (LinkInput { require_mfa: Some(false), access_role: Some("msp_support".into()), ..LinkInput::default() }, ""),
        (
            LinkInput { custom_permissions: Some([("billing.read".to_owned(), false)].into()), ..LinkInput::default() },
            "FORBIDDEN/override",
        ),
        (LinkInput { approval: Some("rejected".into()), ..LinkInput::default() }, "TENANT_ACCESS_DENIED/link_pending"),
    ];
    for (input, expected) in changes {
        rig.update("t-full", &input);
        let since = Instant::now();
        loop {
            let answer = ask();
            let told = if answer.status == 200 { String::new() } else { answer.error() };
            if told == expected {
                break;
            }
            assert!(since.elapsed() < Duration::from_secs(1), "{expected}: still {told}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// 20 revocations, each under load on one connection: after the bound no request is allowed (I4).
#[test]
fn after_a_revocation_nothing_is_allowed() {
    let rig = Rig::start();
    let request = Request::get("/api/invoices").bearer(&rig.token()).tenant("t-full").bytes();
    for _ in 0..20 {
        rig.update("t-full", &LinkInput { is_active: Some(true), ..LinkInput::default() });
        std::thread::sleep(Duration::from_millis(250));
        let mut connection = Connection::open(rig.public);
        connection.write(&request);
        assert_eq!(connection.answer().status, 200);
        rig.revoke("t-full");
        let revoked = Instant::now();
        let mut refused = false;
        while revoked.elapsed() < Duration::from_millis(1200) {
            connection.write(&request);
            let answer = connection.answer();
            match answer.status {
                200 => assert!(
                    !refused && revoked.elapsed() < Duration::from_secs(1),
                    "allowed after {:?}",
                    revoked.elapsed()
                ),
                403 => {
                    refused = true;
                    if revoked.elapsed() > Duration::from_millis(400) {
                        break;
                    }
                }
                other => panic!("{other}: {}", answer.text()),
            }
        }
        assert!(refused);
    }
}

/// The database file is taken away: cross-tenant requests are refused within the bound, home requests go on.
#[test]
fn stale_links_refuse_cross_tenant_requests_and_cut_their_streams() {
    let rig = Rig::with(Setup { extra: "[links]\nmax_staleness = \"1s\"\n".into(), ..Setup::default() });
    let cross = || rig.ask(Request::get("/api/invoices").tenant("t-full"));
    let home = || rig.ask(Request::get("/own"));
    assert_eq!((cross().status, home().status), (200, 200));
    let mut stream = Connection::open(rig.public);
    stream.write(&Request::get("/t/sse").bearer(&rig.token()).tenant("t-full").header("X-Request-ID", "stale").bytes());
    assert_eq!(stream.head().status, 200);
    let away = rig.take_database_away();
    let since = Instant::now();
    loop {
        let answer = cross();
        if answer.status == 503 {
            assert_eq!(answer.error(), "LINKS_STALE");
            break;
        }
        assert!(since.elapsed() < Duration::from_millis(1500), "still allowed after {:?}", since.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    stream.drain();
    assert!(since.elapsed() < Duration::from_millis(2300), "the stream went on for {:?}", since.elapsed());
    assert_eq!(home().status, 200);
    assert_eq!(rig.health("/readyz").status, 503);
    away.bring_back();
    let since = Instant::now();
    while cross().status != 200 {
        assert!(since.elapsed() < Duration::from_secs(5), "no recovery");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(rig.health("/readyz").status, 200);
}

/// While the change feed comes back, home requests are answered from what was known last. Nothing of that may be kept:
/// a link that was revoked meanwhile stays closed, for the very token that hammers through the outage.
#[test]
fn nothing_learnt_during_an_outage_outlives_it() {
    let rig = Rig::start();
    let token = rig.token();
    let home = Request::get("/own").bearer(&token).bytes();
    let cross = Request::get("/api/invoices").bearer(&token).tenant("t-full");
    assert_eq!(cross.send(rig.public).status, 200);
    let away = rig.take_database_away();
    std::thread::sleep(Duration::from_millis(1300));
    rig.revoke_in(&away, "t-full");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut connection = Connection::open(rig.public);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    connection.write(&home);
                    assert_eq!(connection.answer().status, 200);
                }
            });
        }
        away.bring_back();
        let since = Instant::now();
        let mut answer = cross.send(rig.public);
        while answer.status == 503 && since.elapsed() < Duration::from_secs(5) {
            answer = cross.send(rig.public);
        }
        for _ in 0..100 {
            assert_eq!(answer.error(), "TENANT_ACCESS_DENIED/link_inactive");
            answer = cross.send(rig.public);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
