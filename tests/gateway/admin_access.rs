//! Who gets into the admin API, and as whom: tokens, roles, framing, browsers, the record of each call.

use std::{collections::BTreeSet, path::Path};

use linkgate::{
    config::settings::AdminRole,
    server::admin::table::{BASE, IfMatch, Operation, Spec, TABLE},
};
use serde_json::{Value, json};

use super::{
    client::{Answer, Connection, Request},
    emergency::House,
    postgres_support::{PostgresDatabase, server},
    rig::{P1, Setup},
};

pub const VIEWER: &str = "5e1b7c0d9a8f4e2b6c3d1a0f9e8d7c6b5a4f3e2d1c0b9a8f7e6d5c4b3a2f1e01";
pub const OPERATOR: &str = "5e1b7c0d9a8f4e2b6c3d1a0f9e8d7c6b5a4f3e2d1c0b9a8f7e6d5c4b3a2f1e02";
pub const SECURITY: &str = "5e1b7c0d9a8f4e2b6c3d1a0f9e8d7c6b5a4f3e2d1c0b9a8f7e6d5c4b3a2f1e03";
pub const OTHER: &str = "5e1b7c0d9a8f4e2b6c3d1a0f9e8d7c6b5a4f3e2d1c0b9a8f7e6d5c4b3a2f1e04";

pub fn token(role: AdminRole) -> &'static str {
    match role {
        AdminRole::Viewer => VIEWER,
        AdminRole::Operator => OPERATOR,
        AdminRole::Security => SECURITY,
    }
}

fn sha256(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The section `[admin]` with a token of each role, and a second operator; the digest of one, the variable of none.
pub fn section(more: &str) -> String {
    let one = |name: &str, role: &str, token: &str| {
        format!("{{ name = \"{name}\", role = \"{role}\", sha256 = \"{}\" }}", sha256(token))
    };
    format!(
        "[admin]\naddress = \"127.0.0.1:0\"\ntokens = [{}, {}, {}, {}]\n{more}\n",
        one("viewer", "viewer", VIEWER),
        one("operator", "operator", OPERATOR),
        one("security", "security", SECURITY),
        one("second", "operator", OTHER),
    )
}

/// A gateway with the admin API beside.
pub fn house(setup: Setup, postgres: bool) -> House {
    let extra = format!("{}{}", setup.extra, section("unauthenticated = 0"));
    House::with(Setup { extra, ..setup }, postgres.then(|| PostgresDatabase::make(&server())))
}

/// Runs a test on both databases.
macro_rules! with_admin_api {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() { super::$name(&$crate::admin_access::house(Default::default(), false)); })+
        }
        mod postgres {
            $(#[test] fn $name() { super::$name(&$crate::admin_access::house(Default::default(), true)); })+
        }
    };
}
pub(super) use with_admin_api;

pub fn ask(house: &House, token: &str, request: Request) -> Answer {
    request.bearer(token).send(house.rig.admin_api.unwrap())
}

pub fn get(house: &House, path: &str) -> Answer {
    ask(house, VIEWER, Request::get(&format!("{BASE}{path}")))
}

pub fn post(house: &House, token: &str, path: &str, body: &Value) -> Answer {
    ask(house, token, Request::new("POST", &format!("{BASE}{path}")).json(&body.to_string()))
}

/// A call with the version that it is made over.
pub fn over(house: &House, token: &str, method: &str, path: &str, version: &str, body: Option<&Value>) -> Answer {
    let request = Request::new(method, &format!("{BASE}{path}")).header("If-Match", version);
    ask(
        house,
        token,
        match body {
            Some(body) => request.json(&body.to_string()),
            None => request,
        },
    )
}

/// Changes as they were chained through the outbox, oldest first.
pub fn changes(house: &House) -> Vec<Value> {
    house.rig.lines().into_iter().filter(|line| line["type"] == "change").map(|line| line["pub"].clone()).collect()
}

/// Joined records of calls, oldest first.
pub fn calls(house: &House) -> Vec<Value> {
    house.rig.records().into_iter().filter(|record| record["kind"] == "admin" && !record["method"].is_null()).collect()
}

with_admin_api!(each_role_may_what_the_table_says);

