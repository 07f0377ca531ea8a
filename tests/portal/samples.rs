//! Both generations of the sample services behind one gateway: old and new tenants, dollars, euros and yen, in one answer.

use std::{collections::BTreeMap, str::FromStr};

use linkgate::sample::{self, Handle, Kind, Misbehave, Truth};
use rust_decimal::Decimal;
use serde_json::Value;
use tokio::net::TcpListener;

use super::{
    client::Request,
    rig::{BASE, P1, Rig, status_of},
    service::Service,
    world::{World, days_ago, invoice_status, today},
};

const OLD: [&str; 4] = ["g1-a", "g1-b", "g1-empty", "g1-tokyo"];
const NEW: [&str; 3] = ["g2-a", "g2-b", "g2-tokyo"];
const WIDE: &str = "from_date=2015-01-01";

pub struct Samples {
    pub rig: Rig,
    isp: Handle,
    gen2: Handle,
    _platform: Handle,
    _runtime: tokio::runtime::Runtime,
}

impl Samples {
    pub fn start(portal: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let start = |kind| {
            let listening = async { sample::start(kind, TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap() };
            runtime.block_on(listening)
        };
        let (isp, platform, gen2) = (start(Kind::Isp), start(Kind::Platform), start(Kind::Gen2));
        let new = NEW.map(|tenant| format!("\"{tenant}\"")).join(", ");
        let connectors = format!(
            r#"
[upstreams.isp]
origin = "{}"
assertion = "off"
[upstreams.isp.replacement]
hs256_secret_env = "SECRET"
[upstreams.platform]
origin = "{}"
credential = "drop"
assertion = "off"
[upstreams.gen2]
origin = "{}"
assertion = "off"
[upstreams.gen2.replacement]
hs256_secret_env = "SECRET"
[connectors.old]
preset = "gen1"
upstream = "isp"
tenant = {{ upstream = "platform" }}
[connectors.new]
preset = "gen2"
upstream = "gen2"
tenants = [{new}]
"#,
            isp.origin(),
            platform.origin(),
            gen2.origin()
        );
        let links = OLD.iter().chain(&NEW).map(|tenant| (P1, (*tenant).to_owned(), "msp_full")).collect();
        let rig = Rig::over(Service::start(World::new()), World::new(), links, &connectors, portal);
        Self { rig, isp, gen2, _platform: platform, _runtime: runtime }
    }

    /// The older generation answers well for this tenant, and so much later.
    pub fn slow(&self, tenant: &str, by: std::time::Duration) {
        self.isp.misbehave(tenant, Misbehave::Slow(by));
    }

    pub fn truth(&self, tenant: &str) -> Truth {
        if tenant.starts_with("g2-") { self.gen2.truth(tenant) } else { self.isp.truth(tenant) }
    }

    fn each(&self) -> impl Iterator<Item = (&'static str, Truth)> {
        OLD.into_iter().chain(NEW).map(|tenant| (tenant, self.truth(tenant)))
    }
}

fn digits(currency: &str) -> u32 {
    if currency == "JPY" { 0 } else { 2 }
}

fn amount(row: &Value, field: &str) -> Decimal {
    Decimal::new(row[field].as_i64().unwrap(), digits(row["currency"].as_str().unwrap()))
}

/// The number as it stands in the body, exactly.
fn exact(value: &Value) -> Decimal {
    Decimal::from_str(&value.to_string()).unwrap()
}

#[test]
fn invoices_of_both_generations_stand_in_one_list() {
    let samples = Samples::start("");
    let mut rows = BTreeMap::new();
    for (tenant, truth) in samples.each() {
        rows.extend(
            truth.invoices.into_iter().map(|row| (row["invoice_id"].as_str().unwrap().to_owned(), (tenant, row))),
        );
    }
    let mut seen = 0;
    loop {
        let page = samples.rig.get(&format!("/billing/invoices?{WIDE}&limit=100&offset={seen}"));
        assert_eq!(
            (&page["total"], &page["total_exact"], &page["partial"]),
            (&rows.len().into(), &true.into(), &false.into())
        );
        assert!(page["aggregates"]["total_amount"].is_null(), "three currencies");
        for item in page["items"].as_array().unwrap() {
            let (tenant, row) = &rows[item["invoice_id"].as_str().unwrap()];
            assert_eq!((&item["tenant_id"], &item["currency"]), (&Value::from(*tenant), &row["currency"]));
            assert_eq!(exact(&item["total"]), amount(row, "total_amount"));
            assert_eq!(exact(&item["balance"]), amount(row, "remaining_balance"));
            assert_eq!(exact(&item["paid_amount"]), amount(row, "total_amount") - amount(row, "remaining_balance"));
            assert_eq!(item["status"], invoice_status(row));
            seen += 1;
        }
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(seen, rows.len());

    for currency in ["USD", "EUR", "JPY"] {
        let mine: Vec<&Value> = rows.values().map(|(_, row)| row).filter(|row| row["currency"] == currency).collect();
        let sum = |keep: fn(&&&Value) -> bool, field: &str| {
            mine.iter().filter(keep).map(|row| amount(row, field)).sum::<Decimal>()
        };
        let answer = samples.rig.get(&format!("/billing/summary?{WIDE}&currency={currency}"));
        let summary = &answer["summary"];
        let owed = |row: &&&Value| ["finalized", "overdue"].contains(&invoice_status(row));
        assert_eq!(exact(&summary["total_outstanding"]), sum(owed, "remaining_balance"), "{currency}");
        assert_eq!(exact(&summary["total_overdue"]), sum(|row| invoice_status(row) == "overdue", "remaining_balance"));
        assert_eq!(
            exact(&summary["total_revenue"]),
            sum(|row| row["paid_at"].is_string(), "total_amount"),
            "{currency}"
        );
        assert_eq!(summary["invoice_count"], mine.len());
        assert_eq!(summary["managed_tenant_count"], 7);
    }
}

#[test]
fn customers_and_tickets_are_what_both_generations_hold() {
    let samples = Samples::start("");
    let customers = samples.rig.get("/customers");
    assert_eq!((&customers["total"], &customers["partial"]), (&7.into(), &false.into()), "{}", customers["sources"]);
    let status = |row: &Value, wanted: &[&str]| wanted.contains(&row["status"].as_str().unwrap());
    for item in customers["items"].as_array().unwrap() {
        let tenant = item["tenant_id"].as_str().unwrap();
        let truth = samples.truth(tenant);
        let open = truth.tickets.iter().filter(|row| status(row, &["open", "in_progress"])).count();
        assert_eq!(item["metrics"]["open_tickets"], open, "{tenant}");
        assert_eq!(item["metrics"]["total_subscribers"], truth.subscribers.len(), "{tenant}");
        assert_eq!((&item["name"], &item["plan_type"]), (&truth.tenant["name"], &truth.tenant["plan_type"]));
        if tenant.ends_with("tokyo") {
            assert_eq!(exact(&item["metrics"]["outstanding_balance"]).fract(), Decimal::ZERO, "yen have no parts");
        }
    }
    let tickets = samples.rig.get("/support/tickets");
    let all: Vec<Value> = samples.each().flat_map(|(_, truth)| truth.tickets).collect();
    assert_eq!(tickets["total"], all.len());
    assert_eq!(tickets["aggregates"]["pending_count"], all.iter().filter(|row| status(row, &["waiting"])).count());
    assert_eq!(tickets["aggregates"]["sla_breach_count"], all.iter().filter(|row| row["sla_breached"] == true).count());
}

#[test]
fn reports_cover_both_generations() {
    let samples = Samples::start("");
    let (from, to) = (days_ago(29).to_string(), today().tomorrow().unwrap().to_string());
    let handle = |tenant: &str| if tenant.starts_with("g2-") { &samples.gen2 } else { &samples.isp };
    let usage = samples.rig.get("/reports/usage?group_by=tenant");
    let bytes: u64 = samples
        .each()
        .map(|(tenant, _)| handle(tenant).truth_usage(tenant, &from, &to)["total_bandwidth_bytes"].as_u64().unwrap())
        .sum();
    let gigabytes = usage["summary"]["total_data_gb"].as_f64().unwrap();
    assert!((gigabytes - bytes as f64 / f64::from(1 << 30)).abs() <= 0.006, "{gigabytes}");
    assert_eq!(usage["partial"], false, "{}", usage["sources"]);

    let sla = samples.rig.get("/reports/sla");
    assert_eq!(sla["partial"], false, "{}", sla["sources"]);
    assert_eq!(sla["summary"]["tenant_count"], 7);
    for tenant in sla["by_tenant"].as_array().unwrap() {
        let id = tenant["tenant_id"].as_str().unwrap();
        let days = handle(id).truth_uptime(id, &from, &to);
        let sum: f64 = days.iter().map(|day| day["compliance_percentage"].as_f64().unwrap()).sum();
        let found = tenant["uptime_percentage"].as_f64().unwrap();
        assert!((found - sum / days.len() as f64).abs() <= 0.0051, "{id}: {found}");
        let downtime: f64 = days.iter().map(|day| day["downtime_minutes"].as_f64().unwrap()).sum();
        assert_eq!(tenant["downtime_minutes"].as_f64().unwrap(), downtime, "{id}");
    }
}

#[test]
fn what_the_samples_do_wrong_is_told_and_nothing_is_invented() {
    let samples = Samples::start("source_timeout = \"2s\"\nbreaker_failures = 0");
    let others: usize =
        samples.each().filter(|(tenant, _)| *tenant != "g2-a").map(|(_, truth)| truth.invoices.len()).sum();
    for how in [
        Misbehave::Fail,
        Misbehave::Garbage,
        Misbehave::Html,
        Misbehave::Huge(64 * 1024 * 1024),
        Misbehave::Close,
        Misbehave::Zeros,
        Misbehave::Redirect,
        Misbehave::ForeignRows,
        Misbehave::Slow(std::time::Duration::from_secs(10)),
    ] {
        samples.gen2.misbehave("g2-a", how);
        let path = format!("{BASE}/billing/invoices?{WIDE}");
        let answer = samples.rig.ask(Request::get(&path).header("Cache-Control", "no-cache")).json();
        let expected = if matches!(how, Misbehave::Slow(_)) { "timeout" } else { "error" };
        assert_eq!(status_of(&answer, "g2-a"), expected, "{how:?}: {}", answer["sources"]);
        assert_eq!((&answer["total"], &answer["partial"]), (&others.into(), &true.into()), "{how:?}");
    }
}

#[test]
fn a_source_that_holds_more_than_is_read_is_truncated() {
    let samples = Samples::start("max_rows_per_source = 700");
    samples.isp.set_invoices_per_tenant(701);
    let answer = samples.rig.get(&format!("/billing/invoices?{WIDE}&tenant_ids=g1-a,g2-a&limit=100"));
    assert_eq!((status_of(&answer, "g1-a"), status_of(&answer, "g2-a")), ("truncated".into(), "ok".into()));
    assert_eq!((&answer["total_exact"], &answer["partial"]), (&false.into(), &true.into()));
    assert!(answer["sources"][0]["error"].as_str().unwrap().contains("more rows"));
    assert_eq!(answer["total"], 700 + samples.truth("g2-a").invoices.len());
}
