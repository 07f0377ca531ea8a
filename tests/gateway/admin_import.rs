//! Import over the admin API: the same rows, judged as the command line judges them; and no way around what a single
//! operation asks for.

use linkgate::server::admin::table::BASE;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor, SqliteConnection};

use super::{
    admin_access::{
        OPERATOR, OTHER, SECURITY, VIEWER, ask, calls, changes, eventually, get, house, over, post, section,
        with_admin_api,
    },
    client::{Answer, Connection, Request},
    emergency::House,
    rig::{P1, P2, Setup},
};

with_admin_api!(rows_are_taken_and_refused_as_at_the_command_line, what_is_imported_is_recorded_and_in_force);

const LINKS: &str = "partner_id,managed_tenant_id,access_role,custom_permissions,end_date\n";

fn import(house: &House, token: &str, what: &str, body: &str) -> Answer {
    let kind = if body.starts_with('{') { "application/jsonl" } else { "text/csv; charset=utf-8" };
    ask(house, token, rows(&format!("/imports/{what}"), kind, body))
}

fn rows(path: &str, kind: &str, body: &str) -> Request {
    Request::new("POST", &format!("{BASE}{path}")).header("Content-Type", kind).body(body)
}

fn report(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// A file with every kind of row: good, unreadable, against a rule, naming what is not there, twice the same.
fn mixed() -> [(&'static str, String); 4] {
    let links = format!(
        "{LINKS}{P1},t-unlinked,auditor,,\n{P1},t-full,auditor,,\n{P1},nowhere,auditor,,\n{P1},t-other,king,,soon\n\
         {P2},t-unlinked,auditor,billing.write=true,\n{P2},t-unlinked,auditor,billing.write,\n{P2},t-unlinked\n\
         \"not-an-id\",t-unlinked,auditor,,\n"
    );
    let tenants = "{\"tenant_id\": \"i-1\", \"name\": \"One\"}\n\n{\"tenant_id\": \"i-1\"}\n{\"tenant_id\": 7}\n\
         {\"tenant_id\": \"i-2\", \"colour\": \"red\"}\n{\"tenant_id\": \"i-3\", \"tenant_id\": \"i-4\"}\nnonsense\n\
         {\"tenant_id\": \"i-5\"}";
    let partners = "partner_id,name,home_tenant_id,is_active\n\
         77777777-7777-4777-8777-777777777777,Seven,i-1,maybe\n88888888-8888-4888-8888-888888888888,Eight,i-5,no\n\
         99999999-9999-4999-8999-999999999999,Nine,nowhere,yes\n";
    let users = format!("issuer,sub,partner_id,username\n,u-77,{P1},Nina\n,u-77,{P1},Nina\n,,{P1},Nobody\n");
    [("tenants", tenants.to_owned()), ("partners", partners.to_owned()), ("users", users), ("links", links)]
}

/// The same files by the command line in one house and over the API in another: the same report, the same rows.
fn rows_are_taken_and_refused_as_at_the_command_line(house: &House) {
    let other = self::house(Setup::default(), false);
    for (what, body) in mixed() {
        let told = report(&import(house, OPERATOR, what, &body));
        let ending = if body.starts_with('{') { "jsonl" } else { "csv" };
        let file = other.rig.dir.path().join(format!("{what}.{ending}"));
        std::fs::write(&file, &body).unwrap();
        let ran = other.command(&["import", "--what", what, file.to_str().unwrap()]);
        assert_eq!(ran.code, 3, "some rows are refused: {}", ran.err);
        let said: Value = serde_json::from_str(&ran.out).unwrap();
        // Each house names the link that is there by an id of its own.
        let named = |report: &Value, house: &House| {
            house.rig.links.values().fold(report.to_string(), |text, id| text.replace(&id.to_string(), "LINK"))
        };
        assert_eq!(named(&told, house), named(&said, &other), "{what}");
        let all = told["imported"].as_u64().unwrap() + told["refused_rows"].as_u64().unwrap();
        let lines = body.lines().filter(|line| !line.is_empty()).count() - usize::from(ending == "csv");
        assert_eq!(all, lines as u64, "{what}: no row is lost");
    }
    let refused = report(&import(house, OPERATOR, "links", &mixed()[3].1));
    let reason = |line: u64| {
        let rows = refused["refused"].as_array().unwrap();
        rows.iter().find(|row| row["line"] == line).unwrap_or_else(|| panic!("{refused}"))["code"].clone()
    };
    // Another time the row that was taken is there already.
    assert_eq!((reason(2), reason(3)), (json!("CONFLICT"), json!("CONFLICT")));
    assert_eq!((reason(4), reason(6)), (json!("TENANT_NOT_FOUND"), json!("PERMISSION_ESCALATION")));
    assert_eq!(get(house, "/tenants/i-5").json()["created_by"], "admin:operator");
    for never in ["i-2", "i-3", "i-4"] {
        assert_eq!(get(house, &format!("/tenants/{never}")).status, 404, "{never}");
    }
}

fn what_is_imported_is_recorded_and_in_force(house: &House) {
    let request = Request::get("/api/invoices").bearer(&house.rig.token()).tenant("t-unlinked");
    assert_eq!(request.send(house.rig.public).error(), "TENANT_ACCESS_DENIED/no_link");
    let body = format!("{LINKS}{P1},t-unlinked,msp_billing,,\n{P1},t-full,auditor,,\n");
    let path = format!("{BASE}/imports/links?format=csv");
    let asked = Request::new("POST", &path).header("X-Request-ID", "import-1").body(&body);
    let told = report(&ask(house, OPERATOR, asked));
    assert_eq!((told["imported"].as_u64(), told["refused_rows"].as_u64()), (Some(1), Some(1)));
    // In force in this process before it was answered.
    assert_eq!(request.send(house.rig.public).status, 200);

    let made = get(house, &format!("/links?partner_id={P1}&managed_tenant_id=t-unlinked")).json()["items"][0].clone();
    assert_eq!(made["created_by"], "admin:operator");
    let history = get(house, &format!("/links/{}/history", made["id"].as_str().unwrap())).json();
    assert_eq!(history["items"][0]["change"], "created");
    // The call, the row, and how many of what.
    let of_it = |all: Vec<Value>| all.into_iter().filter(|one| one["request_id"] == "import-1").collect::<Vec<_>>();
    assert!(eventually(|| of_it(changes(house)).len() == 2), "{:#?}", changes(house));
    let chained = of_it(changes(house));
    assert_eq!((&chained[0]["action"], &chained[1]["action"]), (&json!("link.create"), &json!("import")));
    assert_eq!(of_it(calls(house))[0]["action"], "admin.import.links");
    let filter = "/audit/records?request_id=import-1&action=import";
    let found = || get(house, filter).json()["items"].as_array().unwrap().clone();
    assert!(eventually(|| !found().is_empty()));
    let counts = json!({"tenants": 0, "partners": 0, "users": 0, "links": 1, "refused_rows": 1});
    assert_eq!((&found()[0]["after"], &found()[0]["user_id"]), (&counts, &json!("admin:operator")));
}

/// Four eyes and approval are asked of a row as of a single link, and a role that may not grant may not import.
#[test]
fn an_import_goes_around_nothing() {
    let rules = "[links]\nrequire_approval = true\nfour_eyes = true\n";
    let extra = format!("{rules}{}", section("unauthenticated = 0"));
    let house = House::with(Setup { extra, ..Setup::default() }, None);
    let body = json!({
        "partner_id": P1, "managed_tenant_id": "t-unlinked", "access_role": "auditor", "approval": "approved",
    });
    let single = post(&house, OPERATOR, "/links", &body);
    let row = report(&import(&house, OPERATOR, "links", &body.to_string()));
    // The same word on the same wish.
    match single.status {
        201 => assert_eq!(single.json()["approval"], "pending"),
        _ => {
            let error = &single.json()["error"];
            assert_eq!(row["refused"][0]["code"], error["code"], "{row} {error}");
        }
    }
    let links = get(&house, &format!("/links?partner_id={P1}&managed_tenant_id=t-unlinked")).json();
    assert!(links["items"].as_array().unwrap().iter().all(|link| link["approval"] == "pending"), "{links}");
    let plain = format!("{LINKS}{P2},t-unlinked,auditor,,\n");
    assert_eq!(report(&import(&house, OPERATOR, "links", &plain))["imported"], 1);
    let waiting =
        get(&house, &format!("/links?partner_id={P2}&managed_tenant_id=t-unlinked")).json()["items"][0].clone();
    assert_eq!(waiting["approval"], "pending");
    let approve = format!("/links/{}/approve", waiting["id"].as_str().unwrap());
    let own = over(&house, OPERATOR, "POST", &approve, "1", None);
    assert!(own.status == 422 && own.text().contains("four eyes"), "{}", own.text());
    assert_eq!(over(&house, OTHER, "POST", &approve, "1", None).json()["approval"], "approved");

    // Granting the pair again, in other terms, is refused; nothing is widened, nothing closed.
    let wider = format!("{LINKS}{P2},t-unlinked,reseller,,\n");
    assert_eq!(report(&import(&house, OPERATOR, "links", &wider))["imported"], 0);
    for token in [VIEWER, SECURITY] {
        for what in ["tenants", "partners", "users", "links"] {
            let answer = import(&house, token, what, &plain);
            assert_eq!((answer.status, answer.error().as_str()), (403, "FORBIDDEN"), "{what}");
        }
    }
}

/// As a disk that fails for a moment: SQLite ends the transaction by itself. The caller was allowed, and what was done stays.
#[test]
fn what_the_database_broke_off_is_recorded_as_allowed_and_failed() {
    let house = house(Setup::default(), false);
    let url = format!("sqlite://{}", house.rig.dir.path().join("linkgate.db").display());
    let mut conn = house.rig.block_on(SqliteConnection::connect(&url)).unwrap();
    let fails = "BEGIN SELECT RAISE(ROLLBACK, 'ended'); END";
    for trigger in [
        format!("CREATE TRIGGER row BEFORE INSERT ON tenants WHEN NEW.id = 'b-450' {fails}"),
        format!("CREATE TRIGGER revoked BEFORE UPDATE ON partner_tenant_links {fails}"),
    ] {
        house.rig.block_on(conn.execute(sqlx::AssertSqlSafe(trigger))).unwrap();
    }
    let file = format!("tenant_id,name\nb-0,First\n{}", (0..500).map(|n| format!("b-{n},B\n")).collect::<String>());
    let request = rows("/imports/tenants", "text/csv", &file).header("X-Request-ID", "broken-1");
    let broken = ask(&house, OPERATOR, request);
    assert_eq!((broken.status, broken.error().as_str()), (503, "UPSTREAM_UNAVAILABLE"), "{}", broken.text());
    assert!(broken.text().contains("after 399 rows had been imported and 1 refused"), "{}", broken.text());
    let revoke = Request::new("POST", &format!("{BASE}/partners/{P1}/revoke-links")).header("X-Request-ID", "broken-2");
    assert_eq!(ask(&house, SECURITY, revoke).status, 503);
    // What the rules refuse is refused as before.
    let twice = rows("/imports/tenants", "text/csv", "tenant_id,nme\n").header("X-Request-ID", "broken-3");
    assert_eq!(ask(&house, OPERATOR, twice).status, 422);

    let call = |id: &str| {
        let all = || calls(&house).into_iter().filter(|call| call["request_id"] == id).collect::<Vec<_>>();
        // The answer may come before the end of its record.
        assert!(eventually(|| all().iter().any(|call| !call["status"].is_null())), "{id}");
        let all = all();
        assert_eq!(all.len(), 1, "{id}: {all:#?}");
        json!([all[0]["decision"], all[0]["status"], all[0]["reason"]])
    };
    assert_eq!(call("broken-1"), json!(["allow", 503, "import_stopped: 399 rows imported, 1 refused"]));
    assert_eq!(call("broken-2"), json!(["allow", 503, "UPSTREAM_UNAVAILABLE"]));
    assert_eq!(call("broken-3"), json!(["deny", 422, "VALIDATION_ERROR"]));
    let filter = "/audit/records?request_id=broken-1&action=import";
    let counts = || get(&house, filter).json()["items"].as_array().unwrap().clone();
    assert!(eventually(|| !counts().is_empty()), "the rows that are in are counted");
    let told = json!({"tenants": 399, "partners": 0, "users": 0, "links": 0, "refused_rows": 1, "stopped": true});
    assert_eq!(counts()[0]["after"], told);
    assert_eq!(get(&house, "/tenants/b-0").status, 200);
}

/// What is not understood, too long or too much is refused whole.
#[test]
fn bodies_are_bounded_and_understood_whole() {
    let house = house(Setup::default(), false);
    let path = "/imports/tenants";
    let refused = |request: Request| {
        let answer = ask(&house, OPERATOR, request);
        (answer.status, answer.json()["error"]["code"].as_str().unwrap().to_owned(), answer.text())
    };
    let csv = |body: &str| refused(rows(path, "text/csv", body));
    let good = "tenant_id,name\nx-1,One\n";
    for (header, told) in [("tenant_id,nme", "`nme`"), ("tenant_id,tenant_id", "more than once"), ("=1+1", "`=1+1`")] {
        let (status, code, text) = csv(&format!("{header}\nx-1,One\n"));
        assert_eq!((status, code.as_str()), (422, "VALIDATION_ERROR"), "{text}");
        assert!(text.contains(told), "{text}");
    }
    assert_eq!(refused(Request::new("POST", &format!("{BASE}{path}")).body(good)).0, 422, "what is it?");
    assert_eq!(refused(rows(path, "application/json", good)).0, 422);
    assert_eq!(refused(rows(&format!("{path}?format=xml"), "text/csv", good)).0, 422);
    assert_eq!(refused(rows(&format!("{path}?force=true"), "text/csv", good)).0, 422);
    assert_eq!(refused(rows(path, "text/csv", "")).0, 400);
    let long = format!("tenant_id,name\nx-1,{}\n", "y".repeat(4 << 20));
    assert_eq!(csv(&long).1, "PAYLOAD_TOO_LARGE");
    let many: String = (0..10_001).map(|n| format!("{{\"tenant_id\": \"m-{n}\"}}\n")).collect();
    let (status, code, text) = refused(rows(path, "application/x-ndjson", &many));
    assert_eq!((status, code.as_str()), (413, "PAYLOAD_TOO_LARGE"), "{text}");
    assert!(text.contains("10000 rows"), "{text}");
    for nobody in ["x-1", "m-0", "m-10000"] {
        assert_eq!(get(&house, &format!("/tenants/{nobody}")).status, 404, "nothing was written");
    }
    // What came as bytes is told as text: nothing of it stands in the answer's own frame.
    let odd = report(&import(&house, OPERATOR, "tenants", "tenant_id,name,status\n\u{1}x,\"a\nb\",=cmd()\n"));
    assert_eq!((odd["imported"].as_u64(), odd["refused"][0]["line"].as_u64()), (Some(0), Some(2)), "{odd}");
    assert_eq!(report(&import(&house, OPERATOR, "tenants", good))["imported"], 1);
}

/// One at a time: a body that does not come keeps one place for a while, and nothing else waits for it.
#[test]
fn one_import_is_read_at_a_time() {
    let house = house(Setup::default(), false);
    let half = format!(
        "POST {BASE}/imports/tenants?format=csv HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {OPERATOR}\r\n\
         Content-Length: 99\r\n\r\ntenant_id"
    );
    let opened: Vec<_> = (0..2)
        .map(|_| {
            let mut connection = Connection::open(house.rig.admin_api.unwrap());
            connection.write(half.as_bytes());
            connection
        })
        .collect();
    assert_eq!(post(&house, OPERATOR, "/tenants", &json!({"tenant_id": "beside"})).status, 201);
    let mut answers: Vec<Answer> = opened.into_iter().map(|mut connection| connection.answer()).collect();
    answers.sort_by_key(|answer| answer.status);
    assert_eq!((answers[0].status, answers[1].status), (400, 429), "{} {}", answers[0].text(), answers[1].text());
    assert!(answers[1].header("retry-after").parse::<u32>().unwrap() >= 1);
    assert_eq!(report(&import(&house, OPERATOR, "tenants", "tenant_id\nafter\n"))["imported"], 1, "its place is free");
}
