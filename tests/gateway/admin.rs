//! What the admin API does, on both databases: each object's life, versions and their races, four eyes with the command
//! line beside, suspensions and revocations in force at once, secrets that stay where they are.

use std::time::Instant;

use linkgate::{server::admin::table::BASE, store::admin::SubscriptionInput};
use serde_json::{Value, json};

use super::{
    admin_access::{
        OPERATOR, OTHER, SECURITY, VIEWER, ask, calls, changes, eventually, get, house, over, post, section,
        with_admin_api,
    },
    client::{Answer, Connection, Request},
    emergency::{House, ends_in_time, stream},
    rig::{HOME1, ISSUER, P1, P2, Setup, actor},
};

with_admin_api!(
    tenants_partners_and_users_live,
    links_live,
    two_writers_of_one_version,
    a_revocation_cuts_streams_and_refuses,
    suspensions_begin_and_end,
    webhooks_live_and_keep_their_secrets,
    records_are_found,
);

/// Created, and at version 1.
fn created(answer: &Answer) -> Value {
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

fn done(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// The code and the fields at fault.
fn refused(answer: &Answer) -> (u16, String, Vec<String>) {
    let body = answer.json();
    let fields = body["error"]["details"].as_object().unwrap().keys().cloned().collect();
    (answer.status, body["error"]["code"].as_str().unwrap().to_owned(), fields)
}

fn wrong(fields: &[&str]) -> (u16, String, Vec<String>) {
    (422, "VALIDATION_ERROR".into(), fields.iter().map(|field| (*field).to_owned()).collect())
}

fn tenants_partners_and_users_live(house: &House) {
    // A tenant, with a name that a path must encode.
    let made = post(house, OPERATOR, "/tenants", &json!({"tenant_id": "new é", "name": "New", "slug": "new"}));
    assert_eq!((created(&made)["version"].as_i64(), made.header("etag")), (Some(1), "\"1\""));
    let path = "/tenants/new%20%C3%A9";
    let changed = over(house, OPERATOR, "PATCH", path, "\"1\"", Some(&json!({"slug": "", "status": "suspended"})));
    assert_eq!((done(&changed)["slug"].clone(), changed.header("etag")), (Value::Null, "\"2\""));
    assert_eq!(done(&get(house, path))["updated_by"], "admin:operator");
    assert_eq!(post(house, OPERATOR, "/tenants", &json!({"tenant_id": "new é", "name": "Again"})).status, 409);
    let several = json!({"tenant_id": 7, "name": null, "colour": "red"});
    assert_eq!(refused(&post(house, OPERATOR, "/tenants", &several)), wrong(&["colour", "name", "tenant_id"]));
    let renamed = over(house, OPERATOR, "PATCH", path, "\"2\"", Some(&json!({"tenant_id": "other"})));
    assert_eq!(refused(&renamed), wrong(&["tenant_id"]));
    assert_eq!(refused(&get(house, "/tenants/nobody")).1, "TENANT_NOT_FOUND");

    // A partner of it, and a user of the partner.
    let nowhere = post(house, OPERATOR, "/partners", &json!({"name": "P", "home_tenant_id": "nowhere"}));
    assert_eq!(refused(&nowhere), wrong(&["home_tenant_id"]));
    let partner = created(&post(house, OPERATOR, "/partners", &json!({"name": "P", "home_tenant_id": "new é"})));
    let id = partner["partner_id"].as_str().unwrap();
    let path = format!("/partners/{id}");
    let inactive = over(house, OPERATOR, "PATCH", &path, "\"1\"", Some(&json!({"is_active": false})));
    assert_eq!(done(&inactive)["is_active"], false);
    let user = created(&post(house, OPERATOR, "/users", &json!({"partner_id": id, "issuer": ISSUER, "sub": "u-9"})));
    let user_path = format!("/users/{}", user["id"].as_str().unwrap());
    let named = over(house, OPERATOR, "PATCH", &user_path, "1", Some(&json!({"username": "Nina"})));
    assert_eq!(done(&named)["username"], "Nina");
    let fixed = over(house, OPERATOR, "PATCH", &user_path, "2", Some(&json!({"sub": "u-10"})));
    assert_eq!(refused(&fixed), wrong(&["sub"]));
    let found = done(&get(house, &format!("/users?issuer={ISSUER}&sub=u-9")));
    assert_eq!(
        (&found["items"][0]["id"], &found["total"], &found["total_exact"]),
        (&user["id"], &json!(1), &json!(true))
    );
    assert_eq!(done(&get(house, &format!("/users?partner_id={id}")))["items"].as_array().unwrap().len(), 1);
    assert_eq!(refused(&get(house, "/users/not-a-uuid")).0, 404);

    // The command line sees the same rows.
    assert_eq!(house.done(&["user", "show", user["id"].as_str().unwrap()])["username"], "Nina");

    // Pages follow each other without a gap.
    let all = done(&get(house, "/tenants?limit=100"))["items"].as_array().unwrap().clone();
    let mut paged = Vec::new();
    loop {
        let page = done(&get(house, &format!("/tenants?limit=3&offset={}", paged.len())));
        paged.extend(page["items"].as_array().unwrap().clone());
        assert_eq!(page["total_exact"], !page["has_more"].as_bool().unwrap());
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(paged, all);
    assert_eq!(refused(&get(house, "/tenants?limit=0&offset=x")), wrong(&["limit", "offset"]));
}

fn links_live(house: &House) {
    let request = Request::get("/api/invoices").bearer(&house.rig.token()).tenant("t-unlinked");
    assert_eq!(request.send(house.rig.public).error(), "TENANT_ACCESS_DENIED/no_link");
    let body = json!({
        "partner_id": P1, "managed_tenant_id": "t-unlinked", "access_role": "msp_billing",
        "custom_permissions": {"billing.write": false}, "metadata": {"ticket": 7}, "end_date": null,
    });
    let made = post(house, OPERATOR, "/links", &body);
    let link = created(&made);
    // In force in this process before it was answered.
    assert_eq!(request.send(house.rig.public).status, 200);
    let id = link["id"].as_str().unwrap();
    let path = format!("/links/{id}");
    assert_eq!((&link["created_by"], made.header("etag")), (&json!("admin:operator"), "\"1\""));
    assert_eq!(post(house, OPERATOR, "/links", &body).status, 409, "it stands already");
    let nobody = json!({"partner_id": P1, "managed_tenant_id": "nowhere", "access_role": "auditor"});
    assert_eq!(refused(&post(house, OPERATOR, "/links", &nobody)), wrong(&["managed_tenant_id"]));
    let bad = json!({"access_role": "king", "allowed_cidrs": ["10.0.0.1/8"], "sla_response_hours": "x"});
    assert_eq!(refused(&over(house, OPERATOR, "PATCH", &path, "1", Some(&bad))), wrong(&["sla_response_hours"]));
    let bad = json!({"access_role": "king", "allowed_cidrs": ["10.0.0.1/8"]});
    let answer = over(house, OPERATOR, "PATCH", &path, "1", Some(&bad));
    assert_eq!(refused(&answer), wrong(&["access_role", "allowed_cidrs"]));

    let access = done(&get(house, &format!("{path}/access")));
    let of = |name: &str| {
        let rows = access["permissions"].as_array().unwrap();
        rows.iter().find(|row| row["permission"] == name).unwrap()["answer"].clone()
    };
    assert_eq!((&access["live"], of("partner.billing.invoices.read")), (&json!(true), json!("yes")));
    assert_eq!(of("partner.billing.invoices.write"), "no");

    let narrowed = over(house, OPERATOR, "PATCH", &path, "\"1\"", Some(&json!({"require_mfa": true})));
    assert_eq!(done(&narrowed)["version"], 2);
    assert_eq!(request.send(house.rig.public).error(), "FORBIDDEN/mfa_required");
    let history = done(&get(house, &format!("{path}/history")));
    let told: Vec<_> = history["items"].as_array().unwrap().iter().map(|one| one["change"].clone()).collect();
    assert_eq!(told, ["created", "updated"]);
    let listed = done(&get(house, &format!("/links?partner_id={P1}&managed_tenant_id=t-unlinked&is_active=true")));
    assert_eq!(listed["items"][0], done(&get(house, &path)));
    assert_eq!(done(&get(house, &format!("/links?partner_id={P2}&managed_tenant_id=t-unlinked")))["items"], json!([]));

    // A link that waits, and one that ends soon.
    let waiting = done(&get(house, "/approvals"));
    let pending = house.rig.links["t-pending"].to_string();
    assert!(waiting["items"].as_array().unwrap().iter().any(|link| link["id"] == pending), "{waiting}");
    let approved = over(house, OPERATOR, "POST", &format!("/links/{pending}/approve"), "1", None);
    assert_eq!(
        (&done(&approved)["approval"], &approved.json()["approved_by"]),
        (&json!("approved"), &json!("admin:operator"))
    );
    let rejected = over(house, OPERATOR, "POST", &format!("/links/{pending}/reject"), "2", None);
    assert_eq!(done(&rejected)["approval"], "rejected");
    let soon = linkgate::domain::Millis(linkgate::domain::Millis::now().0 + 86_400_000).to_string();
    done(&over(house, OPERATOR, "PATCH", &path, "2", Some(&json!({"end_date": soon}))));
    let ending = done(&get(house, "/links-ending?days=2"));
    assert!(ending["items"].as_array().unwrap().iter().any(|one| one["link_id"] == id), "{ending}");

    // Every change stands in the chain, under the request that made it.
    let asked = over(house, OPERATOR, "POST", &format!("{path}/revoke"), "3", None);
    let request_id = asked.header("x-request-id").to_owned();
    assert_eq!(done(&asked)["is_active"], false);
    let of_it = |all: Vec<Value>| all.into_iter().find(|one| one["request_id"] == request_id.as_str());
    let call = of_it(calls(house)).unwrap();
    assert!(eventually(|| of_it(changes(house)).is_some()), "the change is chained");
    let change = of_it(changes(house)).unwrap();
    assert_eq!((&call["action"], &change["action"]), (&json!("admin.link.revoke"), &json!("link.revoke")));
    assert_eq!((&call["user_id"], &change["user_id"]), (&json!("admin:operator"), &json!("admin:operator")));
    assert_eq!((&call["client_ip"], &change["client_ip"]), (&json!("127.0.0.1"), &json!("127.0.0.1")));
}

/// `If-Match` is asked for, names the version that was read, and lets one of two writers through.
fn two_writers_of_one_version(house: &House) {
    let id = house.rig.links["t-full"].to_string();
    let (path, body) = (format!("/links/{id}"), json!({"notes": "mine"}));
    let unread = ask(house, OPERATOR, Request::new("PATCH", &format!("{BASE}{path}")).json(&body.to_string()));
    assert_eq!((unread.status, unread.error().as_str()), (409, "CONFLICT"));
    assert!(unread.text().contains("If-Match"), "{}", unread.text());
    for (version, status) in [("\"7\"", 409), ("*", 422), ("W/\"1\"", 422), ("one", 422), ("-1", 422)] {
        assert_eq!(over(house, OPERATOR, "PATCH", &path, version, Some(&body)).status, status, "{version}");
    }
    for round in 1..=5 {
        let version = get(house, &path).header("etag").to_owned();
        let write = |token: &'static str, text: String| {
            let (path, version) = (path.clone(), version.clone());
            let address = house.rig.admin_api.unwrap();
            std::thread::spawn(move || {
                let request = Request::new("PATCH", &format!("{BASE}{path}")).header("If-Match", &version);
                request.json(&json!({"notes": text}).to_string()).bearer(token).send(address)
            })
        };
        let both = [write(OPERATOR, format!("a{round}")), write(OTHER, format!("b{round}"))];
        let answers = both.map(|one| one.join().unwrap());
        let mut statuses = answers.clone().map(|answer| answer.status);
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409], "{}", answers[0].text());
        let won = answers.iter().find(|answer| answer.status == 200).unwrap().json();
        assert_eq!(done(&get(house, &path)), won, "who lost changed nothing");
    }
    // A revocation over whatever it became meanwhile: it only closes.
    assert_eq!(over(house, OPERATOR, "POST", &format!("{path}/revoke"), "1", None).status, 409);
    done(&over(house, SECURITY, "POST", &format!("{path}/revoke"), "*", None));
}

