//! What a person reads when the configuration is wrong: all of it at once, each with line, field and what to do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

use std::path::Path;

use linkgate::{
    config,
    identity::{
        mint::{DevAlgorithm, DevKey},
        settings::KeySource,
    },
};

const GOOD: &str = r#"
[issuers.main]
issuer = "https://login.example"
audiences = ["linkgate"]
algorithms = ["ES256"]
jwks_url = "https://login.example/jwks.json"

[upstreams.isp]
origin = "http://127.0.0.1:8000"
credential = "drop"
assertion = "off"

[[routes]]
methods = ["GET"]
path = "/invoices"
permission = "partner.billing.invoices.read"
upstream = "isp"
"#;

fn errors(text: &str) -> String {
    errors_with(text, &[])
}

fn errors_with(text: &str, env: &[(&str, &str)]) -> String {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    match config::load_text(text, Some("linkgate.toml"), Path::new("/nowhere"), env) {
        Ok(_) => "valid".to_owned(),
        Err(errors) => errors.to_string(),
    }
}

/// One change of the good file; what is said about it.
fn changed(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    errors(&GOOD.replace(from, to))
}

#[test]
fn the_good_one_is_good() {
    assert_eq!(errors(GOOD), "valid");
}

#[test]
fn an_empty_file_says_what_is_needed() {
    insta::assert_snapshot!(errors(""));
}

#[test]
fn structure_and_meaning_are_told_in_one_run() {
    insta::assert_snapshot!(errors(
        r#"
[listen]
adress = "0.0.0.0:80"
workers = "four"
max_connections = 0
header_timeout = "5 seconds"
max_uri_size = "1GiB"
trusted_proxies = ["10.0.0.0/8", "nowhere"]
public_scheme = "htpps"
max_concurrent_streams = 99999999999

[health]
enabled = 1

[databse]
sqlite = "x.db"

[links]
max_staleness = "1s"
heartbeat = "900ms"

[issuers.main]
issuer = "https://login.example"
audiences = []
algorithms = ["HS256"]
jwks_url = "http://login.example/jwks.json"
leeway = "2m"
trusts = ["role"]

[issuers.Old]
legacy = true
jwks_file = "missing.json"
algorithms = ["ES265"]

[issuers.older]
legacy = true
issuer = "x"

[signing]
keys = [{ kid = "a", file = "missing.pem" }, { kid = "a", file = "missing.pem" }]

[upstreams.isp]
origin = "http://isp:8000/api"
credential = "pass"
tenants = { "t1" = "t1:8000" }

[upstreams.other]
assertion = "request"
assertion_hmac_env = "NOT_SET"
replacement = { role_names = { msp_ful = ["x"] }, permission_names = { "partner.billing.invoice.read" = [] } }

[limits]
tenant = "500 per minute"
home = 7
partners = { "acme" = "1/s" }

[headers]
strip = ["X Bad", "Host"]

[log]
filter = "info,linkgate=noisy"
format = "yaml"

[[routes]]
methods = ["get"]
path = "/a"
permission = "partner.billing.invoices.raed"
upstream = "ips"

[[routes]]
methods = ["GET"]
path = "/b/{x}"
access = "home"
upstream = "isp"
refuse_body_fields = ["tenant_id"]

[[routes]]
methods = ["GET", "POST"]
path = "/b/{y}"
access = "denny"
upstream = "isp"

[[routes]]
methods = ["*"]
path = "/.well-known/linkgate/x"
access = "deny"
upstream = "isp"

[[routes]]
methods = ["GET"]
path = "/c//d"
permision = "partner.billing.read"
upstream = "isp"
max_body = "10 megabytes"

[[routes]]
path = "/e"
permission = "partner.billing.*"
access = "home"
"#
    ));
}

#[test]
fn syntax_errors_are_told_with_their_lines() {
    insta::assert_snapshot!(errors("[listen]\naddress = \nworkers = 1\nworkers = 2\n\n[health\nenabled = true\n"));
}

