//! Why a request was answered as it was, and how another policy set would have: what the record carries, and `policy
//! replay`. What `explain`, `shadow` and these share stands here too.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use linkgate::{
    audit::{AuditSettings, Completion, Decision, Durability, Journal, Opening},
    domain::{DecisionId, Millis, link_rules::LinkInput},
};
use serde_json::{Value, json};

use super::{
    client::Request,
    policies::policies,
    rig::{HOME1, P1, Rig, Setup},
};

pub(super) const MFA: &str = "@id(\"export-needs-mfa\")\nforbid (principal, action in [Action::\"billing.read\"], resource) unless { context.mfa };\n";
/// Somebody meant to let auditors correct invoices.
pub(super) const OOPS: &str = "@id(\"auditors-correct-invoices\")\npermit (principal, action in [Action::\"billing.write\"], resource is Link);\n";

pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub(super) fn json(&self) -> Value {
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

pub(super) fn until(what: &str, mut holds: impl FnMut() -> bool) {
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

/// Every state of a link, through proxied routes and a consolidated read; gives the decision ids by tenant.
pub(super) fn requests(rig: &Rig) -> Vec<(&'static str, String)> {
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

pub(super) fn private(rig: &Rig, id: &str) -> Value {
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
        segment_age: None,
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

/// What a record says of its caller and of the terms is written once for requests that come again. It must never say what
/// was true of another one: each is held against that of a token that was not seen before.
#[test]
fn records_of_one_caller_say_what_each_request_was() {
    let rig = Rig::with(Setup { listen: "workers = 1\n".into(), ..Setup::default() });
    let said = |token: &str, (method, tenant): (&str, &str)| {
        let mut request = Request::new(method, "/api/invoices").bearer(token);
        if !tenant.is_empty() {
            request = request.tenant(tenant);
        }
        let answer = request.send(rig.public);
        let mut line = private(&rig, answer.header("x-decision-id"));
        for (part, own) in [("pub", &["id", "time", "request_id"][..]), ("priv", &["trace_id", "salt"])] {
            let part = line[part].as_object_mut().unwrap();
            for name in own {
                assert!(part.remove(*name).is_some(), "{name} in {part:?}");
            }
        }
        json!([answer.status, line["pub"], line["priv"]])
    };
    let token = rig.token();
    let (full, write) = (("GET", "t-full"), ("POST", "t-full"));
    let (other, refused, home) = (("GET", "t-override"), ("GET", "t-expired"), ("GET", ""));
    let fresh = |request| said(&rig.token(), request);
    let again = [full, full, full, full, write, write, write, full, other, full, other, other, other, refused, other];
    for version in [1, 2] {
        until("the change is in force", || fresh(full)[2]["link_version"] == version);
        for request in again.into_iter().chain([home, home, home, full, full, full]) {
            assert_eq!(said(&token, request), fresh(request), "{request:?}");
        }
        let denied = [("reports.sla".to_owned(), false)].into();
        rig.update("t-full", &LinkInput { custom_permissions: Some(denied), ..LinkInput::default() });
    }
}
