//! A tenant delegated onward: every gate of the parent binds the child, within the same second, on both databases.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    client::{Connection, Request},
    emergency::{House, on_both},
    rig::{HOME2, P1, P2},
};

on_both!(every_gate_of_the_parent_binds_the_child, a_parent_is_revoked_while_its_child_is_used);

/// Partner 1 delegates `t-full` to partner 2: what it may do there, and a request of its user.
fn delegated(house: &House) -> (String, Request) {
    let parent = house.rig.links["t-full"].to_string();
    let made = house.done(&[
        "link",
        "delegate",
        "--parent",
        &parent,
        "--partner",
        P2,
        "--grant",
        "billing.read",
        "--grant",
        "support.read",
    ]);
    let token = house.rig.token_with("user-2", HOME2, json!({"roles": ["partner_msp_full"]}));
    let request = Request::get("/api/invoices").bearer(&token).tenant("t-full");
    house.becomes(&request, "");
    (made["id"].as_str().unwrap().to_owned(), request)
}

fn every_gate_of_the_parent_binds_the_child(house: &House) {
    let (child, request) = delegated(house);
    let parent = house.rig.links["t-full"].to_string();
    let shown = house.done(&["link", "show", &child]);
    let standing = &shown["standing"];
    assert_eq!((&shown["access_role"], &standing["live"]), (&json!("delegate"), &json!(true)));
    assert_eq!((&standing["parents"][0]["id"], &standing["parents"][0]["partner_id"]), (&json!(parent), &json!(P1)));
    let effective: Vec<&str> = standing["effective"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(
        effective.contains(&"partner.billing.invoices.read") && effective.contains(&"partner.tenants.switch_context")
    );
    assert!(!effective.contains(&"partner.billing.invoices.write") && !effective.contains(&"partner.reports.sla.read"));

    let update = |more: &[&str]| house.done(&[&["link", "update", parent.as_str()], more].concat());
    let steps: [(&[&str], &[&str], &str); 6] = [
        (&["--require-mfa"], &["--require-mfa", "false"], "FORBIDDEN/mfa_required"),
        (&["--cidr", "10.0.0.0/8"], &["--clear", "cidrs"], "FORBIDDEN/ip_not_allowed"),
        (&["--approval", "rejected"], &["--approval", "approved"], "TENANT_ACCESS_DENIED/link_pending"),
        (&["--end", "2025-01-01"], &["--clear", "end"], "TENANT_LINK_EXPIRED"),
        (&["--start", "2099-01-01"], &["--start", "2024-01-01"], "TENANT_ACCESS_DENIED/link_not_started"),
        (&["--override", "billing.read=false"], &["--clear", "overrides"], "FORBIDDEN/permission"),
    ];
    for (close, open, expected) in steps {
        update(close);
        house.becomes(&request, expected);
        update(open);
        house.becomes(&request, "");
    }
    house.done(&["partner", "update", P1, "--active", "false"]);
    house.becomes(&request, "TENANT_ACCESS_DENIED/partner_inactive");
    house.done(&["partner", "update", P1, "--active", "true"]);
    house.becomes(&request, "");
    for subject in [["link", parent.as_str()], ["partner", P1]] {
        let made = house.done(&["suspend", subject[0], subject[1], "--reason", "x"]);
        assert!(made["covers"]["live_links"].as_i64().unwrap() >= 2, "the child's too: {made}");
        house.becomes(&request, "TENANT_ACCESS_DENIED/access_suspended");
        house.done(&["restore", made["id"].as_str().unwrap()]);
        house.becomes(&request, "");
    }
    refused_ways(house, &child);
}

/// What delegation does not do.
fn refused_ways(house: &House, child: &str) {
    let billing = house.rig.links["t-billing"].to_string();
    let told = |words: &[&str]| {
        let ran = house.command(words);
        assert_eq!(ran.code, 3, "{words:?}: {}", ran.err);
        ran.err
    };
    let delegate = |parent: &str, partner: &str, grant: &str| {
        told(&["link", "delegate", "--parent", parent, "--partner", partner, "--grant", grant])
    };
    assert!(delegate(&billing, P2, "support.read").contains("PERMISSION_ESCALATION"));
    let own = house.command(&["link", "delegate", "--parent", &billing, "--partner", P1, "--grant", "billing.read"]);
    assert!(own.code == 5 && own.err.contains("already has link"), "{}", own.err);
    assert!(delegate(&billing, P2, "billing.raed").contains("billing.read"));
    // Widened beyond the parent later on; turned into another role; made its own parent's parent.
    let parent = house.rig.links["t-full"].to_string();
    house.done(&["link", "update", &parent, "--override", "billing.write=false"]);
    assert!(told(&["link", "update", child, "--override", "billing.write=true"]).contains("PERMISSION_ESCALATION"));
    assert!(told(&["link", "update", child, "--role", "msp_full"]).contains("always of role"));
    assert!(
        told(&["link", "update", &parent, "--parent", child, "--role", "delegate"])
            .contains("delegated from this link")
    );
    assert!(told(&["link", "update", child, "--parent", &billing]).contains("another tenant"));
}

/// Users hammer through the child; the parent is revoked by another process: within the second nothing is allowed, and
/// the open stream is cut.
fn a_parent_is_revoked_while_its_child_is_used(house: &House) {
    let (_, request) = delegated(house);
    let (rig, parent) = (&house.rig, house.rig.links["t-full"].to_string());
    let token = rig.token_with("user-2", HOME2, json!({"roles": ["partner_msp_full"]}));
    for round in 0..5 {
        house.becomes(&request, "");
        let mut stream = Connection::open(rig.public);
        stream.write(&Request::get("/t/sse").bearer(&token).tenant("t-full").bytes());
        assert_eq!(stream.head().status, 200);
        let (stop, revoked) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let users: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut connection = Connection::open(rig.public);
                        while !stop.load(Ordering::Relaxed) {
                            // Read before the request is sent: what was acknowledged then must not be allowed now.
                            let late = revoked.load(Ordering::SeqCst);
                            connection.write(&request.bytes());
                            let status = connection.answer().status;
                            assert!(status == 403 || (status == 200 && !late), "{status}, revoked: {late}");
                        }
                    })
                })
                .collect();
            rig.revoke("t-full");
            let since = Instant::now();
            let took = house.becomes(&request, "TENANT_ACCESS_DENIED/link_inactive");
            std::thread::sleep(Duration::from_secs(1).saturating_sub(since.elapsed()));
            revoked.store(true, Ordering::SeqCst);
            println!("round {round}: refused after {took:?}");
            std::thread::sleep(Duration::from_millis(200));
            stop.store(true, Ordering::Relaxed);
            for user in users {
                user.join().unwrap();
            }
            stream.drain();
            assert!(since.elapsed() < Duration::from_millis(2_500), "the stream goes on");
        });
        house.done(&["link", "update", &parent, "--active", "true"]);
    }
}
