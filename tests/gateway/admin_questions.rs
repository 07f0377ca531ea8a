//! What the admin API tells of access, policies and the audit record: the same as the command line, to who may ask.

use std::sync::Arc;

use linkgate::{
    audit::{ChainId, OutboxSource, sweep::Progress},
    ops::{
        Trouble, Window,
        access::{
            Desk as Review, Set,
            who::{self, Question, Subject},
        },
    },
    policy::Bundle,
    server::admin::table::BASE,
    store::{
        AuditStore,
        admin::{PartnerInput, TenantInput},
    },
};
use serde_json::{Value, json};

use super::{
    admin_access::{OPERATOR, SECURITY, VIEWER, ask, eventually, get, post, section, with_admin_api},
    client::{Answer, Request},
    emergency::House,
    policies::policies,
    rig::{ISSUER, P1, Setup, actor},
    why::{MFA, OOPS},
};

with_admin_api!(
    reviews_are_those_of_the_command_line,
    unused_rights_are_those_of_the_command_line,
    records_are_explained,
    the_journal_is_verified_and_exported,
    what_waits_to_be_chained_is_counted,
);

fn done(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn secured(house: &House, path: &str) -> Answer {
    ask(house, SECURITY, Request::get(&format!("{BASE}{path}")))
}

/// Code and fields at fault.
fn refused(answer: &Answer) -> (u16, Vec<String>) {
    let details = answer.json()["error"]["details"].as_object().unwrap().keys().cloned().collect();
    (answer.status, details)
}

/// Of a page: the report, without what says which page it is.
fn unpaged(mut page: Value) -> Value {
    let fields = page.as_object_mut().unwrap();
    for name in ["total_links", "limit", "offset", "has_more"] {
        assert!(fields.remove(name).is_some(), "{name}");
    }
    page
}

struct Silent;

impl Progress for Silent {
    fn total(&self, _: u64) {}
    fn advance(&self, _: u64) {}
}

fn reviews_are_those_of_the_command_line(house: &House) {
    // A use, so that a user's token is known.
    let used = Request::get("/api/invoices").bearer(&house.rig.token()).tenant("t-full").send(house.rig.public);
    assert_eq!(used.status, 200);
    let now = linkgate::domain::Millis::now();
    let at = now.to_string();
    for (path, command) in [
        ("/tenants/t-full/access-review".to_owned(), ["access", "who", "--tenant", "t-full"]),
        (format!("/partners/{P1}/access-review"), ["access", "what", "--partner", P1]),
    ] {
        // Beside the tests lies a folder of policies, which the command line takes; it is the built-in set.
        let named = |mut report: Value| {
            let name = report.as_object_mut().unwrap().remove("policies");
            assert!(name.is_some_and(|name| name.is_string()));
            report
        };
        let said = || named(house.done(&[&command[..], &["--at", &at]].concat()));
        let told = || named(unpaged(done(&get(house, &format!("{path}?limit=100&at={at}")))));
        // Where the index is asked it follows the journal.
        assert!(eventually(|| told() == said()), "{:#}\n{:#}", told(), said());
        assert!(!told()["links"].as_array().unwrap().is_empty());
    }
    let whole = done(&get(house, &format!("/partners/{P1}/access-review?at={at}&limit=100&token_days=0")));
    let links = whole["links"].as_array().unwrap();
    assert_eq!((whole["tokens"]["source"].as_str(), whole["has_more"].as_bool()), (Some("not_asked"), Some(false)));
    let mut paged = Vec::new();
    loop {
        let path = format!("/partners/{P1}/access-review?at={at}&token_days=0&limit=4&offset={}", paged.len());
        let page = done(&get(house, &path));
        assert_eq!(page["total_links"], links.len());
        paged.extend(page["links"].as_array().unwrap().clone());
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(&paged, links);

    // A name that a spreadsheet would run.
    let hostile = TenantInput { tenant_id: Some("evil".into()), name: Some("=cmd()".into()), ..TenantInput::default() };
    house.rig.block_on(house.rig.admin().create_tenant(&actor(), &hostile)).unwrap();
    let body = json!({"partner_id": P1, "managed_tenant_id": "evil", "access_role": "auditor"});
    assert_eq!(post(house, OPERATOR, "/links", &body).status, 201);
    for (format, heading) in [("csv", r#""permission","answer""#), ("csv_users", r#""user_issuer","user_sub""#)] {
        let answer = get(house, &format!("/tenants/evil/access-review?format={format}"));
        assert_eq!((answer.status, answer.header("content-type")), (200, "text/csv; charset=utf-8"));
        assert_eq!((answer.header("x-total-count"), answer.header("x-has-more")), ("1", "false"));
        let text = answer.text();
        assert!(text.lines().next().unwrap().contains(heading) && text.contains(r#","'=cmd()","#), "{text}");
        assert!(!text.contains(r#""=cmd()"#), "{text}");
    }
    // A partner's users are told once for every link: only so many.
    let rig = &house.rig;
    let set = Set { bundle: Arc::new(Bundle::load(None).unwrap()), name: "built-in".into() };
    let review = Review {
        admin: rig.admin(),
        index: AuditStore::new(&rig.database, &rig.journal_dir()),
        journal: rig.journal_dir(),
        progress: Arc::new(Silent),
        threads: 1,
    };
    let asked = |most_users| Question { at: now, token_days: 0, window: Window::ALL, most_users };
    let of = |most| rig.block_on(who::report(&Subject::Partner(P1.parse().unwrap()), asked(most), &set, &review));
    let links = of(usize::MAX).unwrap().total;
    assert!(links > 1 && matches!(of(1), Err(Trouble::Invalid(text)) if text.contains("fewer links")));

    let ahead = get(house, "/tenants/t-full/access-review?at=2999-01-01");
    assert!(ahead.status == 422 && ahead.text().contains("lies ahead"), "{}", ahead.text());
    let bad = get(house, "/tenants/t-full/access-review?at=soon&token_days=9999&format=pdf&limit=0");
    assert_eq!(refused(&bad), (422, ["at", "format", "limit", "token_days"].map(str::to_owned).to_vec()));
    assert_eq!(get(house, "/tenants/nobody/access-review").error(), "TENANT_NOT_FOUND");
    let nobody = "00000000-0000-4000-8000-000000000000";
    assert_eq!(get(house, &format!("/partners/{nobody}/access-review")).status, 404);
    assert_eq!(get(house, &format!("/links/{nobody}/unused-rights")).status, 404);
}

fn unused_rights_are_those_of_the_command_line(house: &House) {
    let used = Request::get("/api/invoices").bearer(&house.rig.token()).tenant("t-full").send(house.rig.public);
    assert_eq!(used.status, 200);
    let link = house.rig.links["t-full"].to_string();
    for (path, of) in [
        ("/tenants/t-full/unused-rights".to_owned(), ["--tenant", "t-full"]),
        (format!("/partners/{P1}/unused-rights"), ["--partner", P1]),
        (format!("/links/{link}/unused-rights"), ["--link", &link]),
    ] {
        let links = |report: &Value| report["links"].clone();
        let told = || unpaged(done(&get(house, &format!("{path}?days=30&limit=100"))));
        let said = || house.done(&[&["access", "unused", "--days", "30"], &of[..]].concat());
        // `observed_from` is as exact as the clock is.
        let comparable = |report: Value| {
            let mut links = links(&report);
            for link in links.as_array_mut().unwrap() {
                link.as_object_mut().unwrap().remove("observed_from");
            }
            links
        };
        assert!(eventually(|| comparable(told()) == comparable(said())), "{:#}\n{:#}", told(), said());
    }
    let of_link = || done(&get(house, &format!("/links/{link}/unused-rights")));
    let verdict = |name: &str| {
        let rows = of_link()["links"][0]["permissions"].as_array().unwrap().clone();
        rows.iter().find(|row| row["permission"] == name).unwrap()["verdict"].as_str().unwrap().to_owned()
    };
    assert!(eventually(|| verdict("partner.billing.invoices.read") == "used"));
    assert_eq!(verdict("partner.billing.payments.write"), "unused");
    assert!(of_link()["links"][0]["proposal"]["custom_permissions"].is_object(), "{:#}", of_link());
    let table = get(house, &format!("/links/{link}/unused-rights?format=csv"));
    assert!(table.text().lines().next().unwrap().contains(r#""verdict","uses""#), "{}", table.text());
    assert_eq!(refused(&get(house, &format!("/links/{link}/unused-rights?days=0"))), (422, vec!["days".to_owned()]));
}

/// The configured folder as it lies there, beside the set that is in force.
#[test]
fn policies_are_checked_tested_and_shown() {
    let extra = section("unauthenticated = 0");
    let guardrails = vec![("own.cedar", MFA.to_owned())];
    let house = House::with(Setup { extra, guardrails, ..Setup::default() }, None);
    let (dir, link) = (house.rig.dir.path().join("policies"), house.rig.links["t-full"].to_string());
    assert_eq!(done(&get(&house, "/policies/check")), house.done(&["policy", "check"]));
    for (path, of) in [
        (format!("/links/{link}/policy?at=2026-06-01"), ["--link", &link]),
        ("/roles/auditor/policy?at=2026-06-01".to_owned(), ["--role", "auditor"]),
    ] {
        let told = done(&get(&house, &path));
        assert_eq!(told, house.done(&[&["policy", "show", "--at", "2026-06-01"], &of[..]].concat()));
        assert!(told["cedar"].as_str().unwrap().contains("permit"), "{told}");
    }
    assert_eq!(get(&house, "/roles/king/policy").status, 404);
    let tests = "[[case]]\nname = \"without MFA nothing is read\"\nuser.roles = [\"partner_msp_full\"]\n\
                 link.access_role = \"msp_full\"\nmfa = false\ndeny = \"billing.read\"\nreason = \"guardrail\"\n";
    std::fs::create_dir_all(dir.join("tests")).unwrap();
    std::fs::write(dir.join("tests/own.toml"), tests).unwrap();
    let tested = done(&get(&house, "/policies/test"));
    assert_eq!(tested, house.done(&["policy", "test"]));
    assert_eq!(tested["files"][0]["cases"][0]["failures"], json!([]));
    std::fs::write(dir.join("tests/own.toml"), tests.replace("guardrail", "override")).unwrap();
    let failed = done(&get(&house, "/policies/test?only=MFA"));
    assert!(!failed["files"][0]["cases"][0]["failures"].as_array().unwrap().is_empty(), "{failed}");
    assert_eq!(done(&get(&house, "/policies/test?only=zebra"))["files"], json!([]));
    std::fs::write(dir.join("tests/own.toml"), "[[case]]\nname = 7\n").unwrap();
    assert_eq!(get(&house, "/policies/test").status, 422);

    // What would be loaded next is told; what is in force goes on.
    let before = done(&get(&house, "/policies"))["version"].clone();
    policies(&dir, &[("own.cedar", "forbid (principal, action, resource) when { nothing };".to_owned())]);
    let checked = done(&get(&house, "/policies/check"));
    assert_eq!(
        (checked["valid"].as_bool(), checked["errors"][0]["line"].as_u64()),
        (Some(false), Some(1)),
        "{checked}"
    );
    assert_eq!(done(&get(&house, "/policies"))["version"], before);
    // A folder is never the caller's to name.
    assert_eq!(get(&house, "/policies/check?policies=/etc").status, 422);
}

#[test]
fn questions_are_decided_by_the_set_in_force() {
    let extra = section("unauthenticated = 0");
    let guardrails = vec![("own.cedar", MFA.to_owned())];
    let house = House::with(Setup { extra, guardrails, ..Setup::default() }, None);
    let open = json!({
        "user": {"roles": ["partner_msp_full"]}, "link": {"access_role": "msp_full"},
        "permission": "partner.billing.invoices.read", "mfa": true,
    });
    let with = |name: &str, value: Value| {
        let mut one = open.clone();
        one[name] = value;
        one
    };
    let questions = [
        open.clone(),
        with("mfa", json!(false)),
        with("link", Value::Null),
        with("colour", json!("red")),
        with("permission", json!("partner.billing.*")),
        with("link", json!({"access_role": "msp_full", "end_date": "2020-01-01"})),
    ];
    let told = done(&post(&house, VIEWER, "/policies/decide", &json!({"questions": questions})));
    let words = told["decisions"].as_array().unwrap().iter().map(|one| match &one["error"] {
        Value::String(_) => "error",
        _ => one["reason"].as_str().or(one["code"].as_str()).unwrap_or("allowed"),
    });
    assert_eq!(words.collect::<Vec<_>>(), ["allowed", "guardrail", "no_link", "error", "error", "TENANT_LINK_EXPIRED"]);
    assert_eq!(told["policy_version"], done(&get(&house, "/policies"))["version"]);
    let too_many = json!({"questions": vec![json!({}); 1_001]});
    assert_eq!(refused(&post(&house, VIEWER, "/policies/decide", &too_many)), (422, vec!["questions".to_owned()]));
    for body in [json!({}), json!({"questions": "x"}), json!({"questions": [7]})] {
        assert_eq!(refused(&post(&house, VIEWER, "/policies/decide", &body)), (422, vec!["questions".to_owned()]));
    }

    // Made up, and through a stored link as it stands.
    let bare =
        json!({"permission": "partner.billing.invoices.read", "user": {"roles": ["partner_msp_full"]}, "mfa": true});
    let explain = |query: &str, body: Value| post(&house, VIEWER, &format!("/policies/explain{query}"), &body);
    let pending = house.rig.links["t-pending"].to_string();
    let reasons = done(&explain("", json!({"request": bare, "link_id": pending})));
    assert_eq!(reasons["decided_by"], "approval");
    let said = house.done(&[
        "explain",
        "--permission",
        "partner.billing.invoices.read",
        "--user-role",
        "partner_msp_full",
        "--mfa",
        "--link",
        &pending,
    ]);
    assert_eq!(reasons["near_misses"], said["near_misses"]);
    let caller = done(&explain("?as=caller", json!({"request": bare, "link_id": pending})));
    assert_eq!(caller, json!({"decision": "deny", "code": "TENANT_ACCESS_DENIED", "reason": "link_pending"}));
    let full = house.rig.links["t-full"].to_string();
    let by = json!({"request": bare, "link_id": full, "sub": "user-1", "issuer": ISSUER});
    let told = done(&explain("", by.clone()));
    let said = house.done(&[
        "explain",
        "--permission",
        "partner.billing.invoices.read",
        "--user-role",
        "partner_msp_full",
        "--mfa",
        "--link",
        &full,
        "--user",
        "user-1",
        "--issuer",
        ISSUER,
    ]);
    assert_eq!((&told, told["decision"].as_str()), (&said, Some("allow")));
    let all = json!({"scope": "user", "subject": "user-1", "reason": "x"});
    assert_eq!(post(&house, SECURITY, "/suspensions", &all).status, 201);
    assert_eq!(done(&explain("", by))["decided_by"], "suspension");
    for (body, field) in [
        (json!({"link_id": full}), "request"),
        (json!({"request": open, "link_id": full}), "link_id"),
        (json!({"request": bare, "sub": "user-1"}), "sub"),
        (json!({"request": with("link", Value::Null), "link_id": full, "issuer": ISSUER}), "issuer"),
        (json!({"request": {"permission": "x", "user": {"sub": "u"}}, "link_id": full, "sub": "user-1"}), "sub"),
        (json!({"request": bare, "link_id": full, "issuer": ISSUER}), "issuer"),
        (json!({"request": bare, "link_id": "00000000-0000-4000-8000-000000000000"}), "link_id"),
        (json!({"request": bare, "colour": "red"}), "colour"),
    ] {
        assert_eq!(refused(&explain("", body.clone())), (422, vec![field.to_owned()]), "{body}");
    }
    assert_eq!(explain("", json!({"request": {"permission": "nothing"}})).status, 422);
    assert_eq!(refused(&explain("?as=tenant", json!({"request": bare}))), (422, vec!["managed_tenant_id".to_owned()]));
}

fn records_are_explained(house: &House) {
    let rig = &house.rig;
    let request = Request::new("POST", "/api/invoices").bearer(&rig.token()).tenant("t-auditor");
    let answer = request.send(rig.public);
    assert_eq!(answer.status, 403);
    let id = answer.header("x-decision-id").to_owned();
    let path = format!("/audit/records/{id}/explanation");
    assert!(eventually(|| get(house, &path).status == 200), "the index follows the journal");
    let whole = || done(&get(house, &path));
    assert!(eventually(|| whole()["completion"].is_object()));
    assert_eq!(whole(), house.done(&["explain", &id])[0]);
    assert_eq!(whole()["decisions"][0]["decision"], "deny");
    let caller = done(&get(house, &format!("{path}?as=caller")));
    assert_eq!(caller, house.done(&["explain", &id, "--as", "caller"])[0]);
    let tenant = get(house, &format!("{path}?as=tenant&managed_tenant_id=t-auditor"));
    assert_eq!(done(&tenant), house.done(&["explain", &id, "--as", "tenant", "--tenant", "t-auditor"])[0]);
    assert!(!tenant.text().contains("policies\":[\""), "{}", tenant.text());
    assert_eq!(get(house, &format!("{path}?as=tenant&managed_tenant_id=t-full")).status, 404, "not theirs");
    assert_eq!(refused(&get(house, &format!("{path}?managed_tenant_id=t-full"))).0, 422);
    assert_eq!(get(house, "/audit/records/00000000-0000-4000-8000-000000000000/explanation").status, 404);
}

fn the_journal_is_verified_and_exported(house: &House) {
    let rig = &house.rig;
    for tenant in ["t-full", "t-billing", "t-unlinked"] {
        Request::get("/api/invoices").bearer(&rig.token()).tenant(tenant).send(rig.public);
    }
    let verified = done(&secured(house, "/audit/verification"));
    assert_eq!((&verified["findings"], verified["more_findings"].as_u64()), (&json!([]), Some(0)), "{verified}");
    assert!(verified["lines"].as_u64().unwrap() > 5 && verified["chain_id"].is_string(), "{verified}");
    assert_eq!(secured(house, "/audit/verification?from_segment=0").status, 422);

    let ids = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    let whole = done(&secured(house, "/audit/export?kind=access&decision=allow"));
    let file = rig.dir.path().join("export.jsonl");
    let ran =
        house.command(&["audit", "export", "--kind", "access", "--decision", "allow", "-o", file.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(whole["items"].as_array().unwrap(), &lines, "record for record");
    assert_eq!((lines.len(), &whole["next_offset"]), (2, &Value::Null));
    let first = done(&secured(house, "/audit/export?kind=access&limit=1"));
    let second = done(&secured(house, &format!("/audit/export?kind=access&limit=2&offset={}", first["next_offset"])));
    assert_eq!(second["next_offset"], Value::Null);
    let all = done(&secured(house, "/audit/export?kind=access"));
    assert_eq!([ids(&first), ids(&second)].concat(), ids(&all));
    let bad = secured(house, "/audit/export?limit=10001&kind=all&from=yesterday");
    assert_eq!(refused(&bad), (422, ["from", "kind", "limit"].map(str::to_owned).to_vec()));
    for path in ["/audit/export", "/audit/verification"] {
        for token in [VIEWER, OPERATOR] {
            assert_eq!(ask(house, token, Request::get(&format!("{BASE}{path}"))).status, 403);
        }
    }

    // A record that somebody changed: found, and passed on to nobody.
    let segment = std::fs::read_dir(rig.journal_dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains("t-billing")))
        .unwrap();
    let text = std::fs::read_to_string(&segment).unwrap();
    std::fs::write(&segment, text.replacen("t-billing", "t-billinG", 1)).unwrap();
    // The server finds it too, by and by, and records no call any more.
    let unrecorded = |answer: &Answer| answer.text().contains("could not be recorded");
    let verified = secured(house, "/audit/verification");
    if !unrecorded(&verified) {
        let verified = done(&verified);
        assert!(!verified["findings"].as_array().unwrap().is_empty(), "{verified}");
    }
    let refused = secured(house, "/audit/export");
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(unrecorded(&refused) || refused.text().contains("audit verify"), "{}", refused.text());
}

fn what_waits_to_be_chained_is_counted(house: &House) {
    let rig = &house.rig;
    let (gone, index) = (ChainId(uuid::Uuid::now_v7()), AuditStore::new(&rig.database, &rig.journal_dir()));
    let mut number = 0;
    // The server is quick to take what waits: until a change was taken by one that does not come back.
    let taken = eventually(|| {
        number += 1;
        rig.block_on(async {
            let name = Some(format!("Partner {number}"));
            let input = PartnerInput { name, home_tenant_id: Some("t-full".into()), ..PartnerInput::default() };
            rig.admin().create_partner(&actor(), &input).await.unwrap();
            !index.claim(gone, 1).await.unwrap().is_empty()
        })
    });
    assert!(taken);
    let told = || done(&get(house, "/audit/outbox"))["items"].clone();
    assert!(eventually(|| told().as_array().unwrap().len() == 1), "{}", told());
    assert_eq!((&told()[0]["claimant"], told()[0]["changes"].as_u64()), (&json!(gone.0), Some(1)));
    assert_eq!(told(), house.done(&["audit", "outbox"]));
}

/// Checkpoints, the report on a shadow set, and a link with all that stands above it.
#[test]
fn the_rest_is_that_of_the_command_line_too() {
    let extra = section("unauthenticated = 0");
    let shadow = vec![("own.cedar", format!("{MFA}{OOPS}"))];
    let guardrails = vec![(
        "own.cedar",
        "@id(\"h\")\nforbid (principal, action, resource) when { context.method == \"BREW\" };\n".to_owned(),
    )];
    let audit = "writes = \"os\"\nreads = \"os\"\ncheckpoint_interval = \"1s\"\n".to_owned();
    let house = House::with(Setup { extra, shadow, guardrails, audit, ..Setup::default() }, None);
    let answer = Request::get("/api/invoices").bearer(&house.rig.token()).tenant("t-full").send(house.rig.public);
    assert_eq!(answer.status, 200);
    let mut told = done(&get(&house, "/policies/shadow-report?since=2026-01-01"));
    assert_eq!(told.as_object_mut().unwrap().remove("more_groups"), Some(json!(0)));
    assert_eq!(told, house.done(&["policy", "shadow", "report", "--since", "2026-01-01"]));
    assert_eq!(told["flips"][0]["refused_by"], "guardrail (export-needs-mfa)");
    assert_eq!(done(&get(&house, "/policies/shadow-report?managed_tenant_id=t-other"))["records"], 0);

    let link = house.rig.links["t-full"].to_string();
    let shown = house.done(&["link", "show", &link]);
    assert_eq!(done(&get(&house, &format!("/links/{link}/access")))["standing"], shown["standing"]);
    // Newest first; the command line lists the oldest first.
    let signed = || done(&get(&house, "/audit/checkpoints?limit=100"))["items"].as_array().unwrap().clone();
    let listed =
        || house.done(&["audit", "checkpoint", "--list"]).as_array().unwrap().iter().rev().cloned().collect::<Vec<_>>();
    assert!(eventually(|| signed().len() > 1 && signed() == listed()), "{:?}", signed());
    let first = signed().pop().unwrap();
    let covering = done(&get(&house, "/audit/checkpoints?covering=1"))["items"].clone();
    assert_eq!(covering, json!([first]));
    assert_eq!(done(&get(&house, "/audit/checkpoints?covering=999999999"))["items"], json!([]));
    assert_eq!(refused(&get(&house, "/audit/checkpoints?covering=x")), (422, vec!["covering".to_owned()]));
    let soon = linkgate::domain::Millis(linkgate::domain::Millis::now().0 + 86_400_000).to_string();
    house.done(&["link", "update", &link, "--end", &soon]);
    let ending =
        |more: &str| done(&get(&house, &format!("/links-ending?days=2{more}")))["items"].as_array().unwrap().len();
    assert_eq!((ending("&managed_tenant_id=t-full"), ending("&managed_tenant_id=t-other")), (1, 0));
}
