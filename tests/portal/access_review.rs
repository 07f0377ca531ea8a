//! Reviews of access: at the command line over real requests, and by a tenant's own administrators.

use std::process::{Command, Output, Stdio};

use linkgate::store::admin::{PartnerInput, TenantInput};
use serde_json::{Value, json};

use super::{
    client::Request,
    rig::{BASE, P1, P2, Rig, TENANTS, actor, status_of},
};

/// The binary over the rig's configuration.
fn linkgate(rig: &Rig, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_linkgate"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LINKGATE")) {
        command.env_remove(name);
    }
    command.env("SECRET", "0123456789abcdef0123456789abcdef").stdin(Stdio::null());
    command.arg("--config").arg(rig.dir.path().join("linkgate.toml")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(rig: &Rig, arguments: &[&str]) -> Value {
    let ran = linkgate(rig, &[arguments, &["--json"]].concat());
    assert!(ran.status.success(), "{arguments:?}: {}", text(&ran.stderr));
    serde_json::from_slice(&ran.stdout).unwrap()
}

fn of_partner<'a>(report: &'a Value, key: &str, partner: &str) -> &'a Value {
    report[key].as_array().unwrap().iter().find(|link| link["partner_id"] == partner).unwrap()
}

fn with_verdict(link: &Value, verdict: &str) -> Vec<String> {
    let rights = link["permissions"].as_array().unwrap().iter().filter(|right| right["verdict"] == verdict);
    rights.map(|right| right["permission"].as_str().unwrap().to_owned()).collect()
}

/// Partner 1 has asked for invoices, tickets and service levels of all its tenants; partner 2 may audit one of them.
fn used() -> Rig {
    let rig = Rig::start();
    rig.link(P2, "t-full", "auditor");
    for path in ["/billing/invoices", "/support/tickets", "/reports/sla"] {
        rig.get(path);
    }
    rig.journal(3);
    rig
}

const USED: [&str; 3] = ["partner.billing.invoices.read", "partner.support.tickets.list", "partner.reports.sla.read"];

#[test]
fn a_proposed_override_keeps_what_was_used_and_takes_the_rest() {
    let rig = used();
    let unused = ["access", "unused", "--tenant", "t-full", "--days", "30"];
    let report = json(&rig, &unused);
    assert_eq!((&report["source"], report["links"].as_array().unwrap().len()), (&json!("journal"), 2));
    let link = of_partner(&report, "links", P1);
    let mut used = with_verdict(link, "used");
    used.sort();
    let mut expected = USED.map(str::to_owned);
    expected.sort();
    assert_eq!(used, expected);
    let invoices = &link["permissions"].as_array().unwrap().iter().find(|one| one["permission"] == USED[0]).unwrap();
    assert_eq!(invoices["uses"], 1);
    assert!(invoices["last_used_at"].is_string());
    assert_eq!(link["new"], true, "it is younger than 30 days");
    // The links were made before the gateway began to record: that is said, and not passed over.
    assert_eq!((&report["complete"], &link["complete"]), (&json!(false), &json!(false)));
    let warned = linkgate(&rig, &unused);
    assert!(text(&warned.stderr).contains("warning: what was recorded begins at"), "{}", text(&warned.stderr));
    assert!(text(&warned.stdout).contains("unsure    known from"), "{}", text(&warned.stdout));
    // Partner 2 asked for nothing.
    assert_eq!(with_verdict(of_partner(&report, "links", P2), "used"), [""; 0]);

    let path = |path: &str| format!("{path}?tenant_ids=t-full&sources=all");
    assert_eq!(status_of(&rig.get(&path("/reports/usage")), "t-full"), "ok");
    let report = json(&rig, &unused);
    let link = of_partner(&report, "links", P1);
    assert!(with_verdict(link, "used").contains(&"partner.reports.usage.read".to_owned()), "looked at anew each time");
    let denied = link["proposal"]["custom_permissions"].as_object().unwrap();
    assert_eq!(denied.get("partner.provisioning.*"), Some(&json!(false)), "{denied:?}");
    assert_eq!(denied.get("partner.billing.invoices.export"), Some(&json!(false)), "{denied:?}");
    let command = link["proposal"]["command"].as_str().unwrap().to_owned();
    let unquoted = command.replace('\'', "");
    let words: Vec<&str> = unquoted.strip_prefix("linkgate ").unwrap().split(' ').collect();
    let ran = linkgate(&rig, &words);
    assert!(ran.status.success(), "{command}: {}", text(&ran.stderr));
    std::thread::sleep(std::time::Duration::from_secs(1));

    for used in ["/billing/invoices", "/support/tickets", "/reports/sla", "/reports/usage"] {
        assert_eq!(status_of(&rig.get(&path(used)), "t-full"), "ok", "{used}");
    }
    assert_eq!(status_of(&rig.get(&path("/alerts/billing")), "t-full"), "forbidden");
    let body = r#"{"format":"csv","tenant_ids":["t-full"]}"#;
    let export = rig.ask(Request::new("POST", &format!("{BASE}/billing/invoices/export")).json(body));
    assert_eq!(export.error(), "FORBIDDEN/override");
    let again = linkgate(&rig, &words);
    assert_eq!(again.status.code(), Some(5), "the version that it was read at is gone: {}", text(&again.stderr));
    let after = json(&rig, &unused);
    let link = of_partner(&after, "links", P1);
    assert_eq!((&link["proposal"], with_verdict(link, "unused").len()), (&Value::Null, 0), "{link}");
    assert_eq!(link["no_proposal"], "everything that the link grants is needed");
}