fn a_revocation_cuts_streams_and_refuses(house: &House) {
    let rig = &house.rig;
    let token = rig.token();
    let path = format!("/links/{}", rig.links["t-full"]);
    let ask_invoices = |tenant: &str| Request::get("/api/invoices").bearer(&token).tenant(tenant).send(rig.public);
    let mut open = stream(rig, Request::get("/t/sse").bearer(&token).tenant("t-full"), "open");
    let since = Instant::now();
    done(&over(house, OPERATOR, "POST", &format!("{path}/revoke"), "1", None));
    // Not within a bound: at once, in the process that was asked.
    assert_eq!(ask_invoices("t-full").error(), "TENANT_ACCESS_DENIED/link_inactive");
    ends_in_time(&mut open, since);

    let mut open = stream(rig, Request::get("/t/sse").bearer(&token).tenant("t-billing"), "second");
    let since = Instant::now();
    let revoked = post_empty(house, SECURITY, &format!("/partners/{P1}/revoke-links"));
    assert!(done(&revoked)["revoked"].as_array().unwrap().len() > 3, "{}", revoked.text());
    assert_eq!(ask_invoices("t-billing").error(), "TENANT_ACCESS_DENIED/link_inactive");
    ends_in_time(&mut open, since);
    assert_eq!(done(&post_empty(house, SECURITY, &format!("/partners/{P1}/revoke-links")))["revoked"], json!([]));
    assert_eq!(post_empty(house, SECURITY, "/partners/00000000-0000-4000-8000-000000000000/revoke-links").status, 404);
}