#[test]
fn a_missing_file_is_named() {
    let found = config::load(Some(Path::new("/nowhere/linkgate.toml")), []).unwrap_err().to_string();
    assert!(found.starts_with("/nowhere/linkgate.toml: the configuration file cannot be read: "), "{found}");
}

#[test]
fn a_mistyped_section_is_one_error_and_not_one_for_each_rule() {
    assert_eq!(
        changed("[upstreams.isp]", "[upstream.isp]"),
        "linkgate.toml:8: upstream: unknown key; did you mean `upstreams`?"
    );
}

#[test]
fn each_rule_of_issuers() {
    let issuer = "issuer = \"https://login.example\"\n";
    let url = "jwks_url = \"https://login.example/jwks.json\"\n";
    let cases = [
        changed(issuer, ""),
        changed(issuer, "legacy = true\nissuer = \"x\"\n"),
        changed(url, ""),
        changed(url, &format!("{url}jwks_file = \"x\"\n")),
        changed("[\"ES256\"]", "[\"ES256\", \"HS256\"]"),
        changed("algorithms = [\"ES256\"]\n", ""),
        changed(url, "jwks_url = \"https://user:hunter2@login.example/jwks.json\"\n"),
        changed(url, &format!("{url}leeway = \"61s\"\n")),
        changed(url, &format!("{url}jwks_refresh = \"2h\"\njwks_max_age = \"1h\"\n")),
        changed(url, &format!("{url}home_tenants = [\"\"]\n")),
        changed(url, &format!("{url}claims = {{ roles = \"\" }}\n")),
        changed(
            url,
            &format!(
                "{url}[issuers.again]\nissuer = \"https://login.example\"\naudiences = [\"a\"]\nalgorithms = [\"ES256\"]\njwks_url = \"http://[::1]/x\"\n"
            ),
        ),
        changed("[issuers.main]", "[issuers.\"main issuer\"]"),
    ];
    insta::assert_snapshot!(cases.join("\n---\n"));
}

#[test]
fn each_rule_of_upstreams() {
    let credential = "credential = \"drop\"\n";
    let assertion = "assertion = \"off\"\n";
    let with_secret = |from: &str, to: &str| {
        assert!(GOOD.contains(from), "{from}");
        errors_with(&GOOD.replace(from, to), &[("S", "0123456789abcdef0123456789abcdef")])
    };
    let cases = [
        changed(credential, ""),
        changed(credential, "credential = \"pass\"\n"),
        changed(credential, "credential = \"pass\"\ntakes_tenant_from_header = true\n"),
        changed(assertion, ""),
        changed(assertion, "assertion = \"request\"\n"),
        // A secret of the upstream's own signs, and yet there is no gateway to name in what it signs.
        with_secret(credential, "replacement = { issuer = \"x\", hs256_secret_env = \"S\" }\n"),
        with_secret(assertion, "assertion = \"request\"\nassertion_hmac_env = \"S\"\n"),
        changed(assertion, "assertion = \"off\"\nassertion_hmac_env = \"PATH_TO_NOTHING\"\n"),
        changed("origin = \"http://127.0.0.1:8000\"\n", ""),
        changed("[upstreams.isp]", "[upstreams.ISP]"),
        changed(assertion, "assertion = \"off\"\naudience = \"\"\nmax_in_flight = 0\ntenant_max_in_flight = 0\n"),
    ];
    insta::assert_snapshot!(cases.join("\n---\n"));
}