/// A call that does no harm where it is allowed, and is understood far enough to be.
fn harmless(spec: &Spec) -> Request {
    let id = "00000000-0000-4000-8000-000000000000";
    let mut path = spec.pattern();
    if let Some(name) = spec.parameter() {
        path = path.replace(&format!("{{{name}}}"), id);
    }
    let mut request = Request::new(spec.method, &path);
    if spec.if_match != IfMatch::No {
        request = request.header("If-Match", "\"1\"");
    }
    if spec.has_body() { request.json("{}") } else { request }
}

/// Every operation under every role: refused with 403 exactly where the table says so, and recorded either way.
fn each_role_may_what_the_table_says(house: &House) {
    let mut wanted = Vec::new();
    for spec in TABLE {
        for role in AdminRole::ALL {
            let id = format!("call-{}", wanted.len());
            let answer = ask(house, token(role), harmless(spec).header("X-Request-ID", &id));
            let text = format!("{} as {}: {}", spec.label(), role.as_str(), answer.text());
            assert_eq!(answer.status == 403, !spec.allows(role), "{text}");
            assert!(matches!(answer.status, 200 | 403 | 404 | 422), "{text}");
            assert_eq!(answer.header("x-request-id"), id);
            assert_eq!(answer.header("cache-control"), "no-store");
            let decision = answer.header("x-decision-id").to_owned();
            assert!(!decision.is_empty(), "{text}");
            wanted.push((id, decision, spec, role, answer.status));
        }
    }
    // Completions follow their answers.
    assert!(eventually(|| calls(house).iter().all(|record| record["lines"] == 2)));
    let records = calls(house);
    assert_eq!(records.len(), wanted.len(), "one record a call, no more");
    for (record, (id, decision, spec, role, status)) in records.iter().zip(&wanted) {
        assert_eq!(record["request_id"], *id);
        assert_eq!(record["id"], *decision);
        assert_eq!(record["user_id"], format!("admin:{}", role.as_str()));
        assert_eq!(record["policies"], json!([format!("admin.role.{}", role.as_str())]));
        assert_eq!((&record["method"], &record["path"]), (&json!(spec.method), &json!(spec.pattern())));
        assert_eq!((&record["action"], &record["resource_type"]), (&json!(spec.action), &json!(spec.resource)));
        assert_eq!(record["resource_id"].is_string(), spec.parameter().is_some());
        assert_eq!((&record["status"], &record["client_ip"]), (&json!(status), &json!("127.0.0.1")));
        assert_eq!(record["decision"], if *status == 200 { "allow" } else { "deny" }, "{record}");
        assert_eq!(record["aborted"], false);
    }
    let (metrics, label) = (house.rig.health("/metrics").text(), "GET /admin/v1/tenants");
    let counted = format!("linkgate_admin_requests_total{{role=\"viewer\",route=\"{label}\",status=\"2xx\"}} 1");
    assert!(metrics.contains(&counted), "{metrics}");
    // The command line finds them, and `explain` takes them.
    let found = house.done(&["audit", "query", "--kind", "admin", "--user", "admin:viewer", "--journal"]);
    assert!(found.as_array().unwrap().len() > 20, "{found}");
}

/// The public listener and the one for health know nothing of it, and it knows nothing of theirs.
#[test]
fn it_lives_on_its_own_listener_only() {
    let house = house(Setup::default(), false);
    for spec in TABLE {
        for address in [house.rig.public, house.rig.health] {
            let answer = harmless(spec).bearer(OPERATOR).send(address);
            assert!(matches!(answer.status, 401 | 404 | 405), "{} {}", spec.label(), answer.text());
        }
    }
    assert!(calls(&house).is_empty());
    for path in ["/metrics", "/healthz", "/api/invoices"] {
        assert_eq!(ask(&house, OPERATOR, Request::get(path)).status, 404);
    }
}