fn post_empty(house: &House, token: &str, path: &str) -> Answer {
    ask(house, token, Request::new("POST", &format!("{BASE}{path}")))
}

fn suspensions_begin_and_end(house: &House) {
    let rig = &house.rig;
    let request = Request::get("/api/invoices").bearer(&rig.token()).tenant("t-full");
    let empty = post(house, SECURITY, "/suspensions", &json!({}));
    assert_eq!(refused(&empty), wrong(&["reason", "scope"]));
    let unknown = json!({"scope": "partner", "subject": "00000000-0000-4000-8000-000000000000", "reason": "x"});
    assert_eq!(refused(&post(house, SECURITY, "/suspensions", &unknown)), wrong(&["subject"]));
    let all = json!({"scope": "all", "reason": "breach"});
    assert_eq!(refused(&post(house, SECURITY, "/suspensions", &all)), wrong(&["confirm"]));
    assert_eq!(request.send(rig.public).status, 200);

    let subjects = [
        json!({"scope": "partner", "subject": P1, "reason": "breach"}),
        json!({"scope": "tenant", "subject": "t-full", "reason": "breach"}),
        json!({"scope": "user", "subject": "user-1", "issuer": ISSUER, "reason": "laptop stolen"}),
        json!({"scope": "all", "reason": "breach", "confirm": "everything"}),
    ];
    for body in subjects {
        let mut open = stream(rig, Request::get("/t/sse").bearer(&rig.token()).tenant("t-full"), "s");
        let since = Instant::now();
        let begun = created(&post(house, SECURITY, "/suspensions", &body));
        assert!(begun["in_force_by"].is_string() && begun["covers"].is_object(), "{begun}");
        assert_eq!(request.send(rig.public).error(), "TENANT_ACCESS_DENIED/access_suspended", "{body}");
        ends_in_time(&mut open, since);
        assert_eq!(post(house, SECURITY, "/suspensions", &body).status, 409, "it is in force already");
        let id = begun["id"].as_str().unwrap();
        assert_eq!(done(&get(house, "/suspensions"))["items"][0]["by"], "admin:security");
        let lifted = post_empty(house, SECURITY, &format!("/suspensions/{id}/restore"));
        assert_eq!(done(&lifted)["lifted_by"], "admin:security");
        house.becomes(&request, "");
        assert_eq!(post_empty(house, SECURITY, &format!("/suspensions/{id}/restore")).status, 409);
        assert_eq!(done(&get(house, &format!("/suspensions/{id}")))["reason"], body["reason"]);
    }
    assert_eq!(done(&get(house, "/suspensions"))["items"], json!([]));
    assert_eq!(done(&get(house, "/suspensions?all=true"))["items"].as_array().unwrap().len(), 4);
}