#[test]
fn each_rule_of_endpoints() {
    let origin = "origin = \"http://127.0.0.1:8000\"\n";
    let with = |lines: &str| changed(origin, &format!("{origin}{lines}\n"));
    let cases = [
        changed(origin, "endpoints = [\"http://a:1\", \"http://b\", \"http://[::1]:1\"]\n"),
        changed(origin, "endpoints = [\"http://a\", \"http://A:80\", \"https://a:80\", \"a:1\", \"http://b/path\"]\n"),
        with("endpoints = [\"http://b:1\"]"),
        with("dns_refresh = \"10ms\"\nqueue_timeout = \"0s\""),
        with("outlier_detection = { max_ejection_percent = 101, panic_threshold = 200 }"),
        with("outlier_detection = { base_ejection_time = \"1m\", max_ejection_time = \"30s\" }"),
        with("retry_budget = { ratio_percent = 101, min_per_secnd = 1 }"),
        with("health_check = {  }"),
        with("health_check = { path = \"healthz\", interval = \"1s\", timeout = \"2s\" }"),
        with(
            "health_check = { path = \"/healthz?x=1\", healthy_threshold = 0, unhealthy_threshold = 0, expected_statuses = [100, 200, 600] }",
        ),
        with("health_check = { path = \"/healthz\", expected_statuses = [] }"),
    ];
    insta::assert_snapshot!(cases.join("\n---\n"));
}

#[test]
fn each_rule_of_routes() {
    let upstream = "permission = \"partner.billing.invoices.read\"\nupstream = \"isp\"\n";
    let cases = [
        changed(upstream, ""),
        changed(upstream, "access = \"deny\"\n"),
        changed(upstream, "access = \"public\"\n"),
        changed(upstream, "access = \"deny\"\nupstream = \"isp\"\n"),
        changed(upstream, "permission = \"billing.read\"\nupstream = \"isp\"\n"),
        changed("\"/invoices\"", "\"/.well-known/linkgate\""),
        changed("\"/invoices\"", "\"invoices\""),
        changed("methods = [\"GET\"]", "methods = []"),
        changed("methods = [\"GET\"]", "methods = \"GET\""),
        changed(upstream, &format!("{upstream}refuse_body_fields = [\"/a~2\"]\n")),
    ];
    insta::assert_snapshot!(cases.join("\n---\n"));
}

#[test]
fn each_rule_of_consolidated_reads() {
    let with = |lines: &str| changed("[upstreams.isp]", &format!("[portal]\n{lines}\n[upstreams.isp]"));
    let cases = [
        with("deadline = \"1s\"\nsource_timeout = \"2s\""),
        with("deadline = \"3m\""),
        with("concurrency = 0\nconcurrency_per_upstream = 70000\nconcurrency_total = 1"),
        with("hedge_percent = 21\nbreaker_pause = \"1ms\""),
        with("slice_fresh = \"2m\""),
        with("max_slice_age = \"1h\""),
        with("slice_cache = \"1kB\""),
        with("compatibility_base_paths = [\"/api/v1/partner\", \"/old/\", \"/{x}\"]"),
    ];
    insta::assert_snapshot!(cases.join("\n---\n"));
}

#[test]
fn each_rule_of_decisions() {
    let secrets = [
        ("EDGE", "0123456789abcdef0123456789abcdef"),
        ("OTHER", "fedcba9876543210fedcba9876543210"),
        ("SHORT", "0123456789"),
        ("SPACED", "0123456789abcdef 0123456789abcdef"),
    ];
    let said = |text: &str| errors_with(&format!("{GOOD}\n{text}"), &secrets);
    let address = "[decision]\naddress = \"127.0.0.1:8082\"\n";
    let caller = |name: &str, secret: &str| format!("[decision.callers.{name}]\nsecret_env = \"{secret}\"\n");
    assert_eq!(said(&format!("{address}{}{}", caller("edge", "EDGE"), caller("other", "OTHER"))), "valid");
    insta::assert_snapshot!(
        [
            // Loopback is no authentication.
            said(address),
            said(&caller("edge", "EDGE")),
            said(&format!("{address}[decision.callers.edge]\n")),
            said(&format!("{address}{}{}", caller("edge", "EDGE"), caller("other", "EDGE"))),
            said(&format!("{address}{}", caller("edge", "SHORT"))),
            said(&format!("{address}{}", caller("\"edge one\"", "EDGE"))),
            said(&format!("{address}{}", caller("edge", "SPACED"))),
            said(&format!("{address}[decision.callers.edge]\nsecret = \"0123456789abcdef0123456789abcdef\"\n")),
            said(&format!("[decision]\naddress = \"127.0.0.1:8080\"\n{}", caller("edge", "EDGE"))),
            said(&format!("[decision]\naddress = \"127.0.0.1:8081\"\n{}", caller("edge", "EDGE"))),
            said(&format!("{address}public_url = \"pdp\"\n{}", caller("edge", "EDGE"))),
        ]
        .join("\n")
    );
}

