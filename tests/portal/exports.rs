//! Exports through the gateway: queued, made, downloaded by their owner while everything in them is allowed.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    client::{Answer, Connection, Request},
    rig::{BASE, P2, Rig, names},
    service::Chaos,
};

fn queue(rig: &Rig, body: &str) -> Answer {
    rig.ask(Request::new("POST", &format!("{BASE}/billing/invoices/export")).json(body))
}

fn finished(rig: &Rig, body: &str) -> Value {
    let queued = queue(rig, body);
    assert_eq!(queued.status, 202, "{}", queued.text());
    let queued = queued.json();
    assert_eq!(names(&queued), ["export_id", "status", "estimated_completion", "download_url", "expires_at"]);
    let path = format!("/billing/exports/{}", queued["export_id"].as_str().unwrap());
    let began = Instant::now();
    loop {
        let state = rig.get(&path);
        if state["status"] != "processing" {
            return state;
        }
        assert!(began.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(50));
    }
}

const CSV: &str = r#"{"format":"csv","from_date":"2015-01-01"}"#;

#[test]
fn a_csv_holds_every_invoice_that_the_list_holds() {
    let rig = Rig::start();
    let state = finished(&rig, CSV);
    assert_eq!(state["status"], "completed", "{state}");
    let job = format!("export-{}", state["export_id"].as_str().unwrap());
    let told = rig.service.take_heads();
    assert!(
        !told.is_empty() && told.iter().all(|head| head["x-request-id"] == job),
        "services are told the job: {told:?}"
    );
    assert!(
        told.iter().all(|head| head["x-user-id"] == "user-1" && head["x-partner-tenant-id"] == "home-1"),
        "{told:?}"
    );
    assert_eq!(
        names(&state),
        [
            "export_id",
            "status",
            "format",
            "file_size_bytes",
            "row_count",
            "download_url",
            "created_at",
            "completed_at",
            "expires_at"
        ]
    );
    let url = state["download_url"].as_str().unwrap();
    let file = rig.ask(Request::get(url));
    assert_eq!(file.status, 200, "{}", file.text());
    assert_eq!(file.header("content-type"), "text/csv; charset=utf-8");
    assert!(file.header("content-disposition").starts_with("attachment; filename=\"invoices-2015-01-01-"));
    let text = file.text();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let ids: Vec<String> = reader.records().map(|record| record.unwrap()[0].to_owned()).collect();
    assert_eq!(state["row_count"], ids.len());
    assert_eq!(state["file_size_bytes"], file.body.len());
    // Links that grant the export: the override of t-override takes reading only. All others read and export not.
    let held = ["t-billing", "t-full", "t-override"].iter().flat_map(|tenant| &rig.world[*tenant].invoices);
    let mut truth: Vec<&str> = held.map(|row| row["invoice_id"].as_str().unwrap()).collect();
    let mut found: Vec<&str> = ids.iter().map(String::as_str).collect();
    truth.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, truth);
}

