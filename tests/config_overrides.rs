//! The environment over the file, and where secrets may come from.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

use std::path::Path;

use linkgate::{
    config::{self, Config},
    identity::settings::KeySource,
    upstream::settings::Credential,
};

const FILE: &str = r#"
[listen]
address = "127.0.0.1:1"

[issuers.old-login]
legacy = true
hs256_secret_env = "JWT_SECRET_KEY"

[upstreams.isp]
origin = "http://127.0.0.1:8000"
credential = "drop"
assertion = "off"
"#;

const SECRET: &str = "a-secret-of-at-least-thirty-two-bytes";

fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, String> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    config::load_text(text, Some("linkgate.toml"), Path::new("/base"), env).map_err(|errors| errors.to_string())
}

fn load_with_secret(env: &[(&str, &str)]) -> Result<Config, String> {
    let mut all = vec![("JWT_SECRET_KEY", SECRET)];
    all.extend_from_slice(env);
    load(FILE, &all)
}

#[test]
fn each_kind_of_value_can_be_overridden() {
    let config = load_with_secret(&[
        ("LINKGATE__LISTEN__ADDRESS", "127.0.0.1:9"),
        ("LINKGATE__LISTEN__WORKERS", "3"),
        ("LINKGATE__LISTEN__TRUSTED_PROXIES", r#"["10.0.0.0/8", "::1"]"#),
        ("LINKGATE__LISTEN__PUBLIC_SCHEME", "https"),
        ("LINKGATE__LISTEN__MAX_HEADER_SIZE", "64KiB"),
        ("LINKGATE__LISTEN__MAX_URI_SIZE", "4096"),
        ("LINKGATE__LINKS__REQUIRE_APPROVAL", "true"),
        ("LINKGATE__LIMITS__TENANT", "0"),
        ("LINKGATE__LIMITS__DETAIL", "7/s"),
        ("LINKGATE__LOG__FILTER", "'debug'"),
        ("LINKGATE__ISSUERS__OLD_LOGIN__LEEWAY", "5s"),
        ("LINKGATE__UPSTREAMS__ISP__CREDENTIAL", "pass"),
        ("LINKGATE__UPSTREAMS__ISP__TAKES_TENANT_FROM_HEADER", "true"),
        ("LINKGATE__UPSTREAMS__NEW__ORIGIN", "https://new"),
        ("LINKGATE__UPSTREAMS__NEW__CREDENTIAL", "drop"),
        ("LINKGATE__UPSTREAMS__NEW__ASSERTION", "off"),
        ("LINKGATE__ROUTES", r#"[{ methods = ["GET"], path = "/x", access = "home", upstream = "new" }]"#),
    ])
    .unwrap();
    assert_eq!(config.listen.address.to_string(), "127.0.0.1:9");
    assert_eq!(config.listen.workers, 3);
    assert_eq!(
        config.listen.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.0.0.0/8", "::1/128"]
    );
    assert_eq!(config.listen.public_scheme, "https");
    assert_eq!((config.listen.max_header_bytes, config.listen.max_uri_bytes), (65_536, 4096));
    assert!(config.links.approvals.required);
    assert_eq!((config.limits.tenant.requests, config.limits.detail.requests), (0, 7));
    assert_eq!(config.log.filter, "debug");
    assert_eq!(config.identity.issuers[0].leeway.as_secs(), 5);
    assert!(matches!(config.upstreams[0].credential, Credential::Pass));
    assert_eq!(config.upstreams[1].name, "new");
    assert_eq!(config.routes[0].path, "/x");
}

#[test]
fn unknown_names_and_wrong_values_fail_with_the_variables_name() {
    let found = load_with_secret(&[
        ("LINKGATE__LISTEN__ADRESS", "127.0.0.1:9"),
        ("LINKGATE__LISTEN", "1"),
        ("LINKGATE__LISTEN__ADDRESS__PORT", "1"),
        ("LINKGATE__ROUTES__0__PATH", "/x"),
        ("LINKGATE__LOGS__FILTER", "info"),
        ("LINKGATE__LINKS__REQUIRE_APPROVAL", "yes"),
        ("LINKGATE__LINKS__HEARTBEAT", "fast"),
        ("LINKGATE__LOG__FORMAT", "jsn"),
        ("LINKGATE__", "x"),
    ])
    .unwrap_err();
    insta::assert_snapshot!(found);
}

#[test]
fn variables_with_one_underscore_are_left_alone() {
    load_with_secret(&[("LINKGATE_CONFIG", "/x"), ("LINKGATE_ANYTHING", "x"), ("LINKGATEX", "x")]).unwrap();
}

#[test]
fn an_override_heals_what_is_wrong_in_the_file() {
    let text = FILE.replace("127.0.0.1:1", "nonsense");
    assert!(load(&text, &[("JWT_SECRET_KEY", SECRET)]).is_err());
    load(&text, &[("JWT_SECRET_KEY", SECRET), ("LINKGATE__LISTEN__ADDRESS", "127.0.0.1:1")]).unwrap();
}

#[test]
fn a_configuration_can_come_from_the_environment_alone() {
    let env = [("LINKGATE__ISSUERS__MAIN__LEGACY", "true"), ("LINKGATE__ISSUERS__MAIN__HS256_SECRET", SECRET)];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = config::load(None, env).unwrap();
    let KeySource::Hs256(secret) = &config.identity.issuers[0].keys else { panic!("no secret") };
    assert_eq!(secret.expose(), SECRET.as_bytes());
}

#[test]
fn secrets_come_by_file_variable_or_override_and_one_way_only() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("s"), format!("{SECRET}\r\n")).unwrap();
    std::fs::write(dir.path().join("short"), "short-hunter2").unwrap();
    let load = |key: &str, env: &[(&str, &str)]| {
        let text = FILE.replace("hs256_secret_env = \"JWT_SECRET_KEY\"", key);
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        config::load_text(&text, Some("linkgate.toml"), dir.path(), env).map_err(|errors| errors.to_string())
    };
    let secret = |config: Config| match &config.identity.issuers[0].keys {
        KeySource::Hs256(secret) => secret.expose().to_vec(),
        other => panic!("{other:?}"),
    };
    assert_eq!(secret(load("hs256_secret_file = \"s\"", &[]).unwrap()), SECRET.as_bytes());
    assert_eq!(secret(load("hs256_secret_env = \"V\"", &[("V", SECRET)]).unwrap()), SECRET.as_bytes());
    let inline = [("LINKGATE__ISSUERS__OLD_LOGIN__HS256_SECRET", SECRET)];
    assert_eq!(secret(load("", &inline).unwrap()), SECRET.as_bytes());

    let both = [("V", SECRET), ("LINKGATE__ISSUERS__OLD_LOGIN__HS256_SECRET", SECRET)];
    let cases = [
        load(&format!("hs256_secret = \"{SECRET}\""), &[]),
        load("hs256_secret_env = \"V\"", &both),
        load("hs256_secret_env = \"V\"", &[]),
        load("hs256_secret_file = \"missing\"", &[]),
        load("hs256_secret_file = \"short\"", &[]),
    ];
    let told: Vec<String> =
        cases.into_iter().map(|case| case.unwrap_err().replace(dir.path().to_str().unwrap(), "DIR")).collect();
    insta::assert_snapshot!(told.join("\n"));
}

