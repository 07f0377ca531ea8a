//! `linkgate explain`: its three views of recorded requests, and made-up ones, which the database counts for too.

use serde_json::{Value, json};

use super::{
    client::Request,
    rig::{ISSUER, P1, Rig, Setup},
    why::{MFA, linkgate, requests, until},
};

#[test]
fn explain_tells_each_reader_what_is_theirs_and_no_more() {
    let rig = Rig::with(Setup { guardrails: vec![("own.cedar", MFA.to_owned())], ..Setup::default() });
    let ids = requests(&rig);
    let of = |tenant: &str| ids.iter().find(|(name, _)| *name == tenant).unwrap().1.clone();

    let operator = linkgate(&rig, &["--json", "explain", &of("t-full")]).json();
    let reasons = &operator[0]["decisions"][0];
    assert_eq!((&reasons["decided_by"], &reasons["reason"]), (&json!("guardrail"), &json!("guardrail")));
    let gates: Vec<_> =
        reasons["gates"].as_array().unwrap().iter().map(|gate| gate["gate"].as_str().unwrap()).collect();
    assert_eq!(gates[..5], ["token", "identity", "route", "link", "suspension"]);
    assert_eq!(gates[gates.len() - 4..], ["user", "role", "override", "guardrail"]);
    let misses = |reasons: &Value| {
        let misses = reasons["near_misses"].as_array().unwrap().iter();
        misses.map(|miss| miss["change"].as_str().or(miss.as_str()).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(misses(reasons), ["with MFA", "without the policy export-needs-mfa"]);
    assert_eq!(operator[0]["session_id"], "s-1");

    let caller = linkgate(&rig, &["--json", "explain", &of("t-full"), "--as", "caller"]);
    let seen = &caller.json()[0];
    assert_eq!(
        (&seen["code"], &seen["reason"], &seen["status"]),
        (&json!("FORBIDDEN"), &json!("guardrail"), &json!(403))
    );
    for hidden in ["export-needs-mfa", "user-1", P1, "msp_full", "t-full", "gates", "near", "policy"] {
        assert!(!caller.out.contains(hidden), "{hidden}: {}", caller.out);
    }

    let as_tenant =
        |id: &str, tenant: &str| linkgate(&rig, &["--json", "explain", id, "--as", "tenant", "--tenant", tenant]);
    let tenant = as_tenant(&of("t-full"), "t-full");
    let seen = &tenant.json()[0];
    assert_eq!(seen["link"]["terms"]["role"], "msp_full");
    assert_eq!(seen["access"]["user_id"], "user-1");
    assert_eq!(misses(seen), Vec::<String>::new(), "what a guardrail asks for is the operator's");
    for hidden in ["export-needs-mfa", "s-1", "partner_tenant_id", "partner_msp_full", "issuer", "policy_version"] {
        assert!(!tenant.out.contains(hidden), "{hidden}: {}", tenant.out);
    }
    assert_eq!(as_tenant(&of("t-full"), "t-auditor").code, 4, "a record of another tenant is unknown");

    // Its own link's terms are a tenant's to know, and to change.
    let pending = &as_tenant(&of("t-pending"), "t-pending").json()[0];
    assert_eq!(pending["reason"], "link_pending");
    let mfa = &as_tenant(&of("t-mfa"), "t-mfa").json()[0];
    assert_eq!(mfa["gates"].as_array().unwrap().iter().find(|gate| gate["told"] == true).unwrap()["gate"], "mfa");
    assert_eq!(misses(mfa), ["with MFA"]);

    // A read over several tenants shows each its own slice.
    let whole = rig.lines().into_iter().find(|line| line["pub"]["path"] == "/api/v1/partner/customers").unwrap();
    let id = whole["pub"]["id"].as_str().unwrap();
    let slice = as_tenant(id, "t-auditor");
    assert_eq!(slice.json()[0]["link"]["terms"]["role"], "auditor");
    for hidden in ["t-full", "t-billing", "t-support", "t-mfa"] {
        assert!(!slice.out.contains(hidden), "{hidden}: {}", slice.out);
    }
    let all = linkgate(&rig, &["--json", "explain", id]).json();
    assert!(all[0]["decisions"].as_array().unwrap().len() > 3, "{all:#}");
}

#[test]
fn a_made_up_request_is_explained_as_a_recorded_one() {
    let rig = Rig::start();
    let ask = |arguments: &[&str]| linkgate(&rig, &[&["--json", "explain"], arguments].concat());
    let support = [
        "--permission",
        "partner.support.tickets.read",
        "--link-role",
        "msp_billing",
        "--user-role",
        "partner_msp_full",
    ];
    let reasons = ask(&support).json();
    assert_eq!(reasons["decided_by"], "role");
    let changes = reasons["near_misses"].to_string();
    assert!(changes.contains("with the link role msp_full") && !changes.contains("with MFA"), "{changes}");
    let pending = rig.links["t-pending"].to_string();
    let stored =
        ["--permission", "partner.billing.invoices.read", "--link", &pending, "--user-role", "partner_msp_billing"];
    let reasons = ask(&stored).json();
    assert_eq!(reasons["decided_by"], "approval");
    assert_eq!(reasons["near_misses"], json!([{"side": "link", "change": "with the link approved"}]));
    let caller = ask(&[&stored[..], &["--as", "caller"]].concat());
    assert_eq!(caller.json(), json!({"decision": "deny", "code": "TENANT_ACCESS_DENIED", "reason": "link_pending"}));
    let tenant = ask(&[&stored[..], &["--as", "tenant", "--tenant", "t-pending"]].concat());
    assert_eq!(tenant.json()["near_misses"], json!(["with the link approved"]));
    let json = r#"{"permission":"partner.billing.invoices.read","user":{"roles":["partner_auditor"]},
        "link":{"access_role":"auditor","start_date":"2026-12-01T00:00:00Z"},"now":"2026-11-01T00:00:00Z"}"#;
    let reasons = ask(&["--request", json]).json();
    assert_eq!(reasons["near_misses"][0]["change"], "from 2026-12-01T00:00:00.000Z on (start_date)");
    assert_eq!(ask(&["--request", "{"]).code, 3);
    assert_eq!(ask(&[]).code, 2);
}

/// What is told of a made-up request through a stored link is what a request through it gets, whatever stands around it.
#[test]
fn a_stored_link_is_explained_with_all_that_stands_around_it() {
    let rig = Rig::start();
    let done = |arguments: &[&str]| {
        let ran = linkgate(&rig, &[&["--json", "--yes"], arguments].concat());
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
        ran.json()
    };
    let link = rig.links["t-full"].to_string();
    let explain = |user: &[&str]| {
        let asked = ["--permission", "partner.billing.invoices.read", "--user-role", "partner_msp_full"];
        linkgate(&rig, &[&["--json", "explain", "--link", &link], &asked[..], user].concat())
    };
    let told = |user: &[&str]| {
        let reasons = explain(user).json();
        let closed = |gate: &&Value| gate["state"] == "closed";
        let gates: Vec<_> = reasons["gates"].as_array().unwrap().iter().filter(closed).cloned().collect();
        assert!(gates.iter().all(|gate| gate["told"] == (gate["gate"] == reasons["decided_by"])), "{reasons:#}");
        let word = |value: &Value| value.as_str().unwrap_or("allow").to_owned();
        (word(&reasons["reason"]), word(&reasons["decided_by"]))
    };
    let answered = |reason: &str| {
        let ask = || rig.ask(Request::get("/api/invoices").tenant("t-full"));
        let fits = || if reason == "allow" { ask().status == 200 } else { ask().error().ends_with(reason) };
        until(&format!("a request gets {reason}"), fits);
    };
    let user = ["--user", "user-1", "--issuer", ISSUER];
    let both = |reason: &str, gate: &str| {
        assert_eq!(told(&user), (reason.to_owned(), gate.to_owned()));
        answered(reason);
    };
    both("allow", "allow");

    for scope in [&["tenant", "t-full"][..], &["partner", P1], &["link", &link], &["everything"], &["user", "user-1"]] {
        let suspension = done(&[&["suspend"], scope, &["--reason", "a test"]].concat());
        both("access_suspended", "suspension");
        if scope[0] == "user" {
            assert_eq!(told(&[]).0, "allow", "whose request it would be is not known: only the link counts");
        }
        done(&["restore", suspension["id"].as_str().unwrap()]);
    }
    both("allow", "allow");

    done(&["partner", "update", P1, "--active", "false"]);
    both("partner_inactive", "partner");
    done(&["partner", "update", P1, "--active", "true"]);

    let row = done(&["user", "list"]).as_array().unwrap().iter().find(|row| row["sub"] == "user-1").unwrap().clone();
    done(&["user", "update", row["id"].as_str().unwrap(), "--active", "false"]);
    both("not_a_partner", "identity");
    assert_eq!(explain(&user).json()["near_misses"][0]["change"], "with the user's account active");
    let caller = explain(&[&user[..], &["--as", "caller"]].concat()).json();
    assert_eq!((&caller["code"], &caller["reason"]), (&json!("FORBIDDEN"), &json!("not_a_partner")));
    done(&["user", "update", row["id"].as_str().unwrap(), "--active", "true"]);

    done(&["link", "revoke", &link]);
    both("link_inactive", "active");

    let other = explain(&["--user", "user-2", "--issuer", ISSUER]);
    assert_eq!(other.code, 3, "{}", other.out);
    assert!(other.err.contains("no request of theirs goes through it"), "{}", other.err);
    assert_eq!(explain(&["--user", "user-1"]).code, 2, "a `sub` is known together with its issuer only");
}
