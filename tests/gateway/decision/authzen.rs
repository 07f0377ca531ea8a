//! AuthZEN 1.0: questions of a service that vouches for users.

use serde_json::{Value, json};

use super::{EDGE, PDP, listener, metric, record, rig};
use crate::{
    client::{Answer, Request},
    rig::{HOME1, P1, Rig, Setup},
};

fn question(action: &str, tenant: &str) -> Value {
    json!({
        "subject": {"type": "user", "id": "user-1", "properties": {"roles": ["partner_msp_full"]}},
        "action": {"name": action},
        "resource": {"type": "tenant", "id": tenant},
        "context": {"ip": "192.0.2.7"},
    })
}

fn ask(rig: &Rig, path: &str, body: &Value) -> Answer {
    Request::new("POST", path).bearer(PDP).json(&body.to_string()).send(listener(rig))
}

fn evaluation(rig: &Rig, body: &Value) -> Value {
    let answer = ask(rig, "/access/v1/evaluation", body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

const READ: &str = "partner.billing.invoices.read";

#[test]
fn a_permission_in_a_linked_tenant_is_decided_and_recorded() {
    let rig = rig();
    let answer = evaluation(&rig, &question(READ, "t-full"));
    assert_eq!(answer["decision"], true);
    let record = record(&rig, answer["context"]["decision_id"].as_str().unwrap());
    for (name, value) in [
        ("decision", "allow"),
        ("reason", "decided"),
        ("action", READ),
        ("user_id", "user-1"),
        ("partner_id", P1),
        ("managed_tenant_id", "t-full"),
        ("client_ip", "192.0.2.7"),
        ("user_agent", "authzen caller pdp"),
        ("path", "/access/v1/evaluation"),
    ] {
        assert_eq!(record[name], value, "{name}");
    }
    assert_eq!(metric(&rig, r#"linkgate_decisions_total{face="authzen",outcome="allow"}"#), 1);
}

#[test]
fn every_gate_has_its_reason() {
    let rig = rig();
    for (action, tenant, code, reason) in [
        (READ, "t-unlinked", "TENANT_ACCESS_DENIED", "no_link"),
        (READ, "t-other", "TENANT_ACCESS_DENIED", "no_link"),
        (READ, "t-expired", "TENANT_LINK_EXPIRED", "TENANT_LINK_EXPIRED"),
        (READ, "t-revoked", "TENANT_ACCESS_DENIED", "link_inactive"),
        (READ, "t-override", "FORBIDDEN", "override"),
        (READ, "t-mfa", "FORBIDDEN", "mfa_required"),
        (READ, "t-cidr", "FORBIDDEN", "ip_not_allowed"),
        ("partner.billing.invoices.write", "t-auditor", "FORBIDDEN", "permission"),
        // Links say nothing on the user's own tenant.
        (READ, HOME1, "FORBIDDEN", "own_tenant"),
    ] {
        let answer = evaluation(&rig, &question(action, tenant));
        assert_eq!(answer["decision"], false, "{tenant}");
        assert_eq!((&answer["context"]["code"], &answer["context"]["reason"]), (&code.into(), &reason.into()));
        let id = answer["context"]["decision_id"].as_str().unwrap_or_else(|| panic!("{tenant}: {answer}"));
        assert_eq!(record(&rig, id)["decision"], "deny", "{tenant}");
    }
    let with = |name: &str, value: Value| {
        let mut question = question(READ, "t-mfa");
        question["context"][name] = value;
        evaluation(&rig, &question)["decision"].clone()
    };
    assert_eq!(with("mfa", true.into()), true);
    let mut inside = question(READ, "t-cidr");
    inside["context"]["ip"] = "10.1.2.3".into();
    assert_eq!(evaluation(&rig, &inside)["decision"], true);
}

#[test]
fn account_partner_and_link_are_looked_up_whatever_is_said() {
    let rig = rig();
    let mut stranger = question(READ, "t-full");
    stranger["subject"]["id"] = "nobody".into();
    stranger["subject"]["properties"]["partner_id"] = P1.into();
    assert_eq!(evaluation(&rig, &stranger)["context"]["reason"], "not_a_partner");
    let mut other = question(READ, "t-full");
    other["subject"]["id"] = "user-2".into();
    other["subject"]["properties"]["partner_id"] = P1.into();
    assert_eq!(evaluation(&rig, &other)["context"]["reason"], "no_link");
    let mut powerless = question(READ, "t-full");
    powerless["subject"]["properties"] = json!({});
    assert_eq!(evaluation(&rig, &powerless)["context"]["reason"], "permission");
    powerless["subject"]["properties"] = json!({"permissions": ["partner.*"]});
    assert_eq!(evaluation(&rig, &powerless)["decision"], true);
    rig.revoke("t-full");
    super::process::eventually("the revocation is seen", || {
        evaluation(&rig, &question(READ, "t-full"))["context"]["reason"] == "link_inactive"
    });
}

#[test]
fn what_binds_an_issuers_tokens_binds_whom_it_is_named_for() {
    for (issuer, code, reason) in [
        ("home_tenants = [\"home-2\"]\n", "FORBIDDEN", "identity_conflict"),
        // Nothing here tells a token's age.
        ("max_token_age = \"5m\"\n", "UNAUTHORIZED", "token_too_old"),
    ] {
        let rig = super::rig_with(Setup { issuer: issuer.into(), ..Setup::default() });
        let context = evaluation(&rig, &question(READ, "t-full"))["context"].clone();
        assert_eq!((&context["code"], &context["reason"]), (&code.into(), &reason.into()), "{issuer}");
    }
    let rig = super::rig_with(Setup { trusts: "\"permissions\"", ..Setup::default() });
    assert_eq!(
        evaluation(&rig, &question(READ, "t-full"))["context"]["reason"],
        "permission",
        "roles are not believed"
    );
    let mut unknown = question(READ, "t-full");
    unknown["subject"]["properties"]["issuer"] = "https://other.test".into();
    assert_eq!(ask(&rig, "/access/v1/evaluation", &unknown).status, 400);
}

#[test]
fn a_question_that_is_none_is_told_so() {
    let rig = rig();
    let change = |path: &str, value: Value| {
        let mut question = question(READ, "t-full");
        *question.pointer_mut(path).unwrap() = value;
        question
    };
    let mut timed = question(READ, "t-full");
    timed["context"]["time"] = "2026-01-01T00:00:00Z".into();
    let mut placeless = question(READ, "t-full");
    placeless["context"] = json!({});
    let mut cased = question(READ, "t-full");
    cased["action"]["properties"] = json!({"method": "get"});
    for bad in [
        json!({}),
        timed,
        placeless,
        cased,
        change("/subject/type", "service".into()),
        change("/subject/id", "".into()),
        change("/subject/id", 7.into()),
        change("/subject/properties/roles", "partner_msp_full".into()),
        change("/resource/type", "invoice".into()),
        change("/resource/id", "".into()),
        change("/action/name", "partner.billing.*".into()),
        change("/context/ip", "here".into()),
    ] {
        let answer = ask(&rig, "/access/v1/evaluation", &bad);
        assert_eq!((answer.status, answer.error().as_str()), (400, "BAD_REQUEST"), "{bad}");
    }
    let twice = r#"{"subject":{},"subject":{}}"#;
    let answer = Request::new("POST", "/access/v1/evaluation").bearer(PDP).json(twice).send(listener(&rig));
    assert_eq!(answer.status, 400);
    let plain = Request::new("POST", "/access/v1/evaluation").bearer(PDP).body("{}").send(listener(&rig));
    assert_eq!(plain.status, 400);
}

#[test]
fn only_a_caller_that_may_vouch_is_believed() {
    let rig = rig();
    let body = question(READ, "t-full").to_string();
    let user = rig.token();
    for (secret, status) in [(EDGE, 403), ("x", 401), (user.as_str(), 401)] {
        let request = Request::new("POST", "/access/v1/evaluation").bearer(secret).json(&body);
        assert_eq!(request.send(listener(&rig)).status, status);
    }
    let bare = Request::new("POST", "/access/v1/evaluation").json(&body).send(listener(&rig));
    assert_eq!((bare.status, bare.header("www-authenticate")), (401, "Bearer"));
    assert!(rig.records().is_empty());
}

#[test]
fn several_questions_share_what_they_do_not_say_and_end_as_asked() {
    let rig = rig();
    let call = |semantic: Option<&str>, tenants: &[&str]| {
        let mut body = question(READ, "t-full");
        body.as_object_mut().unwrap().remove("resource");
        body["evaluations"] =
            tenants.iter().map(|tenant| json!({"resource": {"type": "tenant", "id": tenant}})).collect();
        if let Some(semantic) = semantic {
            body["options"] = json!({"evaluations_semantic": semantic});
        }
        let answer = ask(&rig, "/access/v1/evaluations", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answers = answer.json()["evaluations"].as_array().unwrap().clone();
        answers.iter().map(|one| one["decision"].as_bool().unwrap()).collect::<Vec<_>>()
    };
    let tenants = ["t-full", "t-revoked", "t-billing"];
    assert_eq!(call(None, &tenants), [true, false, true]);
    assert_eq!(call(Some("execute_all"), &tenants), [true, false, true]);
    assert_eq!(call(Some("deny_on_first_deny"), &tenants), [true, false]);
    assert_eq!(call(Some("permit_on_first_permit"), &tenants), [true]);
    assert_eq!(call(Some("permit_on_first_permit"), &["t-revoked", "t-full", "t-full"]), [false, true]);
    // One that is malformed is a refusal among the others.
    assert_eq!(call(None, &["t-full", "", "t-billing"]), [true, false, true]);
    let mut body = question(READ, "t-full");
    body["options"] = json!({"evaluations_semantic": "any"});
    body["evaluations"] = json!([{}]);
    assert_eq!(ask(&rig, "/access/v1/evaluations", &body).status, 400);
    body["options"] = json!({});
    body["evaluations"] = vec![json!({}); 101].into();
    assert_eq!(ask(&rig, "/access/v1/evaluations", &body).status, 400);
    // Without a list it is one question.
    body.as_object_mut().unwrap().remove("evaluations");
    assert_eq!(ask(&rig, "/access/v1/evaluations", &body).json()["decision"], true);
}

#[test]
fn it_describes_itself() {
    let rig = rig();
    let answer = Request::get("/.well-known/authzen-configuration").send(listener(&rig));
    assert_eq!(answer.status, 200);
    let document = answer.json();
    let url = "http://gateway.test";
    assert_eq!(document["policy_decision_point"], url);
    assert_eq!(document["access_evaluation_endpoint"], format!("{url}/access/v1/evaluation"));
    assert_eq!(document["access_evaluations_endpoint"], format!("{url}/access/v1/evaluations"));
    let named = Request::new("POST", "/access/v1/evaluation").header("X-Request-ID", "abc").bearer(PDP);
    let answer = named.json(&question(READ, "t-full").to_string()).send(listener(&rig));
    assert_eq!(answer.header("x-request-id"), "abc");
    assert_eq!(Request::get("/.well-known/authzen-configuration").send(rig.public).error(), "ROUTE_NOT_FOUND");
}
