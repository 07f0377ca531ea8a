//! Why a request was answered as it was, and how another policy set would have: what the record carries, `explain` in its
//! three views, `policy replay`, shadow mode and the log-only rollout.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use linkgate::{
    audit::{AuditSettings, Completion, Decision, Durability, Journal, Opening},
    domain::{DecisionId, Millis},
};
use serde_json::{Value, json};

use super::{
    client::Request,
    rig::{HOME1, P1, Rig, Setup, policies},
};

const MFA: &str = "@id(\"export-needs-mfa\")\nforbid (principal, action in [Action::\"billing.read\"], resource) unless { context.mfa };\n";
/// Somebody meant to let auditors correct invoices.
const OOPS: &str = "@id(\"auditors-correct-invoices\")\npermit (principal, action in [Action::\"billing.write\"], resource is Link);\n";
const HARMLESS: &str =
    "@id(\"test.harmless\")\nforbid (principal, action, resource) when { context.method == \"BREW\" };\n";
/// Fails wherever it applies.
const FAILS: &str =
    "@id(\"overflows\")\npermit (principal, action, resource) when { 9223372036854775807 + 1 > 0 && context.mfa };\n";

pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }
}

/// The command line beside the running gateway.
pub fn linkgate(rig: &Rig, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_linkgate"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LINKGATE")) {
        command.env_remove(name);
    }
    command.envs(super::rig::CALLERS);
    let output = command.arg("--config").arg(rig.dir.path().join("linkgate.toml")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A set of policies in a folder of its own.
fn folder(rig: &Rig, name: &'static str, guardrails: &str) -> String {
    let dir = rig.dir.path().join(name);
    policies(&dir, &[("own.cedar", guardrails.to_owned())]);
    dir.display().to_string()
}

fn metric(rig: &Rig, name: &str) -> Option<f64> {
    let metrics = rig.health("/metrics").text();
    metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Every state of a link, through proxied routes and a consolidated read; gives the decision ids by tenant.
fn requests(rig: &Rig) -> Vec<(&'static str, String)> {
    let tenants = [
        "t-full",
        "t-billing",
        "t-support",
        "t-auditor",
        "t-expired",
        "t-revoked",
        "t-future",
        "t-pending",
        "t-override",
        "t-mfa",
        "t-cidr",
        "t-other",
        "t-unlinked",
    ];
    let mut ids = Vec::new();
    for tenant in tenants {
        for request in [Request::get("/api/invoices"), Request::new("POST", "/api/invoices")] {
            let answer = rig.ask(request.tenant(tenant));
            ids.push((tenant, answer.header("x-decision-id").to_owned()));
        }
    }
    let narrow = rig.token_with("user-1", HOME1, json!({"permissions": ["partner.tenants.*"]}));
    let answer = Request::get("/api/invoices").tenant("t-full").bearer(&narrow).send(rig.public);
    ids.push(("narrow", answer.header("x-decision-id").to_owned()));
    assert_eq!(rig.ask(Request::get("/api/v1/partner/customers")).status, 200);
    let few = Request::get("/api/v1/partner/billing/invoices").bearer(&narrow).send(rig.public);
    assert_eq!(few.status, 403, "{}", few.text());
    rig.ask(Request::get("/own"));
    ids
}

fn private(rig: &Rig, id: &str) -> Value {
    let line = rig.lines().into_iter().find(|line| line["type"] == "open" && line["pub"]["id"] == id);
    line.unwrap_or_else(|| panic!("no record {id}"))
}

#[test]
fn the_record_carries_what_was_asked_and_the_same_set_says_the_same_again() {
    let rig = Rig::start();
    let ids = requests(&rig);
    let of = |tenant: &str| ids.iter().find(|(name, _)| *name == tenant).unwrap().1.as_str();
    let asked = private(&rig, of("t-override"))["priv"]["asked"].clone();
    assert_eq!(asked["holds"], json!({"roles": ["partner_msp_full"], "permissions": []}));
    assert_eq!((&asked["switch_context"], &asked["class"]), (&json!(true), &json!("read")));
    assert_eq!(asked["link"]["role"], "msp_full");
    assert_eq!(asked["link"]["denied"].as_array().unwrap().len(), 4);
    assert_eq!(private(&rig, of("t-mfa"))["priv"]["asked"]["link"]["require_mfa"], true);
    let consolidated = rig.lines().into_iter().find(|line| line["pub"]["path"] == "/api/v1/partner/customers").unwrap();
    let slices = consolidated["slices"].as_array().unwrap();
    assert!(slices.len() > 3 && slices.iter().all(|slice| slice["link"]["start_ms"].is_i64()), "{consolidated:#}");
    let text = rig.lines().iter().map(Value::to_string).collect::<String>();
    assert!(!text.contains(rig.token().get(..40).unwrap()), "no token in any line");

    let replayed = linkgate(&rig, &["--json", "policy", "replay", "--since", "1h"]);
    let report = replayed.json();
    assert_eq!(replayed.code, 0, "{}", replayed.err);
    assert_eq!(report["flips"], json!([]), "{report:#}");
    for (name, at_least) in [("replayed", 30), ("not_decided", 1)] {
        assert!(report[name].as_u64().unwrap() >= at_least, "{name}: {report:#}");
    }
    assert_eq!((&report["cannot_be_replayed"], &report["contradictions"]), (&json!(0), &json!(0)));
    let other = linkgate(&rig, &["policy", "replay", "--tenant", "t-nobody"]);
    assert_eq!(other.code, 4, "nothing looked at is no pass: {}{}", other.out, other.err);
}

#[test]
fn a_replay_names_what_an_over_permissive_set_would_open() {
    let rig = Rig::start();
    requests(&rig);
    let set = folder(&rig, "next", OOPS);
    let replayed = linkgate(&rig, &["--json", "policy", "replay", "--policies", &set]);
    assert_eq!(replayed.code, 6, "{}{}", replayed.out, replayed.err);
    let report = replayed.json();
    let flips = report["flips"].as_array().unwrap();
    let tenants: Vec<_> = flips.iter().map(|flip| flip["tenant"].as_str().unwrap()).collect();
    assert_eq!(tenants.len(), 2, "{report:#}");
    assert!(tenants.contains(&"t-auditor") && tenants.contains(&"t-support"), "{tenants:?}");
    for flip in flips {
        assert_eq!(flip["direction"], "deny_to_allow");
        assert_eq!(flip["permitted_by"], "auditors-correct-invoices");
        assert_eq!(flip["refused_by"], "permission");
        assert_eq!((&flip["partner_id"], &flip["count"]), (&json!(P1), &json!(1)));
        let id = flip["examples"][0].as_str().unwrap();
        let explained = linkgate(&rig, &["explain", id, "--policies", &set]);
        assert!(explained.out.contains("another policy set refused it then"), "{}", explained.out);
    }
    let text = linkgate(&rig, &["policy", "replay", "--policies", &set]);
    for part in ["deny -> allow", "auditors-correct-invoices", "t-auditor", "2 decisions would come out otherwise"] {
        assert!(format!("{}{}", text.out, text.err).contains(part), "{part}: {}{}", text.out, text.err);
    }
    let csv = linkgate(&rig, &["policy", "replay", "--csv", "--policies", &set]);
    assert_eq!(csv.out.lines().count(), 3, "{}", csv.out);
    assert_eq!(linkgate(&rig, &["policy", "replay", "--policies", &set, "--max-flips", "2"]).code, 0);
    let only = linkgate(&rig, &["--json", "policy", "replay", "--policies", &set, "--tenant", "t-auditor"]);
    assert_eq!(only.json()["deny_to_allow"], 1);
    let stricter = folder(&rig, "stricter", MFA);
    let report = linkgate(&rig, &["--json", "policy", "replay", "--policies", &stricter]).json();
    assert!(report["allow_to_deny"].as_u64().unwrap() >= 3 && report["deny_to_allow"] == 0, "{report:#}");
    assert_eq!(report["flips"][0]["refused_by"], "guardrail (export-needs-mfa)");
}

/// A record without the facts is counted and told, and a journal that was tampered with gives no report.
#[test]
fn what_cannot_be_replayed_is_counted_and_a_forged_journal_is_refused() {
    let rig = Rig::start();
    requests(&rig);
    let copy = rig.dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(rig.journal_dir()).unwrap().map(Result::unwrap).filter(|file| file.path().is_file()) {
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    let forged = copy.join("segment-0000000001.jsonl");
    let text = std::fs::read_to_string(&forged).unwrap();
    std::fs::write(&forged, text.replacen("\"role\":\"msp_full\"", "\"role\":\"auditor\" ", 1)).unwrap();
    let journal = copy.to_str().unwrap();
    let replay = || linkgate(&rig, &["--json", "policy", "replay", "--journal", journal]);
    let refused = replay();
    assert_eq!(refused.code, 6, "{}{}", refused.out, refused.err);
    assert!(refused.out.is_empty());

    // As an older version wrote it: the decision, and not what was asked.
    let settings = AuditSettings {
        dir: rig.dir.path().join("old"),
        segment_bytes: 1 << 20,
        writes: Durability::Os,
        reads: Durability::Os,
        commit_timeout: Duration::from_secs(5),
        flush_interval: Duration::from_millis(10),
    };
    let old = settings.dir.clone();
    let (journal, _) = Journal::open(settings).unwrap();
    let write = |action: &'static str, decision, reason: Option<&'static str>| {
        let opening = Opening {
            partner_id: Some(P1.parse().unwrap()),
            action: Some(action),
            managed_tenant_id: Some("t-full").filter(|_| action != "home"),
            decision,
            reason,
            ..Opening::new(DecisionId::generate(), Millis::now(), "GET", "/", "r")
        };
        rig.block_on(journal.record(&opening, &Completion::default(), Durability::Os)).unwrap();
    };
    let read = "partner.billing.invoices.read";
    write(read, Decision::Allow, None);
    write(read, Decision::Deny, Some("guardrail"));
    write(read, Decision::Deny, Some("RATE_LIMIT_EXCEEDED"));
    write(read, Decision::Deny, Some("no_link"));
    write(read, Decision::Deny, Some("TENANT_LINK_EXPIRED"));
    write(read, Decision::Deny, Some("not_a_partner"));
    write("home", Decision::Allow, None);
    journal.close();
    let replayed = linkgate(&rig, &["--json", "policy", "replay", "--journal", old.to_str().unwrap()]);
    let report = replayed.json();
    let counts =
        ["records", "replayed", "cannot_be_replayed", "outside", "not_decided"].map(|name| report[name].as_u64());
    assert_eq!(counts, [Some(7), Some(0), Some(3), Some(2), Some(2)], "{report:#}");
}

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

fn shadowed(rules: &str) -> Rig {
    Rig::with(Setup {
        guardrails: vec![("own.cedar", HARMLESS.to_owned())],
        shadow: vec![("own.cedar", rules.to_owned())],
        ..Setup::default()
    })
}

#[test]
fn a_shadow_set_is_asked_counted_recorded_and_never_enforced() {
    let rig = shadowed(&format!("{MFA}{OOPS}"));
    let allowed = rig.ask(Request::get("/api/invoices").tenant("t-full"));
    assert_eq!(allowed.status, 200, "the set in force decides");
    let refused = rig.ask(Request::new("POST", "/api/invoices").tenant("t-auditor"));
    assert_eq!(refused.error(), "FORBIDDEN/permission");
    let agreed = rig.ask(Request::get("/api/tickets/1").tenant("t-full"));
    let record =
        |answer: &super::client::Answer| private(&rig, answer.header("x-decision-id"))["priv"]["shadow"].clone();
    let flip = record(&allowed);
    assert_eq!(flip["differs"], json!([{"decision": "deny", "reason": "guardrail", "policies": ["export-needs-mfa"]}]));
    assert_eq!(record(&refused)["differs"][0]["decision"], "allow");
    assert!(record(&agreed)["version"].is_string() && record(&agreed).get("differs").is_none());

    let flips = |labels: &str| metric(&rig, &format!("linkgate_shadow_flips_total{{{labels}}}"));
    assert_eq!(flips("direction=\"allow_to_deny\",rule=\"export-needs-mfa\""), Some(1.0));
    assert_eq!(flips("direction=\"deny_to_allow\",rule=\"permission\""), Some(1.0));
    assert_eq!(metric(&rig, "linkgate_shadow_agreed_total"), Some(1.0));
    assert_eq!(metric(&rig, "linkgate_shadow_loaded"), Some(1.0));

    let report = linkgate(&rig, &["--json", "policy", "shadow", "report"]).json();
    assert_eq!((&report["shadowed"], &report["agreed"]), (&json!(3), &json!(1)));
    let rows = report["flips"].as_array().unwrap();
    assert_eq!((rows[0]["direction"].as_str(), rows[0]["tenant"].as_str()), (Some("deny_to_allow"), Some("t-auditor")));
    assert_eq!(rows[0]["permitted_by"], "auditors-correct-invoices");
    assert_eq!((rows[1]["tenant"].as_str(), rows[1]["partner_id"].as_str()), (Some("t-full"), Some(P1)));
    assert_eq!(rows[1]["refused_by"], "guardrail (export-needs-mfa)");
    let explained = linkgate(&rig, &["explain", allowed.header("x-decision-id")]);
    assert!(explained.out.contains("shadow said        deny, guardrail (export-needs-mfa)"), "{}", explained.out);

    // A consolidated read names the tenant of each flip, where no tenant can see it.
    rig.ask(Request::get("/api/v1/partner/billing/invoices"));
    let line = rig.lines().into_iter().find(|line| line["pub"]["path"] == "/api/v1/partner/billing/invoices").unwrap();
    assert!(line["priv"]["shadow"]["differs"][0]["managed_tenant_id"].is_string(), "{line:#}");
    assert!(!line["slices"].to_string().contains("shadow"));
}

#[test]
fn a_shadow_set_that_is_bad_or_fails_harms_nothing_and_is_told() {
    let rig = shadowed(FAILS);
    let mfa = rig.token_with("user-1", HOME1, json!({"roles": ["partner_msp_full"], "amr": ["mfa"]}));
    let ask = || Request::get("/api/invoices").tenant("t-full").bearer(&mfa).send(rig.public);
    let answer = ask();
    assert_eq!(answer.status, 200);
    assert_eq!(metric(&rig, "linkgate_shadow_errors_total"), Some(1.0));
    assert_eq!(metric(&rig, "linkgate_policy_errors_total"), Some(0.0), "the set in force has none");
    let shadow = private(&rig, answer.header("x-decision-id"))["priv"]["shadow"].clone();
    assert_eq!(shadow["differs"][0]["reason"], "policy_error");
    let version = shadow["version"].clone();
    assert_eq!(linkgate(&rig, &["--json", "policy", "shadow", "report"]).json()["errors"], 1);

    // A bad file: the last good shadow set stays, and the load is audited.
    let loads = || {
        let lines = rig.lines();
        let loads = lines.iter().filter(|line| line["pub"]["action"] == "policy.shadow.load");
        loads.map(|line| line["pub"]["decision"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(loads(), ["allow"]);
    let file = rig.dir.path().join("shadow/guardrails/own.cedar");
    std::fs::write(&file, "@id(\"bad\") forbid (principal, action, resource) when { context.metod == \"GET\" };")
        .unwrap();
    until("the refusal is recorded", || loads() == ["allow", "deny"]);
    assert_eq!(private(&rig, ask().header("x-decision-id"))["priv"]["shadow"]["version"], version);
    std::fs::write(&file, HARMLESS).unwrap();
    until("a good one is asked", || loads() == ["allow", "deny", "allow"]);
    let shadow = private(&rig, ask().header("x-decision-id"))["priv"]["shadow"].clone();
    assert!(shadow.get("differs").is_none() && shadow["version"] != version);
}

#[test]
fn a_gateway_starts_with_a_bad_shadow_set_and_says_so() {
    let rig = shadowed("@id(\"bad\") forbid (principal, action, resource) when { context.metod == \"GET\" };");
    assert_eq!(rig.ask(Request::get("/api/invoices").tenant("t-full")).status, 200);
    assert_eq!(metric(&rig, "linkgate_shadow_loaded"), Some(0.0));
    let ready = rig.health("/readyz");
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("shadow set could not be loaded"), "{}", ready.text());
    let checked = linkgate(&rig, &["check"]);
    assert!(checked.code == 3 && checked.out.contains("the shadow policies are invalid"), "{}", checked.out);
}

#[test]
fn a_log_only_rollout_lets_guardrails_and_roles_through_and_nothing_else() {
    let rig = Rig::with(Setup {
        guardrails: vec![("own.cedar", MFA.to_owned())],
        policy: "enforce = false\n".to_owned(),
        ..Setup::default()
    });
    let ask = |method: &str, tenant: &str| {
        let request =
            if method == "GET" { Request::get("/api/invoices") } else { Request::new("POST", "/api/invoices") };
        rig.ask(request.tenant(tenant))
    };
    let let_through = [("GET", "t-full", "guardrail"), ("POST", "t-auditor", "permission")];
    for (method, tenant, reason) in let_through {
        let answer = ask(method, tenant);
        assert_eq!(answer.status, 200, "{tenant}: {}", answer.text());
        let waived = private(&rig, answer.header("x-decision-id"))["priv"]["waived"].clone();
        assert_eq!(waived[0]["reason"], reason, "{waived}");
    }
    for (tenant, refused) in [
        ("t-expired", "TENANT_LINK_EXPIRED"),
        ("t-revoked", "TENANT_ACCESS_DENIED/link_inactive"),
        ("t-future", "TENANT_ACCESS_DENIED/link_not_started"),
        ("t-pending", "TENANT_ACCESS_DENIED/link_pending"),
        ("t-override", "FORBIDDEN/override"),
        ("t-mfa", "FORBIDDEN/mfa_required"),
        ("t-cidr", "FORBIDDEN/ip_not_allowed"),
        ("t-other", "TENANT_ACCESS_DENIED/no_link"),
        ("t-unlinked", "TENANT_ACCESS_DENIED/no_link"),
    ] {
        let error = ask("GET", tenant).error();
        assert!(error.starts_with(refused), "{tenant}: {error}");
    }
    let narrow = rig.token_with("user-1", HOME1, json!({"permissions": ["partner.tenants.*"]}));
    let answer = Request::get("/api/invoices").tenant("t-full").bearer(&narrow).send(rig.public);
    assert_eq!(answer.error(), "FORBIDDEN/permission", "what the user does not hold stays refused");

    assert_eq!(metric(&rig, "linkgate_policy_enforced"), Some(0.0));
    assert_eq!(metric(&rig, "linkgate_policy_waived_total"), Some(2.0));
    assert!(rig.health("/readyz").text().contains("NOT ENFORCED"));
    let checked = linkgate(&rig, &["check"]);
    assert!(checked.code == 0 && checked.out.contains("NOT ENFORCED"), "{}{}", checked.out, checked.err);
    let report = linkgate(&rig, &["--json", "policy", "shadow", "report"]).json();
    assert_eq!(report["waived"], 2);
    // The set refused them, whatever was let through: replaying it finds nothing new.
    let replayed = linkgate(&rig, &["--json", "policy", "replay"]);
    assert_eq!((replayed.code, &replayed.json()["flips"]), (0, &json!([])), "{}", replayed.err);
}