#[test]
fn a_right_that_may_be_used_without_a_record_is_kept_and_a_young_link_is_wholly_known() {
    let rig = Rig::start();
    let made = rig.link(P1, "home-2", "msp_full").to_string();
    rig.get("/customers");
    rig.journal(1);
    let report = json(&rig, &["access", "unused", "--link", &made, "--days", "7"]);
    let link = of_partner(&report, "links", P1);
    assert_eq!((&link["complete"], &link["new"]), (&json!(true), &json!(true)), "{link}");
    assert_eq!(with_verdict(link, "used"), ["partner.tenants.list"]);
    // `/customers` shows revenue to those who may see it; no record tells whether somebody looked.
    assert_eq!(with_verdict(link, "maybe_used"), ["partner.reports.revenue.read"]);
    let denied = &link["proposal"]["denies"];
    assert!(!denied.to_string().contains("revenue") && denied.to_string().contains("switch_context"), "{denied}");
}

#[test]
fn who_and_what_tell_the_same_of_both_sides() {
    let rig = used();
    let hostile = "=cmd() \"Blue\", שלום";
    let partner = PartnerInput { name: Some(hostile.into()), ..PartnerInput::default() };
    let tenant = TenantInput { name: Some("+t, \"x\"".into()), ..TenantInput::default() };
    rig.block_on(async {
        let admin = rig.admin();
        admin.update_partner(&actor(), P1.parse().unwrap(), None, &partner).await.unwrap();
        admin
            .update_tenant(&actor(), &linkgate::domain::TenantId::new("t-full").unwrap(), None, &tenant)
            .await
            .unwrap();
    });
    let who = json(&rig, &["access", "who", "--tenant", "t-full"]);
    let link = of_partner(&who, "links", P1);
    assert_eq!(
        (&link["state"], &link["access_role"], &link["version"]),
        (&json!("live"), &json!("msp_full"), &json!(1))
    );
    assert_eq!((&link["created_by"], &link["approved_by"]), (&json!("test"), &json!("test")));
    let user = &link["users"].as_array().unwrap().iter().find(|user| user["sub"] == "user-1").unwrap();
    assert_eq!(user["token"]["roles"], json!(["partner_msp_full"]));
    assert_eq!(user["permissions"].as_array().unwrap().len(), 26);
    let other = of_partner(&who, "links", P2);
    assert_eq!(other["users"][0]["permissions"], Value::Null, "no token of theirs was seen: not known");
    let what = json(&rig, &["access", "what", "--partner", P1]);
    assert_eq!(what["links"].as_array().unwrap().len(), TENANTS.len());
    let same = what["links"].as_array().unwrap().iter().find(|one| one["tenant_id"] == "t-full").unwrap();
    assert_eq!((&same["link_id"], &same["permissions"]), (&link["link_id"], &link["permissions"]));
    let less = what["links"].as_array().unwrap().iter().find(|one| one["tenant_id"] == "t-override").unwrap();
    let read = less["permissions"].as_array().unwrap().iter().find(|row| row["permission"] == USED[0]).unwrap();
    assert_eq!((&read["answer"], &read["gate"]), (&json!("no"), &json!("override")));

    for (rows, of_each) in [("permissions", 26), ("users", 1)] {
        let ran = linkgate(&rig, &["access", "what", "--partner", P1, "--csv", rows]);
        assert!(ran.status.success(), "{}", text(&ran.stderr));
        let mut reader = csv::Reader::from_reader(ran.stdout.as_slice());
        let header = reader.headers().unwrap().clone();
        let at = |name: &str| header.iter().position(|known| known == name).unwrap();
        let rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap();
        assert_eq!(rows.len(), of_each * TENANTS.len());
        for row in &rows {
            assert_eq!(&row[at("partner_name")], format!("'{hostile}"));
            let name = if &row[at("tenant_id")] == "t-full" { "'+t, \"x\"" } else { continue };
            assert_eq!(&row[at("tenant_name")], name);
        }
    }
    let csv = linkgate(&rig, &["access", "unused", "--partner", P1, "--csv"]);
    let rows = csv::Reader::from_reader(csv.stdout.as_slice()).records().count();
    assert!(
        rows > 26 && text(&csv.stdout).contains("\"partner.billing.invoices.read\",\"yes\",\"used\",1,"),
        "{}",
        text(&csv.stdout)
    );

    let shown = text(&linkgate(&rig, &["access", "who", "--tenant", "t-full"]).stdout);
    assert!(shown.contains("2 links, 2 live") && shown.contains("today: policies and roles"), "{shown}");
    for (arguments, code, why) in [
        (["--tenant", "t-full", "--at", "2999-01-01"], 3, "lies ahead"),
        (["--tenant", "t-full", "--at", "2001-01-01"], 3, "history begins at"),
        (["--tenant", "t-full", "--at", "yesterday"], 2, "is not a time"),
        (["--tenant", "t-nobody", "--token-days", "0"], 4, "t-nobody"),
    ] {
        let ran = linkgate(&rig, &[&["access", "who"], arguments.as_slice()].concat());
        assert_eq!(ran.status.code(), Some(code), "{arguments:?}: {}", text(&ran.stderr));
        assert!(text(&ran.stderr).contains(why), "{arguments:?}: {}", text(&ran.stderr));
    }
}

