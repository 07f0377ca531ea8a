//! Connectors in the configuration: presets, what wins over them, and what is wrong.

use std::path::Path;

use linkgate::{
    config::{self, Config},
    connector::{ResourceKind, presets::PRESETS},
};

const BASE: &str = r#"
[issuers.main]
issuer = "https://login.example"
audiences = ["linkgate"]
algorithms = ["ES256"]
jwks_url = "https://login.example/jwks.json"
[upstreams.isp]
origin = "http://127.0.0.1:1"
credential = "drop"
assertion = "off"
[upstreams.platform]
origin = "http://127.0.0.1:2"
credential = "drop"
assertion = "off"
"#;

fn load(more: &str) -> Result<Config, String> {
    config::load_text(&format!("{BASE}{more}"), Some("x.toml"), Path::new("/base"), [])
        .map_err(|errors| errors.to_string())
}

#[test]
fn a_preset_is_four_lines_and_maps_everything() {
    for (name, _) in PRESETS {
        let config = load(&format!("[connectors.main]\npreset = \"{name}\"\nupstream = \"isp\"\n")).unwrap();
        let kinds: Vec<ResourceKind> = config.connectors[0].resources.iter().map(|resource| resource.kind).collect();
        assert_eq!(kinds, ResourceKind::ALL, "{name}");
    }
}

#[test]
fn what_stands_beside_a_preset_wins() {
    let config = load(
        r#"
[connectors.main]
preset = "gen1"
upstream = "isp"
without = ["uptime"]
tenant = { upstream = "platform" }
[connectors.main.invoices]
page_size = 50
failed_when = []
[connectors.main.invoices.fields]
customer_name = "/customer/name"
tax = ""
"#,
    )
    .unwrap();
    let of = |kind| config.connectors[0].resources.iter().find(move |resource| resource.kind == kind);
    assert_eq!(of(ResourceKind::Tenant).unwrap().upstream, "platform");
    let invoices = of(ResourceKind::Invoices).unwrap();
    assert_eq!((invoices.upstream.as_str(), invoices.page_size, invoices.failed_when.len()), ("isp", 50, 0));
    let pointer = |name: &str| {
        let at = ResourceKind::Invoices.fields().iter().position(|spec| spec.name == name).unwrap();
        invoices.fields[at].as_ref().map(|field| field.pointer.to_string())
    };
    assert_eq!(pointer("customer_name").as_deref(), Some("/customer/name"));
    assert_eq!(pointer("total").as_deref(), Some("/total_amount"));
    assert_eq!(pointer("tax"), None, "empty text takes the preset's word back");
    assert!(of(ResourceKind::Uptime).is_none());
}

#[test]
fn every_mistake_is_told_with_its_line() {
    let wrong = r#"
[connectors.main]
preset = "gen1"
upstream = "ips"
tenants = ["", "t1"]
tenant_header = "X Tenant"
max_answer = "10B"
[connectors.main.invoices]
page_sise = 10
[connectors.main.invoices.fields]
totl = "/x"
total = "x"
status = { pointer = "/status", words = { open = "finalised" } }
due_date = { pointer = "/due", minus = "/x", unit = "minor" }
[connectors.main.tickets]
path = "/tickets?x=1"
query = { a = "{nothing}", b = "x{status}", page = "{page}", offset = "{offset}" }
[connectors.main.create_ticket.body]
tenant_id = "{tenant_id}"
[connectors.main.ticket]
path = "/tickets/"
fields_of = "invoices"
[[connectors.main.usage.failed_when]]
zero = ["/total_bandwidth_bytes"]
[connectors.main.credential]
kind = "none"
secret_env = "NO_SUCH_VARIABLE"

[connectors.other]
[connectors.third]
upstream = "isp"
tenants = ["t1"]
[connectors.third.metrics]
path = "/figures"
[connectors.fourth]
upstream = "isp"
tenants = ["t1"]
metrics = { path = "/figures" }
uptime = { path = "/days/{id}", fields = { date = "/d" } }
"#;
    insta::assert_snapshot!(load(wrong).unwrap_err());
}

#[test]
fn one_kind_of_data_comes_one_way() {
    let two = "[connectors.a]\npreset = \"gen1\"\nupstream = \"isp\"\n[connectors.b]\npreset = \"gen2\"\nupstream = \"isp\"\n";
    let told = load(two).unwrap_err();
    assert!(told.contains("connectors.b: `tenant` comes through `a` too: name the `tenants` of one of them"), "{told}");
    assert!(load(&format!("{two}tenants = [\"t1\"]\n")).is_ok());
}