#[test]
fn each_rule_of_traces() {
    let secrets = [("KEY", "collector-key"), ("BROKEN", "two\nlines"), ("EMPTY", "")];
    let said = |text: &str| errors_with(&format!("{GOOD}\n[tracing]\n{text}"), &secrets);
    let at = "endpoint = \"http://127.0.0.1:4318/v1/traces\"\n";
    let header = |name: &str, value: &str| format!("{at}[tracing.headers.{name}]\n{value}\n");
    for good in
        ["", at, &header("x-key", "value_env = \"KEY\""), "endpoint = \"https://[::1]:4318/v1/traces?tenant=a\""]
    {
        assert_eq!(said(good), "valid", "{good}");
    }
    let told = [
        said("endpont = \"http://127.0.0.1:4318/v1/traces\""),
        said("endpoint = \"\""),
        said("endpoint = \"127.0.0.1:4318\""),
        said("endpoint = \"http://127.0.0.1:4318\""),
        said("endpoint = \"grpc://127.0.0.1:4317/v1/traces\""),
        said("endpoint = \"http://user:hunter2@127.0.0.1:4318/v1/traces\""),
        said(&format!("{at}sample_ratio = 1.1")),
        said(&format!("{at}sample_ratio = -0.1")),
        said(&format!("{at}sample_ratio = nan")),
        said(&format!("{at}sample_ratio = inf")),
        said(&format!("{at}sample_ratio = \"all\"")),
        // What is wrong is told where nothing is switched on too.
        said("sample_ratio = 2.0\nqueue = 0\ntimeout = \"0s\""),
        said(&format!("{at}queue = 1000001")),
        said(&format!("{at}timeout = \"61s\"")),
        said(&format!("{at}[tracing.tls]\nserver_name = \"collector.example\"\n")),
        said("endpoint = \"https://127.0.0.1:4318/v1/traces\"\n[tracing.tls]\nca = [\"missing.pem\"]\n"),
        said(&format!("{at}timeout = \"soon\"")),
        said(&header("x-key", "")),
        said(&header("x-key", "value = \"in-the-file\"")),
        said(&header("x-key", "value_env = \"KEY\"\nvalue_file = \"key\"")),
        said(&header("x-key", "value_env = \"NOT_SET\"")),
        said(&header("x-key", "value_env = \"EMPTY\"")),
        said(&header("x-key", "value_env = \"BROKEN\"")),
        said(&header("x-key", "value_file = \"missing\"")),
        said(&header("\"x key\"", "value_env = \"KEY\"")),
        said(&header("content-type", "value_env = \"KEY\"")),
        said(&format!("{}[tracing.headers.X-Key]\nvalue_env = \"KEY\"", header("x-key", "value_env = \"KEY\""))),
    ]
    .join("\n");
    // Neither a key nor a password is ever shown.
    assert!(!told.contains("collector-key") && !told.contains("hunter2") && !told.contains("in-the-file"), "{told}");
    insta::assert_snapshot!(told);
}

#[test]
fn a_development_key_alone_is_the_key_set() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("dev.pem"), "x").unwrap();
    let keys = "jwks_url = \"https://login.example/jwks.json\"";
    assert!(GOOD.contains(keys), "{GOOD}");
    let load = |keys_instead: &str| {
        config::load_text(&GOOD.replace(keys, keys_instead), Some("linkgate.toml"), dir.path(), [])
    };
    let config = load("development_key = \"dev.pem\"").unwrap();
    let KeySource::DevelopmentKey(path) = &config.identity.issuers[0].keys else { panic!("{config:?}") };
    assert_eq!(path, &dir.path().join("dev.pem"));
    // Named keys go before.
    let config = load(&format!("{keys}\ndevelopment_key = \"dev.pem\"")).unwrap();
    assert!(matches!(config.identity.issuers[0].keys, KeySource::JwksUrl { .. }));
    let found = load("development_key = \"other.pem\"").unwrap_err().to_string();
    assert!(found.contains("issuers.main.development_key: ") && found.contains("there is no such file"), "{found}");
}