/// The links of the tenant as its administrator sees them, once `used` is indexed.
fn own_links(rig: &Rig, home: &str, used: &str) -> Value {
    let began = std::time::Instant::now();
    loop {
        let request = Request::get("/api/v1/tenant/links?usage_days=30");
        let answer = request.bearer(&rig.token("admin-1", home, "tenant_admin")).send(rig.public);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let list = answer.json();
        if of_partner(&list, "items", P1)["usage"]["used"].to_string().contains(used) {
            return list;
        }
        assert!(began.elapsed().as_secs() < 15, "{list}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

fn told(rows: &Value) -> Vec<&str> {
    rows.as_array().unwrap().iter().map(|row| row["permission"].as_str().unwrap()).collect()
}

#[test]
fn a_tenant_reviews_its_own_links_and_no_others() {
    let rig = used();
    let own = own_links(&rig, "t-billing", "partner.reports.sla.read");
    assert_eq!(own["total"], 1);
    let link = &own["items"][0];
    assert_eq!((&link["live"], &link["closed"], &link["created_by"]), (&json!(true), &Value::Null, &json!("test")));
    // Tickets were asked for as well; here the link's role does not allow them.
    assert_eq!(told(&link["usage"]["used"]), ["partner.billing.invoices.read", "partner.reports.sla.read"]);
    assert!(told(&link["effective"]).contains(&"partner.billing.invoices.export"));
    assert!(!told(&link["effective"]).contains(&"partner.support.tickets.list"));
    let unused = link["usage"]["unused"].as_array().unwrap();
    assert!(unused.contains(&json!("partner.billing.invoices.export")) && !unused.contains(&json!(USED[0])));
    // The same partner manages five more tenants: not a word of them, of their links, or of other partners.
    let text = own.to_string();
    for (tenant, id) in rig.links.iter().filter(|(tenant, _)| tenant.as_str() != "t-billing") {
        assert!(!text.contains(tenant.as_str()) && !text.contains(&id.to_string()), "{tenant}: {text}");
    }
    for foreign in [P2, "secret-note", "partner_tenant_id", "user-1"] {
        assert!(!text.contains(foreign), "{foreign}: {text}");
    }
    // Each partner's use is its own.
    let both = own_links(&rig, "t-full", "partner.reports.sla.read");
    assert_eq!(both["total"], 2);
    assert_eq!(told(&of_partner(&both, "items", P1)["usage"]["used"]).len(), 3);
    assert_eq!(told(&of_partner(&both, "items", P2)["usage"]["used"]), [""; 0]);

    let plain = Request::get("/api/v1/tenant/links").bearer(&rig.token("a", "t-full", "tenant_admin")).send(rig.public);
    assert!(plain.json()["items"][0]["usage"].is_null(), "only where it is asked for");
    let bad = Request::get("/api/v1/tenant/links?usage_days=1000").bearer(&rig.token("a", "t-full", "tenant_admin"));
    assert_eq!(bad.send(rig.public).status, 422);
}