fn webhooks_live_and_keep_their_secrets(house: &House) {
    let body = json!({"partner_id": P1, "url": "https://hooks.example/in", "events": ["partner.tenant.link_revoked"]});
    let plain = json!({"partner_id": P1, "url": "http://hooks.example/in"});
    assert_eq!(refused(&post(house, OPERATOR, "/webhooks", &plain)), wrong(&["url"]));
    assert_eq!(refused(&post(house, OPERATOR, "/webhooks", &json!({"events": ["nothing"]}))), wrong(&["events"]));
    let made = created(&post(house, OPERATOR, "/webhooks", &body));
    let (id, first) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap().to_owned());
    let path = format!("/webhooks/{id}");
    let rotated =
        over(house, OPERATOR, "POST", &format!("{path}/rotate-secret"), "1", Some(&json!({"overlap_hours": 1})));
    let second = done(&rotated)["secret"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    let changed = over(house, OPERATOR, "PATCH", &path, rotated.header("etag"), Some(&json!({"enabled": false})));
    assert_eq!(done(&changed)["enabled"], false);
    // A revocation is told to who wants to know: a delivery stands in the queue.
    done(&over(house, OPERATOR, "PATCH", &path, changed.header("etag"), Some(&json!({"enabled": true}))));
    let revoke = format!("/links/{}/revoke", house.rig.links["t-full"]);
    done(&over(house, OPERATOR, "POST", &revoke, "*", None));
    let deliveries = || done(&get(house, &format!("/deliveries?webhook_id={id}")))["items"].as_array().unwrap().clone();
    assert!(eventually(|| !deliveries().is_empty()), "the queue is filled from the events");
    let delivery = deliveries()[0]["id"].as_str().unwrap().to_owned();
    assert!(done(&post_empty(house, OPERATOR, &format!("/deliveries/{delivery}/redeliver")))["deliveries"].is_u64());
    assert_eq!(post_empty(house, OPERATOR, "/deliveries/00000000-0000-4000-8000-000000000000/redeliver").status, 404);
    assert!(done(&post_empty(house, OPERATOR, &format!("{path}/redeliver")))["deliveries"].is_u64());

    // The secrets were answered once each, and stand in no list, record or journal; tokens stand nowhere at all.
    let shown = [get(house, "/webhooks"), get(house, &path), get(house, "/deliveries"), get(house, "/audit/records")];
    let version = get(house, &path).header("etag").to_owned();
    assert_eq!(over(house, OPERATOR, "DELETE", &path, "\"1\"", None).status, 409);
    done(&over(house, OPERATOR, "DELETE", &path, &version, None));
    assert_eq!(get(house, &path).status, 404);
    let deleted = || changes(house).iter().any(|record| record["action"] == "webhook.delete");
    assert!(eventually(deleted), "the change is chained");
    let mut places: Vec<String> = shown.iter().map(Answer::text).collect();
    places.push(house.rig.lines().iter().map(Value::to_string).collect());
    places.push(house.rig.health("/metrics").text());
    for place in places {
        for secret in [first.as_str(), second.as_str(), VIEWER, OPERATOR, SECURITY] {
            assert!(!place.contains(secret), "a secret stands in {place}");
        }
    }
}