#[test]
fn each_rule_of_shipping_and_retention() {
    let env = [("KEY", "Bearer 0123456789abcdef"), ("BROKEN", "a\nb")];
    let said = |text: &str| errors_with(&format!("{GOOD}\n{text}"), &env);
    let otlp = |text: &str| said(&format!("[audit.ship.otlp]\n{text}"));
    let endpoint = "endpoint = \"https://collector:4318/v1/logs\"";
    assert_eq!(otlp(&format!("{endpoint}\nheaders = {{ authorization = {{ value_env = \"KEY\" }} }}")), "valid");
    insta::assert_snapshot!(
        [
            otlp("endpoint = \"collector:4318\""),
            otlp("endpoint = \"https://collector:4318\""),
            otlp("endpoint = \"https://me:secret@collector:4318/v1/logs\""),
            otlp("timeout = \"5ms\""),
            otlp(&format!("{endpoint}\nheaders = {{ \"x key\" = {{ value_env = \"KEY\" }} }}")),
            otlp(&format!("{endpoint}\nheaders = {{ Content-Type = {{ value_env = \"KEY\" }} }}")),
            otlp(&format!(
                "{endpoint}\nheaders = {{ X-Key = {{ value_env = \"KEY\" }}, x-key = {{ value_env = \"KEY\" }} }}"
            )),
            otlp(&format!("{endpoint}\nheaders = {{ x-key = {{}} }}")),
            otlp(&format!("{endpoint}\nheaders = {{ x-key = {{ value = \"secret\" }} }}")),
            otlp(&format!("{endpoint}\nheaders = {{ x-key = {{ value_env = \"BROKEN\" }} }}")),
            said("[audit]\nretention = \"400d\""),
            said("[audit]\nretention = \"59m\"\ncheckpoint_key_file = \"key.pem\""),
            said("[audit.ship]\nfile = \"audit/shipped.jsonl\""),
            said("[audit]\nstore = \"postgres\"\nretention = \"400d\""),
        ]
        .join("\n")
    );
}

/// Else the configuration is good, and every token that is made by it is refused.
#[test]
fn a_development_key_signs_by_what_its_issuer_lists() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dev.pem");
    let env = [("SECRET".to_owned(), "0123456789abcdef0123456789abcdef".to_owned())];
    let load = |text: &str| config::load_text(text, Some("linkgate.toml"), dir.path(), env.clone());
    let keys = "jwks_url = \"https://login.example/jwks.json\"\n";
    let listed = "algorithms = [\"ES256\"]\n";
    assert!(GOOD.contains(keys) && GOOD.contains(listed));
    let alone = GOOD.replace(keys, "development_key = \"dev.pem\"\n");
    let beside = GOOD.replace(keys, &format!("{keys}development_key = \"dev.pem\"\n"));
    let secret = alone.replace(listed, "hs256_secret_env = \"SECRET\"\n");

    DevKey::generate(DevAlgorithm::Es256).unwrap().write_pem(&path).unwrap();
    for good in [&alone, &beside] {
        load(good).unwrap();
    }
    DevKey::generate(DevAlgorithm::EdDsa).unwrap().write_pem(&path).unwrap();
    for bad in [&alone, &beside, &secret] {
        let errors = load(bad).unwrap_err().to_string();
        assert!(errors.contains("issuers.main.development_key: `") && errors.contains("signs by EdDSA"), "{errors}");
        assert!(errors.contains("list \"EdDSA\" too, or name another key"), "{errors}");
    }
    let both = listed.replace("]", ", \"EdDSA\"]");
    for good in [&alone, &beside] {
        load(&good.replace(listed, &both)).unwrap();
    }
    // What is missing is one error, not two.
    let errors = load(&beside.replace(listed, "")).unwrap_err().to_string();
    assert!(errors.contains("algorithms: is missing") && !errors.contains("signs by"), "{errors}");
}

