//! A house whose tenants' services stand behind connectors: the consolidated API of a gateway that can be killed.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    client::{Answer, Request},
    gateway::{Gateway, House, Setup, eventually},
    service::{Held, Service},
    world::{self, Dice, World},
};

pub const BASE: &str = "/api/v1/partner";
/// What the upstream's tokens are signed with.
pub const UPSTREAM_SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Rows that the connector asks for at once.
pub const PAGE: usize = 500;
/// Every export here reaches back as far as the rows do.
const CSV: &str = r#"{"format":"csv","from_date":"1990-01-01"}"#;

pub struct Consolidated {
    pub house: House,
    pub service: Service,
    pub tenants: Vec<String>,
    pub world: World,
    pub setup: Setup,
}

impl Consolidated {
    /// The house's own tenant and so many more, linked with everything, with so many invoices each.
    pub fn over(house: House, more: usize, invoices: u64) -> Self {
        let mut tenants: Vec<String> = (0..more).map(|number| format!("e-{number}")).collect();
        for tenant in &tenants {
            house.add_tenant(tenant);
        }
        tenants.push("t-full".to_owned());
        let mut world: World = tenants.iter().map(|tenant| (tenant.clone(), held(tenant, invoices))).collect();
        // Linked by the house too; its role exports nothing.
        world.insert("t-auditor".to_owned(), held("t-auditor", 3));
        let service = Service::start(world.clone());
        let setup = Setup {
            more: configuration(&service),
            environment: vec![("SECRET", UPSTREAM_SECRET.into())],
            ..Setup::default()
        };
        Self { house, service, tenants, world, setup }
    }

    pub fn start(&self) -> Gateway {
        self.house.start(&self.setup)
    }

    /// As the user of partner 1 who holds everything.
    pub fn ask(&self, gateway: &Gateway, request: Request) -> Answer {
        gateway.ask(&request.bearer(&self.house.token1()))
    }

    /// Queues an export of all tenants with invoices; gives its id.
    pub fn queue(&self, gateway: &Gateway) -> String {
        let answer = self.ask(gateway, Request::new("POST", &format!("{BASE}/billing/invoices/export")).json(CSV));
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()["export_id"].as_str().unwrap().to_owned()
    }

    pub fn state(&self, gateway: &Gateway, export: &str) -> Value {
        let answer = self.ask(gateway, Request::get(&format!("{BASE}/billing/exports/{export}")));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    pub fn completed(&self, gateway: &Gateway, export: &str) -> Value {
        let mut state = Value::Null;
        eventually("an export ends", || {
            state = self.state(gateway, export);
            state["status"] != "processing"
        });
        assert_eq!(state["status"], "completed", "{state}\n{}", self.house.log_text());
        state
    }

    /// Downloads the file and holds it against what the services hold.
    pub fn check_file(&self, gateway: &Gateway, export: &str) {
        let state = self.completed(gateway, export);
        let file = self.ask(gateway, Request::get(state["download_url"].as_str().unwrap()));
        assert_eq!(file.status, 200, "{}", file.text());
        assert_eq!(state["file_size_bytes"], file.body.len());
        let found = rows(&file.body);
        let truth: BTreeMap<String, Row> = self
            .tenants
            .iter()
            .flat_map(|tenant| self.world[tenant].invoices.iter().map(|row| of_service(tenant, row)))
            .collect();
        assert_eq!((found.len(), &state["row_count"]), (truth.len(), &truth.len().into()), "rows of export {export}");
        // Sums first: they say more than a long list of differences does.
        assert_eq!(sums(found.iter().map(|(_, row)| row)), sums(truth.values()));
        let once: BTreeMap<String, Row> = found.into_iter().collect();
        assert_eq!(once.len(), truth.len(), "a row stands twice");
        assert!(once == truth, "rows differ");
    }

    /// Questions for invoices that came to the services so far.
    pub fn pages(&self) -> usize {
        self.tenants.iter().map(|tenant| self.service.asked(tenant, "invoices")).sum()
    }

    /// How many of them one export needs.
    pub fn pages_of_one(&self) -> usize {
        self.tenants.iter().map(|tenant| self.world[tenant].invoices.len().div_ceil(PAGE)).sum()
    }
}

/// Tenant; total, paid and balance in cents.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    tenant: String,
    amounts: [i64; 3],
}

fn of_service(tenant: &str, row: &Value) -> (String, Row) {
    let (total, balance) = (world::cents(row, "total_amount"), world::cents(row, "remaining_balance"));
    let id = row["invoice_id"].as_str().unwrap().to_owned();
    (id, Row { tenant: tenant.to_owned(), amounts: [total, total - balance, balance] })
}

/// All rows of a file, in its order: a row that stands twice is there twice.
fn rows(file: &[u8]) -> Vec<(String, Row)> {
    let mut reader = csv::Reader::from_reader(file);
    let names = reader.headers().unwrap().clone();
    let place = |name: &str| names.iter().position(|found| found == name).unwrap();
    let (id, tenant) = (place("invoice_id"), place("tenant_id"));
    let amounts = ["total", "paid_amount", "balance"].map(place);
    let cents = |text: &str| -> i64 {
        let (whole, part) = text.split_once('.').unwrap();
        assert_eq!(part.len(), 2, "{text}");
        format!("{whole}{part}").parse().unwrap()
    };
    let read = |record: csv::StringRecord| {
        let amounts = amounts.map(|at| cents(&record[at]));
        (record[id].to_owned(), Row { tenant: record[tenant].to_owned(), amounts })
    };
    reader.records().map(|record| read(record.unwrap())).collect()
}

/// Total, paid and balance of each tenant.
fn sums<'r>(rows: impl Iterator<Item = &'r Row>) -> BTreeMap<String, [i64; 3]> {
    let mut sums: BTreeMap<String, [i64; 3]> = BTreeMap::new();
    for row in rows {
        let sum = sums.entry(row.tenant.clone()).or_default();
        for (to, amount) in sum.iter_mut().zip(row.amounts) {
            *to += amount;
        }
    }
    sums
}

fn held(tenant: &str, invoices: u64) -> Held {
    let mut dice = Dice::new(tenant);
    let invoices = (0..invoices).map(|number| world::invoice(tenant, number, &mut dice, &["USD"])).collect();
    Held { invoices, ..world::held(tenant, &["USD"]) }
}

fn configuration(service: &Service) -> String {
    format!(
        r#"
[upstreams.isp]
origin = "http://{}"
[upstreams.isp.replacement]
hs256_secret_env = "SECRET"
[connectors.main]
preset = "gen1"
upstream = "isp"
[exports]
concurrency = 1
lease = "2s"
[alerts]
background = false
[portal]
[webhooks]
allow_http = true
allow_private = true
first_retry = "10ms"
"#,
        service.address
    )
}