#[test]
fn a_file_is_its_owners_and_its_link_is_needed() {
    let rig = Rig::start();
    let state = finished(&rig, CSV);
    let path = format!("{BASE}/billing/exports/{}", state["export_id"].as_str().unwrap());
    let url = state["download_url"].as_str().unwrap();
    assert_eq!(rig.ask_other_partner(Request::get(&path)).error(), "EXPORT_NOT_FOUND");
    assert_eq!(rig.ask_other_partner(Request::get(url)).error(), "EXPORT_NOT_FOUND");
    assert_eq!(Request::get(url).send(rig.public).status, 401, "the link alone opens nothing");
    assert_eq!(rig.ask(Request::get(&format!("{path}/download"))).status, 422);
    assert_eq!(rig.ask(Request::get(&format!("{path}/download?token=x"))).error(), "FORBIDDEN");
    assert_eq!(rig.ask_as("partner_msp_support", Request::get(&path)).status, 403);
    assert_eq!(queue(&rig, r#"{"format":"csv","tenant_ids":["t-other"]}"#).status, 403);
    assert_eq!(queue(&rig, r#"{"format":"csv","tenant_ids":["t-auditor"]}"#).status, 403, "reads, and exports not");
    assert_eq!(queue(&rig, r#"{"format":"xls"}"#).status, 422);
    rig.revoke("t-billing");
    let refused = rig.ask(Request::get(url));
    assert_eq!((refused.status, refused.error()), (403, "TENANT_ACCESS_DENIED/link_inactive".to_owned()));
    // Neither log nor record holds the link's token.
    let token = url.split_once("token=").unwrap().1;
    let journal = super::flow::lines(&rig.dir.path().join("audit"));
    assert!(!journal.is_empty() && journal.iter().all(|line| !line.to_string().contains(token)));
}

#[test]
fn a_partner_whose_tenant_hangs_holds_up_nobody_else() {
    let rig = Rig::start();
    rig.link(P2, "t-billing", "msp_full");
    rig.service.misbehave("t-full", "invoices", Some(Chaos::Slow(Duration::from_secs(600))));
    let hanging: Vec<Value> = (0..8)
        .map(|_| {
            let queued = queue(&rig, r#"{"format":"csv","from_date":"2015-01-01","tenant_ids":["t-full"]}"#);
            assert_eq!(queued.status, 202, "{}", queued.text());
            queued.json()
        })
        .collect();
    let began = Instant::now();
    while rig.service.asked("t-full", "invoices") == 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "nobody works on them");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Polls of the queue: whoever works on nothing would have taken another one by now.
    std::thread::sleep(Duration::from_millis(2_500));
    let state = |export: &Value, ask: &dyn Fn(Request) -> Answer| {
        let path = format!("{BASE}/billing/exports/{}", export["export_id"].as_str().unwrap());
        ask(Request::get(&path)).json()["status"].as_str().unwrap().to_owned()
    };
    let (began, ask) = (Instant::now(), |request| rig.ask_other_partner(request));
    let queued = ask(Request::new("POST", &format!("{BASE}/billing/invoices/export")).json(CSV));
    assert_eq!(queued.status, 202, "{}", queued.text());
    while state(&queued.json(), &ask) != "completed" {
        assert!(began.elapsed() < Duration::from_secs(10), "it waits for the other partner's tenant");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(hanging.iter().all(|export| state(export, &|request| rig.ask(request)) == "processing"));
}

#[test]
fn a_pdf_is_made() {
    let rig = Rig::start();
    let state = finished(&rig, r#"{"format":"pdf","from_date":"2015-01-01","include_line_items":true}"#);
    assert_eq!(state["status"], "completed", "{state}");
    let file = rig.ask(Request::get(state["download_url"].as_str().unwrap()));
    assert_eq!((file.status, file.header("content-type")), (200, "application/pdf"));
    assert!(file.body.starts_with(b"%PDF-"));
}

#[test]
fn a_download_whose_link_is_revoked_is_cut_within_a_second() {
    let rig = Rig::start();
    let state = finished(&rig, CSV);
    let folder = rig.dir.path().join("exports");
    let file = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    // As long as a download takes that the client reads slowly.
    let length = 256 * 1024 * 1024;
    std::fs::File::options().write(true).open(&file).unwrap().set_len(length).unwrap();
    let token = rig.token("user-1", "home-1", "partner_msp_full");
    let mut connection = Connection::open(rig.public);
    let request = Request::get(state["download_url"].as_str().unwrap()).bearer(&token);
    connection.write(&request.bytes());
    let mut some = [0; 65_536];
    connection.stream.read_exact(&mut some).unwrap();
    assert!(some.starts_with(b"HTTP/1.1 200"));
    rig.revoke("t-full");
    // The revocation is a second old: what comes now was on its way.
    let (mut rest, began) = (0, Instant::now());
    while let Ok(bytes @ 1..) = connection.stream.read(&mut some) {
        rest += bytes as u64;
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    assert!(rest < length / 4, "{rest} bytes came after it");
}