#[test]
fn a_development_key_needs_a_loopback_listener() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("dev.pem"), "x").unwrap();
    let text = GOOD.replace("[upstreams.isp]", "development_key = \"dev.pem\"\n[upstreams.isp]");
    let load = |address: &str| {
        let env = [("LINKGATE__LISTEN__ADDRESS".to_owned(), address.to_owned())];
        config::load_text(&text, Some("linkgate.toml"), dir.path(), env)
    };
    for address in ["127.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
        let config = load(address).unwrap();
        assert_eq!(config.identity.issuers[0].development_key.as_deref(), Some(dir.path().join("dev.pem").as_path()));
    }
    for address in ["0.0.0.0:80", "10.0.0.1:80", "[::]:80"] {
        let found = load(address).unwrap_err().to_string();
        assert!(found.contains("issuers.main.development_key: with a development key"), "{found}");
    }
    // The other listener that takes tokens.
    let text = format!("{text}\n[decision.callers.edge]\nsecret_env = \"EDGE\"\n");
    let load = |address: &str| {
        let env = [("LINKGATE__DECISION__ADDRESS", address), ("EDGE", "0123456789abcdef0123456789abcdef")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        config::load_text(&text, Some("linkgate.toml"), dir.path(), env)
    };
    assert!(load("127.0.0.1:8082").is_ok());
    let found = load("0.0.0.0:8082").unwrap_err().to_string();
    assert!(found.contains("so `decision.address` must be a loopback address, not `0.0.0.0:8082`"), "{found}");
}