/// Whatever is wrong around a secret, and wherever it stands, it is in no message and in no debug output.
#[test]
fn secrets_are_never_printed() {
    let marker = "hunter2-hunter2-hunter2-hunter2-hunter2";
    let url = format!("postgres://u:{marker}@db/x");
    let files = [
        format!("[issuers.a]\nlegacy = true\nhs256_secret = \"{marker}\"\n"),
        format!("[issuers.a]\nlegacy = true\nhs256_secret = \"{marker}\n"),
        format!("[issuers.a]\nlegacy = true\nhs256_secret = [\"{marker}\"]\n"),
        format!("[issuers.a]\nlegacy = true\nhs256_secret = {{ x = \"{marker}\" }}\n"),
        format!("[issuers.a]\nlegacy = true\nhs256_secrets = \"{marker}\"\n"),
        format!("[database]\npostgres_url = \"{url}\"\n"),
        format!("[upstreams.x]\nassertion_hmac = \"{marker}\"\nreplacement = {{ hs256_secret = \"{marker}\" }}\n"),
    ];
    for file in files {
        let told = load(&file, &[]).unwrap_err();
        assert!(!told.contains("hunter2"), "{told}");
    }
    let overrides = [
        ("LINKGATE__ISSUERS__A__HS256_SECRET", format!("\"{marker}")),
        ("LINKGATE__ISSUERS__A__HS256_SECRETS", marker.to_owned()),
        ("LINKGATE__ISSUERS__A__HS256_SECRET", format!("\"{marker}\" x")),
        ("LINKGATE__DATABASE__POSTGRES_URL", format!("mysql://{marker}")),
    ];
    for (name, value) in &overrides {
        let told = load("", &[(name, value)]).unwrap_err();
        assert!(told.contains(name) && !told.contains("hunter2"), "{told}");
    }
    let env = [
        ("JWT_SECRET_KEY", marker),
        ("LINKGATE__DATABASE__POSTGRES_URL", &url),
        ("LINKGATE__UPSTREAMS__ISP__CREDENTIAL", "replace"),
        ("LINKGATE__UPSTREAMS__ISP__REPLACEMENT__HS256_SECRET", marker),
        ("LINKGATE__UPSTREAMS__ISP__REPLACEMENT__ISSUER", "gateway"),
        ("LINKGATE__UPSTREAMS__ISP__ASSERTION", "request"),
        ("LINKGATE__UPSTREAMS__ISP__ASSERTION_HMAC", marker),
    ];
    // The file must be there; what is in it is read when it is used.
    let readable = concat!("[{ kid = \"k\", file = \"", env!("CARGO_MANIFEST_DIR"), "/Cargo.toml\" }]");
    let signing = [("LINKGATE__SIGNING__ISSUER", "https://gateway.example"), ("LINKGATE__SIGNING__KEYS", readable)];
    let config = load(FILE, &[&env[..], &signing].concat()).unwrap();
    let shown = format!("{config:?}");
    assert!(shown.contains("Secret(") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn links_are_looked_at_in_the_background_only_where_a_connector_can_be_asked() {
    let looks = |env: &[(&str, &str)]| load_with_secret(env).unwrap().portal.unwrap().alerts.background;
    let connector = ("LINKGATE__CONNECTORS__ISP__PRESET", "gen1");
    let upstream = ("LINKGATE__CONNECTORS__ISP__UPSTREAM", "isp");
    let credential = ("LINKGATE__CONNECTORS__ISP__CREDENTIAL__KIND", "none");
    assert!(!looks(&[]));
    assert!(looks(&[connector, upstream, credential]));
    assert!(!looks(&[connector, upstream, credential, ("LINKGATE__ALERTS__BACKGROUND", "false")]));
}