#[test]
fn nobody_is_answered_without_a_token() {
    let house = house(Setup::default(), false);
    let path = format!("{BASE}/tenants");
    let wrong = "5e1b7c0d9a8f4e2b6c3d1a0f9e8d7c6b5a4f3e2d1c0b9a8f7e6d5c4b3a2f1e09";
    let requests = [
        Request::get(&path),
        Request::get("/admin/v1/no-such-thing"),
        Request::get(&path).bearer(wrong),
        Request::get(&path).bearer(""),
        Request::get(&path).bearer(&house.rig.token()),
        Request::get(&path).bearer(&sha256(VIEWER)),
        Request::get(&path).header("Authorization", &format!("Basic {VIEWER}")),
        Request::get(&path).header("Cookie", &format!("access_token={VIEWER}")),
        Request::get(&format!("{path}?access_token={VIEWER}")),
        Request::get(&path).bearer(VIEWER).bearer(VIEWER),
        Request::get(&path).bearer(&VIEWER.to_uppercase()),
    ];
    let count = requests.len();
    for request in requests {
        let answer = request.send(house.rig.admin_api.unwrap());
        assert_eq!((answer.status, answer.error().as_str()), (401, "UNAUTHORIZED"), "{request:?}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    assert!(calls(&house).is_empty(), "strangers are counted, not recorded");
    let counted = format!("linkgate_admin_unauthenticated_total {count}\n");
    assert!(house.rig.health("/metrics").text().contains(&counted));
}

#[test]
fn guessing_is_slowed_down_and_locks_nobody_out() {
    let extra = section("unauthenticated = \"3/h\"");
    let house = House::with(Setup { extra, ..Setup::default() }, None);
    let guess = || Request::get("/admin/v1/tenants").send(house.rig.admin_api.unwrap());
    for _ in 0..3 {
        assert_eq!(guess().status, 401);
    }
    let refused = guess();
    assert_eq!((refused.status, refused.error().as_str()), (429, "RATE_LIMIT_EXCEEDED"));
    assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 1);
    assert_eq!(get(&house, "/tenants").status, 200, "who knows the token gets in");
}

/// What a browser or an inexact client sends goes no further than the door.
#[test]
fn browsers_and_inexact_requests_are_refused() {
    let house = house(Setup::default(), false);
    let path = format!("{BASE}/tenants");
    let from_page = ask(&house, OPERATOR, Request::get(&path).header("Origin", "https://evil.example"));
    assert_eq!((from_page.status, from_page.error().as_str()), (403, "FORBIDDEN"));
    let preflight = Request::new("OPTIONS", &path)
        .header("Origin", "https://evil.example")
        .header("Access-Control-Request-Method", "POST")
        .send(house.rig.admin_api.unwrap());
    assert_eq!(preflight.status, 403);
    for answer in [&from_page, &preflight] {
        assert!(answer.headers.keys().all(|name| !name.starts_with("access-control")), "{:?}", answer.headers);
    }
    for (raw, status) in [
        (
            "GET /admin/v1/tenants HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\nContent-Length: 5\r\n\r\n",
            400,
        ),
        ("GET /admin/v1/tenants HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        ("GET /admin/v1/tenants HTTP/1.1\r\nHost: a\r\nX_Request_ID: a\r\nTransfer_Encoding: chunked\r\n\r\n", 400),
        ("GET /admin/v1/tenants HTTP/1.1\r\n\r\n", 400),
        ("GET /admin/v1/../v1/tenants HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /admin/v1//tenants HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ] {
        let mut connection = Connection::open(house.rig.admin_api.unwrap());
        connection.write(raw.as_bytes());
        assert_eq!(connection.answer().status, status, "{raw}");
    }
    // What follows an upgrade is framed by nobody: it is not made, and nothing behind it is read.
    let mut connection = Connection::open(house.rig.admin_api.unwrap());
    let upgrade = Request::get(&path).header("Connection", "Upgrade").header("Upgrade", "h2c").bearer(VIEWER);
    connection.write(&[upgrade.bytes(), Request::get(&path).bearer(VIEWER).bytes()].concat());
    let answer = connection.answer();
    assert_eq!((answer.status, answer.header("connection")), (400, "close"));
    assert_eq!(connection.answer().status, 0, "the connection ended");
    assert!(calls(&house).is_empty());
    let unknown = ask(&house, VIEWER, Request::get("/admin/v1/nothing"));
    assert_eq!((unknown.status, unknown.error().as_str()), (404, "ROUTE_NOT_FOUND"));
    let method = ask(&house, VIEWER, Request::new("DELETE", &path));
    assert_eq!((method.status, method.header("allow")), (405, "GET, POST"));
    let large = post(&house, OPERATOR, "/tenants", &json!({"name": "x".repeat(300_000)}));
    assert_eq!((large.status, large.error().as_str()), (413, "PAYLOAD_TOO_LARGE"));
    let bodies = ask(&house, VIEWER, Request::get(&path).body("{}"));
    assert_eq!(bodies.status, 400);
    let actions: Vec<_> = calls(&house).iter().map(|record| record["action"].as_str().unwrap().to_owned()).collect();
    assert_eq!(actions, ["admin.unknown", "admin.unknown", "admin.tenant.create", "admin.tenant.list"]);
    assert!(calls(&house).iter().all(|record| record["decision"] == "deny"));
}

/// A call that cannot be recorded is not done, and one that can be is recorded before.
#[test]
fn a_write_that_cannot_be_recorded_is_refused() {
    let house = house(Setup::default(), false);
    let body = json!({"tenant_id": "t-new", "name": "New"});
    let (dir, away) = (house.rig.journal_dir(), house.rig.dir.path().join("audit-away"));
    std::fs::rename(&dir, &away).unwrap();
    let refused = || get(&house, "/tenants").status == 503;
    assert!(eventually(refused), "the journal notices that its folder is gone");
    let answer = post(&house, OPERATOR, "/tenants", &body);
    assert_eq!((answer.status, answer.error().as_str()), (503, "AUDIT_UNAVAILABLE"));
    std::fs::rename(&away, &dir).unwrap();
    assert!(eventually(|| get(&house, "/tenants").status == 200));
    assert_eq!(get(&house, "/tenants/t-new").status, 404, "it was not done");
    assert_eq!(post(&house, OPERATOR, "/tenants", &body).status, 201);
}

pub fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let since = std::time::Instant::now();
    while !holds() {
        if since.elapsed() > super::client::PATIENCE {
            return false;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    true
}

/// A token is taken away, and another given, without a restart; the socket stays.
#[test]
fn tokens_change_with_a_reload() {
    let house = house(Setup::default(), false);
    let path = house.rig.dir.path().join("linkgate.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let new = "9f1b7c0d9a8f4e2b6c3d1a0f9e8d7c6b5a4f3e2d1c0b9a8f7e6d5c4b3a2f1e77";
    assert_eq!(ask(&house, new, Request::get("/admin/v1/tenants")).status, 401);
    replace(&path, &text.replace(&sha256(VIEWER), &sha256(new)));
    assert!(eventually(|| ask(&house, new, Request::get("/admin/v1/tenants")).status == 200));
    assert_eq!(get(&house, "/tenants").status, 401);
}

fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

/// The description has every operation, its parameters are taken, and what it does not have is refused.
#[test]
fn the_description_agrees_with_what_is_done() {
    let house = house(Setup::default(), false);
    let document = get(&house, "/openapi.json").json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            described.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let known: BTreeSet<_> = TABLE.iter().map(Spec::label).collect();
    assert_eq!(described, known);
    let mut ids = BTreeSet::new();
    for spec in TABLE {
        let operation = &document["paths"][spec.pattern()][spec.method.to_lowercase()];
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{operation}");
        let roles: Vec<_> = spec.roles.iter().map(|role| role.as_str()).collect();
        assert_eq!(operation["x-roles"], json!(roles));
        assert_eq!(operation.get("requestBody").is_some(), spec.has_body(), "{}", spec.label());
        let parameters = operation["parameters"].as_array().unwrap();
        let named = |place: &'static str| parameters.iter().filter(move |one| one["in"] == place);
        assert_eq!(named("header").count() == 1, spec.if_match != IfMatch::No);
        for parameter in named("query") {
            let (name, example) = (parameter["name"].as_str().unwrap(), parameter["example"].as_str().unwrap());
            // What goes with another one.
            let beside = if name == "issuer" { "&sub=1" } else { "" };
            let query = format!("{}?{name}={example}{beside}", spec.pattern().replace(BASE, ""));
            // What is for other roles too, and takes no body.
            if spec.parameter().is_none() && spec.method == "GET" {
                let answer = ask(&house, SECURITY, Request::get(&format!("{BASE}{query}")));
                assert_eq!(answer.status, 200, "{query}: {}", answer.text());
            }
        }
        if spec.method == "GET" && spec.parameter().is_none() {
            let answer = ask(&house, SECURITY, Request::get(&format!("{}?colour=red", spec.pattern())));
            assert_eq!(
                (answer.status, &answer.json()["error"]["details"]),
                (422, &json!({"colour": "unknown parameter"}))
            );
        }
    }
    // Every reference leads somewhere.
    let text = document.to_string();
    for rest in text.split("#/components/schemas/").skip(1) {
        let name: String = rest.chars().take_while(|c| *c != '"').collect();
        assert!(document["components"]["schemas"][&name].is_object(), "`{name}` is missing");
    }
    // Every answer has exactly the fields that are described as required, and none beside.
    for (operation, path) in [
        (Operation::ShowTenant, "/tenants/t-full".to_owned()),
        (Operation::ShowPartner, format!("/partners/{P1}")),
        (Operation::ShowLink, format!("/links/{}", house.rig.links["t-full"])),
        (Operation::LinkAccess, format!("/links/{}/access", house.rig.links["t-full"])),
        (Operation::ShowPolicies, "/policies".to_owned()),
        (Operation::ListUsers, "/users".to_owned()),
        (Operation::ReviewTenant, "/tenants/t-full/access-review".to_owned()),
        (Operation::ReviewPartner, format!("/partners/{P1}/access-review")),
        (Operation::UnusedOfLink, format!("/links/{}/unused-rights", house.rig.links["t-full"])),
        (Operation::LinkPolicy, format!("/links/{}/policy", house.rig.links["t-full"])),
        (Operation::RolePolicy, "/roles/auditor/policy".to_owned()),
        (Operation::CheckPolicies, "/policies/check".to_owned()),
        (Operation::TestPolicies, "/policies/test".to_owned()),
        (Operation::ShadowReport, "/policies/shadow-report".to_owned()),
        (Operation::ListOutbox, "/audit/outbox".to_owned()),
        (Operation::ListCheckpoints, "/audit/checkpoints".to_owned()),
        (Operation::ExportRecords, "/audit/export".to_owned()),
        (Operation::VerifyJournal, "/audit/verification".to_owned()),
    ] {
        let spec = TABLE.iter().find(|spec| spec.operation == operation).unwrap();
        let response = &document["paths"][spec.pattern()]["get"]["responses"]["200"];
        let reference = response["content"]["application/json"]["schema"]["$ref"].as_str().unwrap();
        let schema = &document["components"]["schemas"][reference.rsplit_once('/').unwrap().1];
        let answer = ask(&house, SECURITY, Request::get(&format!("{BASE}{path}")));
        let told: BTreeSet<_> = answer.json().as_object().unwrap().keys().cloned().collect();
        let said: BTreeSet<_> = schema["properties"].as_object().unwrap().keys().cloned().collect();
        let required = schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
        assert!(
            told.is_subset(&said) && required.collect::<BTreeSet<_>>().is_subset(&told),
            "{path}: {told:?} {said:?}"
        );
    }
}

#[test]
fn it_is_off_by_default() {
    let house = House::sqlite();
    assert_eq!(house.rig.admin_api, None);
}

/// Who sends nothing, half a head or half a body is shown out, and others are served meanwhile.
#[test]
fn slow_clients_are_shown_out() {
    let house = house(Setup::default(), false);
    let half_body = format!(
        "POST {BASE}/tenants HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {OPERATOR}\r\nContent-Length: 9\r\n\r\n{{"
    );
    let opened: Vec<_> = ["", "GET /admin/v1/tenants HTTP/1.1\r\nHo", &half_body]
        .into_iter()
        .map(|text| {
            let mut connection = Connection::open(house.rig.admin_api.unwrap());
            connection.write(text.as_bytes());
            connection
        })
        .collect();
    assert_eq!(get(&house, "/tenants").status, 200);
    let mut statuses = Vec::new();
    for mut connection in opened {
        let answer = connection.answer();
        // Nothing, or a refusal; and then the end, long before the test would lose patience.
        assert!(matches!(answer.status, 0 | 400 | 408), "{answer:?}");
        connection.try_write(b"x").ok();
        assert!(connection.read_some().is_empty() || connection.drain() == 0);
        statuses.push(answer.status);
    }
    assert_eq!(statuses.last(), Some(&400), "the half body is told");
    assert_eq!(get(&house, "/tenants/t-full").status, 200);
}
