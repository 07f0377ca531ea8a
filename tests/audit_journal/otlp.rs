//! Shipping to a collector: every line gets there once it has said so, and nothing is taken for granted.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use http::{HeaderMap, HeaderValue};
use linkgate::{
    audit::{
        AuditSettings, Journal,
        line::Line,
        reader::{segment_path, segments},
        ship::{Form, OtlpSettings, ShipError, Shipper, TargetSettings},
    },
    collector::settings::CollectorSettings,
    tls::settings::{CertificateFiles, ClientSettings},
};

use crate::{
    log_collector::{Collector, Mood, attribute},
    support::*,
    tls_support::{Authority, mutual_server},
};

fn shipper(journal: &Journal, collector: &Collector, form: Form) -> Shipper {
    secure_shipper(journal, &collector.url(), ClientSettings::default(), form)
}

fn secure_shipper(journal: &Journal, url: &str, tls: ClientSettings, form: Form) -> Shipper {
    let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, HeaderValue::from_static("Bearer of-mine"))]);
    let endpoint = url.parse().unwrap();
    let collector = CollectorSettings { endpoint, headers, timeout: Duration::from_millis(300) };
    let settings = OtlpSettings { collector, tls };
    Shipper::new(journal.clone(), TargetSettings::Otlp(Box::new(settings)), form)
}

fn journal_lines(dir: &Path) -> Vec<String> {
    segments(dir).unwrap().into_iter().flat_map(|number| lines(&segment_path(dir, number))).collect()
}

#[tokio::test]
async fn every_line_is_with_the_collector_in_order_and_says_what_it_is() {
    let (dir, collector) = (folder(), Collector::start());
    for _ in 0..2 {
        let journal = Journal::open(AuditSettings { segment_bytes: 16_000, ..settings(dir.path()) }).unwrap().0;
        let mut shipper = shipper(&journal, &collector, Form::Full);
        // Of more than one post.
        write(&journal, 2000).await;
        journal.settle().await.unwrap();
        assert!(shipper.catch_up().await.unwrap() >= 4000);
        while shipper.progress().lag(&journal) > 0 {
            shipper.catch_up().await.unwrap();
        }
        assert_eq!(collector.resource("linkgate.audit.chain_id"), journal.chain_id().to_string());
        journal.close();
    }
    let written = journal_lines(dir.path());
    // What a close had to say is shipped at the next start.
    let told = collector.lines();
    assert_eq!(told, written[..told.len()]);
    assert!(written.len() - told.len() < 3, "{} of {}", told.len(), written.len());
    let heads = collector.heads();
    assert!(heads.len() > 2, "{}", heads.len());
    for said in ["post /v1/logs ", "authorization: bearer of-mine\r\n", "content-type: application/x-protobuf\r\n"] {
        assert!(heads.iter().all(|head| head.contains(said)), "{said}: {}", heads[0]);
    }
    assert_eq!(collector.resource("service.name"), "linkgate");
    for (record, written) in collector.records().iter().zip(&written) {
        let line = Line::parse(written.as_bytes()).unwrap();
        assert_eq!(attribute(&record.attributes, "linkgate.audit.seq"), line.seq.to_string());
        assert_eq!(attribute(&record.attributes, "linkgate.audit.hash"), line.hash.to_string());
        assert_eq!(record.event_name, format!("linkgate.audit.{}", line.line_type.as_str()));
        assert!(record.observed_time_unix_nano >= record.time_unix_nano);
        assert_eq!(record.time_unix_nano > 0, line.visible.contains("\"time\":"), "{written}");
    }
}