#[test]
fn only_one_legacy_issuer_and_never_the_gateways_own() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("k.pem"), "x").unwrap();
    let text = format!(
        "{GOOD}
[issuers.a]
legacy = true
hs256_secret_env = \"S\"
[issuers.b]
legacy = true
hs256_secret_env = \"S\"
[signing]
issuer = \"https://login.example\"
keys = [{{ kid = \"1\", file = \"k.pem\" }}]
"
    );
    let env = [("S".to_owned(), "0123456789abcdef0123456789abcdef".to_owned())];
    let found = config::load_text(&text, Some("linkgate.toml"), dir.path(), env).unwrap_err().to_string();
    insta::assert_snapshot!(found);
}

#[test]
fn each_rule_of_tls() {
    let listen = |lines: &str| errors(&format!("[listen.tls]\n{lines}\n{GOOD}"));
    let client = |rule: &str| {
        listen(&format!(
            "certificates = [{{ cert = \"a\", key_file = \"b\" }}]\nclient_auth = \"optional\"\nclient_ca = [\"c\"]\nclients = [{rule}]"
        ))
    };
    for (said, expected) in [
        (listen(""), "listen.tls.certificates: at least one pair is needed"),
        (listen("min_version = \"1.1\""), "unknown word `1.1`"),
        (listen("certificates = [{ cert = \"a\" }]"), "listen.tls.certificates[0].cert: `/nowhere/a` cannot be read"),
        (listen("client_auth = \"required\""), "listen.tls.client_ca: is missing"),
        (listen("client_ca = [\"c\"]"), "listen.tls.client_auth: is `none`"),
        (listen("clients = [{ dns = \"a\", trusted_proxy = true }]"), "listen.tls.clients: have no use while"),
        (client("{ trusted_proxy = true }"), "listen.tls.clients[0]: name the certificate in one way"),
        (client("{ dns = \"a\", spiffe = \"spiffe://a/b\", trusted_proxy = true }"), "name the certificate in one way"),
        (client("{ spiffe = \"https://a/b\", trusted_proxy = true }"), "`https://a/b` is no SPIFFE id"),
        (client("{ dns = \"\", trusted_proxy = true }"), "the certificate's name is empty"),
        (client("{ subject = 'O=Example, Inc., CN=a', trusted_proxy = true }"), "is no subject: write for example"),
        (client("{ dns = \"a\" }"), "say either `trusted_proxy = true`, or `issuer` and `sub`"),
        (client("{ dns = \"a\", trusted_proxy = true, sub = \"u\", issuer = \"main\" }"), "say either"),
        (client("{ dns = \"a\", issuer = \"other\", sub = \"u\" }"), "there is no issuer `other`"),
        (
            client("{ dns = \"a\", issuer = \"main\", sub = \"u\", roles = [\"x\"] }"),
            "count only with `sufficient = true`",
        ),
        (client("{ dns = \"a\", issuer = \"main\", sub = \"u\", sufficient = true }"), "tenant_id: is missing"),
        (
            client("{ dns = \"a\", trusted_proxy = true }, { dns = \"A\", trusted_proxy = true }"),
            "listen.tls.clients[1]: names the same certificate as an earlier rule",
        ),
        (
            changed("assertion = \"off\"\n", "assertion = \"off\"\ntls = { server_name = \"a b\" }\n"),
            "upstreams.isp.tls.server_name: `a b` is neither a host name nor an address",
        ),
        (changed("assertion = \"off\"\n", "assertion = \"off\"\nhttp2 = \"yes\"\n"), "unknown word `yes`"),
        (errors(&format!("[listen]\nproxy_protocol_from = [\"lb\"]\n{GOOD}")), "`lb` is no network"),
    ] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
}

#[test]
fn each_rule_of_the_admin_api() {
    let weak = "0123456789abcdef0123456789abcdef";
    let strong = "5e1b7c0d9a8f4e2b6c3d1a0f9e8d7c6b5a4f3e2d1c0b9a8f7e6d5c4b3a2f1e01";
    let environment = [("STRONG", strong), ("WEAK", weak), ("FLAT", &"ab".repeat(40))];
    let told = |section: &str| {
        let text = errors_with(&format!("{GOOD}\n[admin]\n{section}"), &environment);
        // Neither a token nor a digest is ever shown.
        assert!(!text.contains(strong) && !text.contains(weak) && !text.contains("abab"), "{text}");
        format!("## {section}\n{text}")
    };
    let at = "address = \"127.0.0.1:8082\"\n";
    let one = |token: &str| told(&format!("{at}tokens = [{{ {token} }}]"));
    let good = "name = \"ann\", role = \"viewer\", secret_env = \"STRONG\"";
    insta::assert_snapshot!(
        [
            one(good),
            told(at),
            told(&format!("tokens = [{{ {good} }}]")),
            told("address = \"127.0.0.1:8080\""),
            told("address = \"127.0.0.1:8081\""),
            one("name = \"ann\", role = \"viewer\""),
            one("name = \"Ann!\", role = \"king\", secret_env = \"STRONG\""),
            one("secret_env = \"STRONG\""),
            one("name = \"ann\", role = \"viewer\", secret_env = \"WEAK\""),
            one("name = \"ann\", role = \"viewer\", secret_env = \"FLAT\""),
            one("name = \"ann\", role = \"viewer\", secret_env = \"NONE\""),
            one("name = \"ann\", role = \"viewer\", sha256 = \"zz\""),
            one(&format!("{good}, sha256 = \"{}\"", "0".repeat(64))),
            told(&format!("{at}tokens = [{{ {good} }}, {{ {good} }}]")),
            told(&format!(
                "{at}tokens = [{{ {good} }}, {{ name = \"bob\", role = \"operator\", secret_env = \"STRONG\" }}]"
            )),
            told(&format!("{at}tokens = [{{ {good} }}]\n[admin.tls]\nclient_auth = \"required\"")),
            told("[admin.tls]\ncertificates = []"),
        ]
        .join("\n")
    );
}