/// A test event goes out by the gateway's rules, and says what came back; secrets are sealed anew with the first key.
#[test]
fn webhooks_are_tested_and_their_secrets_sealed_anew() {
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("a.key");
    std::fs::write(&key, "an-example-of-a-key-that-is-long-enough").unwrap();
    let (first, hooks) = (section("unauthenticated = 0"), "[webhooks]\nallow_http = true\nallow_private = true\n");
    let house = House::with(Setup { extra: format!("{first}{hooks}"), ..Setup::default() }, None);
    let receiver = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/in", receiver.local_addr().unwrap());
    let posted = std::thread::spawn(move || {
        let mut seen = Vec::new();
        for status in ["204 No Content", "500 Oops"] {
            let mut connection = Connection::over(receiver.accept().unwrap().0);
            let mut text = Vec::new();
            while !text.ends_with(b"}}") {
                text.extend(connection.read_some());
            }
            connection.write(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
            seen.push(String::from_utf8(text).unwrap());
        }
        seen
    });
    let made = created(&post(&house, OPERATOR, "/webhooks", &json!({"partner_id": P1, "url": url})));
    let test = format!("/webhooks/{}/test", made["id"].as_str().unwrap());
    let came =
        |status: u64, accepted: bool| json!({"id": made["id"], "status": status, "accepted": accepted, "error": null});
    assert_eq!(done(&post_empty(&house, OPERATOR, &test)), came(204, true));
    assert_eq!(done(&post_empty(&house, OPERATOR, &test)), came(500, false));
    let posted = posted.join().unwrap();
    assert!(
        posted[0].contains("webhook-signature: v1,") && posted[0].contains("partner.webhook.test"),
        "{}",
        posted[0]
    );
    // The receiver is gone.
    let nobody = done(&post_empty(&house, OPERATOR, &test));
    assert_eq!((&nobody["status"], &nobody["accepted"]), (&Value::Null, &json!(false)));
    assert!(nobody["error"].is_string(), "{nobody}");
    assert_eq!(post_empty(&house, OPERATOR, "/webhooks/00000000-0000-4000-8000-000000000000/test").status, 404);
    assert_eq!(post_empty(&house, SECURITY, &test).status, 403);
    assert_eq!(done(&get(&house, "/deliveries"))["items"], json!([]), "nothing of it stands in the queue");

    // Without a key there is nothing to seal with.
    let keyless = post_empty(&house, OPERATOR, "/webhooks-reseal");
    assert!(keyless.status == 422 && keyless.text().contains("secret_keys"), "{}", keyless.text());
    drop(house);
    let sealing = format!("[webhooks]\nsecret_keys = [{{ kid = \"a\", key_file = \"{}\" }}]\n", key.display());
    let house = House::with(Setup { extra: format!("{first}{sealing}"), ..Setup::default() }, None);
    let old = SubscriptionInput { url: Some("https://hooks.example/in".into()), ..SubscriptionInput::default() };
    let (admin, partner) = (house.rig.admin(), P1.parse().unwrap());
    house.rig.block_on(admin.create_subscription(&actor(), partner, "whsec_b2xk", &old)).unwrap();
    let resealed = |token: &str| post_empty(&house, token, "/webhooks-reseal");
    assert_eq!(done(&resealed(OPERATOR)), json!({"subscriptions": 1, "unchanged": 0}));
    assert_eq!(done(&resealed(SECURITY)), json!({"subscriptions": 0, "unchanged": 1}));
    assert_eq!(resealed(VIEWER).status, 403);
}

fn records_are_found(house: &House) {
    let rig = &house.rig;
    let request =
        Request::get("/api/invoices").bearer(&rig.token()).tenant("t-full").header("X-Request-ID", "looked-for");
    assert_eq!(request.send(rig.public).status, 200);
    let path = "/audit/records?request_id=looked-for&kind=access&decision=allow";
    let found = || done(&get(house, path))["items"].as_array().unwrap().clone();
    assert!(eventually(|| !found().is_empty()), "the index follows the journal");
    let record = found()[0].clone();
    assert_eq!((&record["managed_tenant_id"], &record["user_id"]), (&json!("t-full"), &json!("user-1")));
    let shown = done(&get(house, &format!("/audit/records/{}", record["id"].as_str().unwrap())));
    assert_eq!(shown["request_id"], "looked-for");
    // Reads are recorded too, and found by who made them.
    let own = || done(&get(house, "/audit/records?user_id=admin:viewer&kind=admin&action=admin.audit.show"));
    assert!(eventually(|| !own()["items"].as_array().unwrap().is_empty()));
    assert_eq!(own()["items"][0]["resource_id"], record["id"]);
    let bad = get(house, "/audit/records?from=yesterday&kind=all&partner_id=1");
    assert_eq!(refused(&bad), wrong(&["from", "kind", "partner_id"]));
    for date in ["0000-01-01", "0001-01-01T00:00:00%2B14:00", "2026-01-01T00:00:00%2B25:00", "2016-12-31T23:59:60Z"] {
        let bad = get(house, &format!("/audit/records?from={date}&to={date}"));
        assert_eq!(refused(&bad), wrong(&["from", "to"]), "{date}");
    }
    assert_eq!(get(house, "/audit/records/00000000-0000-4000-8000-000000000000").status, 404);
    let policies = done(&get(house, "/policies"));
    assert!(policies["policies"].as_array().unwrap().len() > 5 && policies["enforced"] == true);
    // A tenant's own access log has none of it: it is no access to the tenant.
    let of_tenant = calls(house).iter().all(|record| record["managed_tenant_id"].is_null());
    assert!(of_tenant);
}

/// One person, two ways in: a token whose holder is known by their account at the command line approves nothing that the
/// account asked for, and the other way round.
#[test]
fn four_eyes_see_through_the_api_and_the_command_line() {
    let account = serde_json::to_string(&cli_account()).unwrap();
    let tokens = section("unauthenticated = 0")
        .replace("{ name = \"operator\",", &format!("{{ name = \"operator\", account = {account},"));
    let rules = "[links]\nrequire_approval = true\nfour_eyes = true\n";
    let house = House::with(Setup { extra: format!("{rules}{tokens}"), ..Setup::default() }, None);
    let decide = |token: &str, link: &Value| {
        let path = format!("/links/{}/approve", link["id"].as_str().unwrap());
        over(&house, token, "POST", &path, &link["version"].to_string(), None)
    };
    let request = Request::get("/api/invoices").bearer(&house.rig.token_with(
        "user-1",
        HOME1,
        json!({"roles": ["partner_msp_full"]}),
    ));
    let is_open = |tenant: &str| request.clone().tenant(tenant).send(house.rig.public).status == 200;

    // Asked for over the API.
    let body = json!({"partner_id": P1, "managed_tenant_id": "t-unlinked", "access_role": "auditor"});
    let mine = created(&post(&house, OPERATOR, "/links", &body));
    assert_eq!(mine["approval"], "pending");
    let own = decide(OPERATOR, &mine);
    assert!(own.status == 422 && own.text().contains("four eyes"), "{}", own.text());
    let by_update = over(
        &house,
        OPERATOR,
        "PATCH",
        &format!("/links/{}", mine["id"].as_str().unwrap()),
        "1",
        Some(&json!({"approval": "approved"})),
    );
    assert!(by_update.status == 422 && by_update.text().contains("four eyes"), "{}", by_update.text());
    let ran = house.command(&["--yes", "link", "approve", mine["id"].as_str().unwrap(), "--actor", "bob"]);
    assert!(ran.code == 3 && ran.err.contains("four eyes"), "{}: {}", ran.code, ran.err);
    assert!(!is_open("t-unlinked"));
    assert_eq!(done(&decide(OTHER, &mine))["approved_by"], "admin:second");
    assert!(is_open("t-unlinked"));

    // Asked for at the command line.
    let theirs =
        house.done(&["link", "create", "--partner", P1, "--tenant", "t-other", "--role", "auditor", "--actor", "ann"]);
    assert_eq!(decide(OPERATOR, &theirs).status, 422, "the same account");
    assert_eq!(decide(VIEWER, &theirs).status, 403);
    assert_eq!(decide(SECURITY, &theirs).status, 403);
    assert_eq!(done(&decide(OTHER, &theirs))["approval"], "approved");
}

/// As the command line will call itself here.
fn cli_account() -> String {
    let house = house(Setup::default(), false);
    let made = house.done(&["tenant", "create", "who-am-i", "--name", "x"]);
    made["created_by"].as_str().unwrap().to_owned()
}
