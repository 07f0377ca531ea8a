//! The sample upstreams have the habits, and the faults, of the services they stand for.
#![cfg(feature = "demo")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use linkgate::sample::{self, Handle, Kind};
use serde_json::{Value, json};
use tokio::net::TcpListener;

async fn start(kind: Kind) -> Handle {
    sample::start(kind, TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap()
}

fn token(claims: &Value) -> String {
    format!("Bearer x.{}.y", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

async fn send(handle: &Handle, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Response<Incoming> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut request = Request::builder().method(method).uri(format!("{}{path}", handle.origin()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.request(request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()).await.unwrap()
}

async fn json_of(response: Response<Incoming>) -> Value {
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

async fn get(handle: &Handle, path: &str, tenant: &str) -> Value {
    json_of(send(handle, Method::GET, path, &[("x-tenant-id", tenant)], "").await).await
}

#[tokio::test]
async fn invoices_are_in_minor_units_with_internal_fields_and_a_total_of_the_page_only() {
    let isp = start(Kind::Isp).await;
    let page = get(&isp, "/api/isp/v1/billing/invoices?limit=5", "t1").await;
    assert_eq!((page["total_count"].clone(), page["has_more"].clone()), (json!(5), json!(true)));
    let row = &page["invoices"][0];
    for key in ["subtotal", "tax_amount", "total_amount", "remaining_balance"] {
        assert!(row[key].is_u64(), "{key}: {}", row[key]);
    }
    for key in ["internal_notes", "extra_data", "idempotency_key"] {
        assert!(!row[key].is_null(), "{key}");
    }
    for key in ["customer_name", "paid_amount", "tenant_name"] {
        assert!(row.get(key).is_none(), "{key}");
    }
    assert_eq!(row["tenant_id"], "t1");
    let one = get(&isp, &format!("/api/isp/v1/billing/invoices/{}", row["invoice_id"].as_str().unwrap()), "t1").await;
    assert_eq!(&one, row);
    let paid = get(&isp, "/api/isp/v1/billing/invoices?status=paid", "t1").await;
    assert!(
        paid["invoices"].as_array().unwrap().iter().all(|row| row["status"] == "paid" && row["remaining_balance"] == 0)
    );
}

#[tokio::test]
async fn data_is_the_same_for_the_same_tenant_and_differs_between_tenants() {
    let (one, two) = (start(Kind::Isp).await, start(Kind::Isp).await);
    for path in ["billing/invoices", "customers/", "subscribers/subscribers"] {
        let path = format!("/api/isp/v1/{path}");
        assert_eq!(get(&one, &path, "t1").await, get(&two, &path, "t1").await, "{path}");
        assert_ne!(get(&one, &path, "t1").await, get(&two, &path, "t2").await, "{path}");
    }
    assert_eq!(one.requests(), 6);
}

#[tokio::test]
async fn the_tenant_is_taken_blindly_from_header_then_query_then_token() {
    let isp = start(Kind::Isp).await;
    let claims = token(&json!({"tenant_id": "from-token"}));
    let tenant = async |headers: &[(&str, &str)], query: &str| {
        let path = format!("/api/isp/v1/billing/invoices?limit=1{query}");
        let response = send(&isp, Method::GET, &path, headers, "").await;
        let status = response.status();
        let body = json_of(response).await;
        if status == StatusCode::OK { body["invoices"][0]["tenant_id"].clone() } else { body }
    };
    assert_eq!(
        tenant(&[("x-tenant-id", "from-header"), ("authorization", &claims)], "&tenant_id=from-query").await,
        "from-header"
    );
    assert_eq!(tenant(&[("authorization", &claims)], "&tenant_id=from%2Dquery").await, "from-query");
    assert_eq!(tenant(&[("authorization", &claims)], "").await, "from-token");
    assert_eq!(tenant(&[], "").await, json!({"detail": "Tenant ID is required for this request."}));
}

#[tokio::test]
async fn payments_ignore_the_header_and_answer_for_the_token() {
    let isp = start(Kind::Isp).await;
    let path = "/api/isp/v1/payments?limit=2";
    let none = send(&isp, Method::GET, path, &[("x-tenant-id", "t1")], "").await;
    assert_eq!(none.status(), StatusCode::UNAUTHORIZED);
    let (one, two) = (token(&json!({"tenant_id": "t1"})), token(&json!({"tenant_id": "t2"})));
    let ask = async |header: &str, claims: &str| {
        json_of(send(&isp, Method::GET, path, &[("x-tenant-id", header), ("authorization", claims)], "").await).await
    };
    let rows = ask("t1", &one).await["payments"].clone();
    assert!(rows[0]["amount"].is_f64() && rows[0].get("invoice_id").is_none());
    assert_eq!(ask("t2", &one).await["payments"], rows);
    assert_ne!(ask("t1", &two).await["payments"], rows);
}

#[tokio::test]
async fn faults_want_an_admins_token_of_the_same_tenant() {
    let isp = start(Kind::Isp).await;
    let status = async |tenant: &str, role: &str| {
        let claims = token(&json!({"tenant_id": tenant, "roles": [role]}));
        let headers = [("x-tenant-id", "t1"), ("authorization", claims.as_str())];
        send(&isp, Method::GET, "/api/isp/v1/faults/alarms", &headers, "").await.status().as_u16()
    };
    assert_eq!(status("t1", "tenant_admin").await, 200);
    assert_eq!(status("t2", "tenant_admin").await, 403);
    assert_eq!(status("t1", "partner_msp_full").await, 403);
}

#[tokio::test]
async fn lists_without_their_trailing_slash_are_redirected() {
    let isp = start(Kind::Isp).await;
    let response = send(&isp, Method::GET, "/api/isp/v1/tickets?status=open", &[("host", "isp.internal")], "").await;
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(response.headers()["location"], "http://isp.internal/api/isp/v1/tickets/?status=open");
}

#[tokio::test]
async fn tickets_are_a_bare_array_and_a_body_can_name_any_tenant() {
    let isp = start(Kind::Isp).await;
    let path = "/api/isp/v1/tickets/";
    let before = get(&isp, path, "t1").await.as_array().unwrap().len();
    let headers = [("x-tenant-id", "t1"), ("content-type", "application/json")];
    let body = json!({"subject": "No signal", "message": "since noon", "target_type": "platform"}).to_string();
    let created = send(&isp, Method::POST, path, &headers, &body).await;
    assert_eq!(created.status(), StatusCode::CREATED);
    let id = json_of(created).await["id"].as_str().unwrap().to_owned();
    let rows = get(&isp, path, "t1").await;
    assert_eq!(rows.as_array().unwrap().len(), before + 1);
    assert!(rows[0].get("messages").is_none());

    let patched = send(&isp, Method::PATCH, &format!("{path}{id}"), &headers, r#"{"status": "resolved"}"#).await;
    assert_eq!(json_of(patched).await["status"], "resolved");
    let message = send(&isp, Method::POST, &format!("{path}{id}/messages"), &headers, r#"{"message": "done"}"#).await;
    assert_eq!(message.status(), StatusCode::CREATED);
    assert_eq!(get(&isp, &format!("{path}{id}/messages"), "t1").await.as_array().unwrap().len(), 2);

    let foreign =
        json!({"subject": "Planted", "message": "x", "target_type": "partner", "tenant_id": "t2"}).to_string();
    send(&isp, Method::POST, path, &headers, &foreign).await;
    assert_eq!(get(&isp, path, "t2").await[0]["subject"], "Planted");
}

#[tokio::test]
async fn the_platform_shows_a_tenant_by_its_path() {
    let platform = start(Kind::Platform).await;
    let path = "/api/platform/v1/tenants/t1";
    assert_eq!(get(&platform, path, "t1").await["id"], "t1");
    let foreign = send(&platform, Method::GET, path, &[("x-tenant-id", "t2")], "").await;
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
    assert!(get(&platform, "/api/platform/v1/tenants/t1/usage", "t1").await.is_array());
    assert_eq!(get(&platform, "/nowhere", "t1").await, json!({"detail": "Not Found"}));
    let login = send(&platform, Method::POST, "/api/platform/v1/auth/login", &[], "{}").await;
    assert_eq!(login.status(), StatusCode::OK);
}

#[tokio::test]
async fn staff_cannot_address_its_own_tenant_and_words_are_checked() {
    let isp = start(Kind::Isp).await;
    let headers = [("x-tenant-id", "t1"), ("content-type", "application/json")];
    let status = async |body: Value| {
        let body = body.to_string();
        send(&isp, Method::POST, "/api/isp/v1/tickets/", &headers, &body).await.status().as_u16()
    };
    let ticket = |target: Value, kind: &str| json!({"subject": "No signal", "message": "x", "target_type": target, "ticket_type": kind});
    assert_eq!(status(ticket("tenant".into(), "billing_issue")).await, 400);
    assert_eq!(status(ticket(Value::Null, "billing_issue")).await, 422);
    assert_eq!(status(ticket("partner".into(), "gardening")).await, 422);
    assert_eq!(status(ticket("partner".into(), "billing_issue")).await, 201);
}

#[tokio::test]
async fn availability_comes_by_day_for_ninety_days_at_most_and_traffic_needs_both_dates() {
    let isp = start(Kind::Isp).await;
    let claims = token(&json!({"tenant_id": "t1", "roles": ["tenant_admin"]}));
    let headers = [("x-tenant-id", "t1"), ("authorization", claims.as_str())];
    let ask = async |path: &str| {
        let response = send(&isp, Method::GET, &format!("/api/isp/v1{path}"), &headers, "").await;
        (response.status().as_u16(), json_of(response).await)
    };
    let (_, days) = ask("/faults/sla/compliance?from_date=2026-01-01&to_date=2026-02-01T00:00:00Z").await;
    assert_eq!(days.as_array().unwrap().len(), 31);
    assert_eq!(days[0]["date"], "2026-01-01");
    assert_eq!(ask("/faults/sla/compliance?from_date=2026-01-01&to_date=2026-06-01").await.0, 400);
    assert_eq!(ask("/faults/sla/compliance").await.0, 422);
    let usage = "/radius/analytics/tenant/usage?start_date=2026-01-01T00:00:00Z";
    assert_eq!(ask(usage).await.0, 422);
    assert!(ask(&format!("{usage}&end_date=2026-01-08")).await.1["total_bandwidth_bytes"].is_u64());
    // All there is, whatever the range: nothing was counted before 2010.
    let since =
        |year: &str| format!("/radius/analytics/tenant/usage?start_date={year}-01-01T00:00:00Z&end_date=9999-12-31");
    let (ever, counted) = (ask(&since("0001")).await.1, ask(&since("2010")).await.1);
    assert!(ever["total_bandwidth_bytes"].as_u64() > Some(0));
    assert_eq!(ever["total_bandwidth_bytes"], counted["total_bandwidth_bytes"]);
    isp.misbehave("t1", sample::Misbehave::UsageOff);
    assert_eq!(ask(&format!("{usage}&end_date=2026-01-08")).await.0, 503);
}

#[tokio::test]
async fn the_dashboard_adds_up_the_services_own_rows_and_mixes_currencies() {
    let isp = start(Kind::Isp).await;
    let truth = isp.truth("t1");
    let count = |status: &str| truth.subscribers.iter().filter(|row| row["status"] == status).count();
    let shown = &truth.dashboard["subscriber_metrics"];
    assert_eq!((&shown["total"], &shown["active"]), (&json!(truth.subscribers.len()), &json!(count("active"))));
    let owed: u64 = truth
        .invoices
        .iter()
        .filter(|row| row["status"] == "open")
        .map(|row| row["remaining_balance"].as_u64().unwrap())
        .sum();
    assert_eq!(truth.dashboard["revenue_metrics"]["outstanding_ar"], owed as f64 / 100.0);
    let open = truth.tickets.iter().filter(|row| ["open", "in_progress"].contains(&row["status"].as_str().unwrap()));
    assert_eq!(truth.dashboard["support_metrics"]["open_tickets"], open.count());
    let claims = token(&json!({"tenant_id": "t1", "permissions": ["metrics.read"]}));
    let path = "/api/isp/v1/metrics/dashboard";
    let told = json_of(send(&isp, Method::GET, path, &[("authorization", &claims)], "").await).await;
    assert_eq!(told["revenue_metrics"], truth.dashboard["revenue_metrics"]);
    let plain = token(&json!({"tenant_id": "t1"}));
    assert_eq!(send(&isp, Method::GET, path, &[("authorization", &plain)], "").await.status(), 403);
}

#[tokio::test]
async fn the_newer_generation_wants_all_signals_to_agree_and_counts_truly() {
    let gen2 = start(Kind::Gen2).await;
    let ask = async |tenant: &str, claims: Value| {
        let claims = token(&claims);
        let headers = [("x-tenant-id", tenant), ("authorization", claims.as_str())];
        let response = send(&gen2, Method::GET, "/api/v1/billing/invoices?limit=2", &headers, "").await;
        (response.status().as_u16(), json_of(response).await)
    };
    let own = json!({"tenant_id": "t1", "iss": "i", "aud": "a"});
    let (status, page) = ask("t1", own.clone()).await;
    assert_eq!((status, page["total_count"].as_u64()), (200, Some(gen2.truth("t1").invoices.len() as u64)));
    assert!(page["invoices"][0]["issue_date"].as_str().unwrap().ends_with("+00:00"));
    let (status, error) = ask("t2", own).await;
    assert_eq!((status, &error["error_code"], &error["status"]), (403, &json!("HTTP_403"), &json!(403)));
    assert_eq!(ask("t1", json!({"tenant_id": "t1"})).await.0, 401, "without iss and aud");
    gen2.set_invoices_per_tenant(3);
    assert_eq!(gen2.truth("t9").invoices.len(), 3);
}

#[tokio::test]
async fn echo_shows_what_arrived_with_repeated_headers_and_trailers() {
    let isp = start(Kind::Isp).await;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let frames = futures_util::stream::iter([
        Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(b"hello"))),
        Ok(Frame::trailers(http::HeaderMap::from_iter([("x-sum".parse().unwrap(), "5".parse().unwrap())]))),
    ]);
    let request = Request::builder()
        .method("PUT")
        .uri(format!("{}/api/isp/v1/echo/a%20b?x=1&x=2", isp.origin()))
        .header("x-two", "1")
        .header("x-two", "2")
        .header("trailer", "x-sum")
        .body(StreamBody::new(frames))
        .unwrap();
    let seen = json_of(client.request(request).await.unwrap()).await;
    assert_eq!(
        (&seen["method"], &seen["path"], &seen["query"]),
        (&json!("PUT"), &json!("/api/isp/v1/echo/a%20b"), &json!("x=1&x=2"))
    );
    assert_eq!((&seen["body_bytes"], &seen["body_complete"]), (&json!(5), &json!(true)));
    assert_eq!(seen["trailers"], json!([["x-sum", "5"]]));
    let twice = seen["headers"].as_array().unwrap().iter().filter(|pair| pair[0] == "x-two").count();
    assert_eq!(twice, 2);
}

#[tokio::test]
async fn downloads_uploads_and_cut_streams_have_the_length_they_say() {
    let isp = start(Kind::Isp).await;
    let response = send(&isp, Method::GET, "/stream/download?bytes=200000", &[], "").await;
    assert_eq!(response.headers()["content-length"], "200000");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 200_000);

    let response = send(&isp, Method::GET, "/stream/download?bytes=70000&trailer=1", &[("te", "trailers")], "").await;
    assert!(response.headers().get("content-length").is_none());
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sample-trailer"], "70000");
    assert_eq!(collected.to_bytes().len(), 70_000);

    let response = send(&isp, Method::POST, "/stream/upload", &[], &"x".repeat(300_000)).await;
    assert_eq!(json_of(response).await["bytes"], 300_000);

    let response = send(&isp, Method::GET, "/stream/cut?bytes=10", &[], "").await;
    assert!(response.into_body().collect().await.is_err());
}

#[tokio::test]
async fn events_come_one_by_one() {
    let isp = start(Kind::Isp).await;
    let response = send(&isp, Method::GET, "/events?count=3&ms=20", &[], "").await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let mut pieces = 0;
    while let Some(frame) = body.frame().await {
        assert!(frame.unwrap().into_data().unwrap().starts_with(format!("id: {pieces}\n").as_bytes()));
        pieces += 1;
    }
    assert_eq!(pieces, 3);
}

#[tokio::test]
async fn a_websocket_sends_back_what_it_gets() {
    use tokio_tungstenite::tungstenite::Message;
    let isp = start(Kind::Isp).await;
    let (mut socket, _) = tokio_tungstenite::client_async(
        format!("ws://{}/ws", isp.address()),
        tokio::net::TcpStream::connect(isp.address()).await.unwrap(),
    )
    .await
    .unwrap();
    for message in [Message::text("hello"), Message::binary(vec![7; 300]), Message::binary(vec![8; 70_000])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.send(Message::Ping(Bytes::from_static(b"p"))).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong(Bytes::from_static(b"p")));
    socket.close(None).await.unwrap();
    assert!(socket.next().await.unwrap().unwrap().is_close());
}

#[tokio::test]
async fn dropping_the_handle_ends_the_service() {
    let isp = start(Kind::Isp).await;
    let address = isp.address();
    drop(isp);
    let closed = async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), closed).await.unwrap();
}