#[tokio::test]
async fn what_the_collector_does_not_take_waits_for_it() {
    let (dir, collector) = (folder(), Collector::start());
    let journal = open(dir.path());
    write(&journal, 5).await;
    journal.settle().await.unwrap();
    let position = dir.path().join("ship-otlp.json");
    for (mood, said) in [
        (Mood::Away, "broke off"),
        (Mood::Status(503), "503"),
        (Mood::Status(307), "307"),
        (Mood::Part(1), "refused 1 of the lines for good, and none may be left out: too long"),
        (Mood::Silent, "does not answer within"),
    ] {
        collector.feel(mood);
        let mut shipper = shipper(&journal, &collector, Form::Full);
        let refused = shipper.catch_up().await.unwrap_err();
        assert!(
            matches!(&refused, ShipError::Target(error) if error.to_string().contains(said)),
            "{mood:?}: {refused}"
        );
        assert_eq!(shipper.progress().lag(&journal), journal.status().last_seq, "{mood:?}");
        assert!(!position.exists(), "{mood:?}");
    }
    collector.feel(Mood::Well);
    shipper(&journal, &collector, Form::Full).catch_up().await.unwrap();
    assert_eq!(collector.lines(), journal_lines(dir.path()));
    let before = fs::read(&position).unwrap();
    write(&journal, 5).await;
    collector.feel(Mood::Status(500));
    let mut later = shipper(&journal, &collector, Form::Full);
    assert!(later.catch_up().await.is_err());
    assert_eq!(fs::read(&position).unwrap(), before, "it moves with the answer");
    collector.feel(Mood::Well);
    later.catch_up().await.unwrap();
    assert_eq!(collector.lines(), journal_lines(dir.path()));
}

#[tokio::test]
async fn a_public_line_tells_a_collector_nothing_private() {
    let (dir, collector) = (folder(), Collector::start());
    let journal = open(dir.path());
    write(&journal, 3).await;
    shipper(&journal, &collector, Form::Public).catch_up().await.unwrap();
    let told = collector.lines();
    assert!(journal_lines(dir.path()).iter().any(|line| line.contains("a-session")));
    assert!(!told.is_empty() && told.iter().all(|line| !line.contains("a-session") && line.contains("priv_digest")));
    let seqs: BTreeSet<_> =
        collector.records().iter().map(|record| attribute(&record.attributes, "linkgate.audit.seq")).collect();
    assert_eq!(seqs.len(), told.len());
}

#[tokio::test]
async fn a_collector_behind_roots_of_ones_own_is_believed_by_them_only_and_shown_a_certificate() {
    let (dir, files) = (folder(), folder());
    let authority = Authority::new("collectors");
    let collector = Collector::secure(mutual_server(&authority, "collector.example"));
    let journal = open(dir.path());
    write(&journal, 5).await;
    journal.settle().await.unwrap();
    let url = format!("https://{}/v1/logs", collector.address);
    authority.leaf(&[], |_| {}).put(files.path(), "gateway");
    // As it was before the collector's certificate was changed.
    let ca = Authority::new("former").put(files.path(), "ca.pem");
    let pair = CertificateFiles { chain: files.path().join("gateway.pem"), key: files.path().join("gateway.key") };
    let right = ClientSettings {
        ca: vec![ca],
        certificate: Some(pair),
        server_name: Some("collector.example".to_owned()),
        ..ClientSettings::default()
    };
    let mut waiting = secure_shipper(&journal, &url, right.clone(), Form::Full);
    let refused = waiting.catch_up().await.unwrap_err();
    assert!(refused.to_string().contains("certificate"), "{refused}");

    // The file is read again: nobody has to start anything.
    authority.put(files.path(), "ca.pem");
    waiting.catch_up().await.unwrap();
    assert_eq!(collector.lines(), journal_lines(dir.path()));

    write(&journal, 1).await;
    journal.settle().await.unwrap();
    for (wrong, said) in [
        (ClientSettings { ca: Vec::new(), ..right.clone() }, "certificate"),
        (ClientSettings { server_name: None, ..right.clone() }, "certificate"),
        (ClientSettings { certificate: None, ..right.clone() }, "cannot be reached or broke off"),
        (ClientSettings { ca: vec![files.path().join("none.pem")], ..right.clone() }, "none.pem"),
    ] {
        let refused = secure_shipper(&journal, &url, wrong.clone(), Form::Full).catch_up().await.unwrap_err();
        assert!(refused.to_string().contains(said), "{wrong:?}: {refused}");
    }
    secure_shipper(&journal, &url, right, Form::Full).catch_up().await.unwrap();
    assert_eq!(collector.lines(), journal_lines(dir.path()));
}
