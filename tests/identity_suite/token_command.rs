//! `linkgate token`: only for an issuer marked for development, and only tokens that work.

use linkgate::{
    cli::token::{TokenArgs, make},
    identity::{
        Verifier,
        mint::{DevAlgorithm, DevKey, jwks_of},
        settings::{IdentitySettings, IssuerSettings, KeySource},
    },
};
use serde_json::json;

use crate::support::*;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    token: TokenArgs,
}

fn args(line: &[&str]) -> TokenArgs {
    <Line as clap::Parser>::try_parse_from([&["token"], line].concat()).unwrap().token
}

fn marked(folder: &Folder, algorithm: DevAlgorithm) -> IssuerSettings {
    let key = DevKey::generate(algorithm).unwrap();
    key.write_pem(&folder.path("dev.pem")).unwrap();
    // The key set calls the key by a name of its own, beside others.
    let other = DevKey::generate(algorithm).unwrap();
    let mut one = issuer("main", folder.jwks("dev.json", &jwks_of([&other, &key.with_kid("theirs")])));
    one.algorithms = vec!["ES256".into(), "EdDSA".into()];
    one.development_key = Some(folder.path("dev.pem"));
    one
}

fn identity(folder: &Folder) -> IdentitySettings {
    settings(vec![marked(folder, DevAlgorithm::Es256), legacy()])
}

#[test]
fn a_minted_token_says_what_was_asked_and_verifies() {
    for algorithm in [DevAlgorithm::Es256, DevAlgorithm::EdDsa] {
        let folder = Folder::new();
        let identity = settings(vec![marked(&folder, algorithm)]);
        let line = [
            "--sub",
            "user-1",
            "--tenant",
            "home-1",
            "--partner",
            PARTNER,
            "--role",
            "a",
            "--role",
            "b",
            "--permission",
            "partner.billing.*",
            "--mfa",
            "--ttl",
            "60",
            "--username",
            "ann",
            "--claim",
            "email=ann@example",
            "--claim",
            "is_platform_admin=true",
        ];
        let made = make(&args(&line), &identity, NOW).unwrap();
        let caller = verify(&verifier(identity.issuers.clone()), &made.token).unwrap();
        assert_eq!(&*caller.sub, "user-1");
        assert_eq!(caller.home_tenant.as_ref().unwrap().as_str(), "home-1");
        assert_eq!(caller.partner_id.unwrap().to_string(), PARTNER);
        assert_eq!((caller.roles.len(), caller.permissions.len()), (2, 1));
        assert_eq!(caller.username.as_deref(), Some("ann"));
        assert_eq!(caller.email.as_deref(), Some("ann@example"));
        assert!(caller.mfa && caller.is_platform_admin && caller.jti.is_some());
        assert_eq!(caller.expires_at.0, NOW.0 + 60_000);
        assert_eq!(made.issuer, "main");
        assert_eq!(made.claims["iss"], ISS);
    }
}

#[test]
fn an_issuer_with_a_development_key_alone_takes_what_it_mints() {
    for algorithm in [DevAlgorithm::Es256, DevAlgorithm::EdDsa] {
        let folder = Folder::new();
        let mut one = marked(&folder, algorithm);
        one.keys = KeySource::DevelopmentKey(folder.path("dev.pem"));
        let alone = settings(vec![one.clone()]);
        let made = make(&args(&["--sub", "user-1", "--tenant", "home-1"]), &alone, NOW).unwrap();
        assert_eq!(&*verify(&verifier(alone.issuers.clone()), &made.token).unwrap().sub, "user-1");
        // Another key's token is a stranger's.
        DevKey::generate(algorithm).unwrap().write_pem(&folder.path("dev.pem")).unwrap();
        assert!(verify(&verifier(alone.issuers), &made.token).is_err());
        std::fs::write(folder.path("dev.pem"), "no key").unwrap();
        let error = Verifier::new(&settings(vec![one]), None).unwrap_err();
        assert!(error.to_string().contains("issuer `main`: the development key is no use"), "{error}");
    }
}

#[test]
fn only_marked_issuers_mint() {
    let folder = Folder::new();
    let identity = identity(&folder);
    let fails = |line: &[&str], identity: &IdentitySettings| make(&args(line), identity, NOW).unwrap_err();
    assert!(make(&args(&["--sub", "u", "--issuer", "main"]), &identity, NOW).is_ok());
    let failure = fails(&["--sub", "u", "--issuer", "legacy"], &identity);
    assert!(failure.message.contains("no issuer marked"), "{}", failure.message);
    assert_eq!(fails(&["--sub", "u", "--issuer", "nope"], &identity).exit as u8, 4);
    let mut unmarked = identity.clone();
    unmarked.issuers[0].development_key = None;
    assert!(fails(&["--sub", "u"], &unmarked).message.contains("development_key"));
    let mut two = identity.clone();
    let mut second = two.issuers[0].clone();
    (second.name, second.issuer) = ("second".into(), Some("https://second".into()));
    two.issuers.push(second);
    let failure = fails(&["--sub", "u"], &two);
    assert!(failure.message.contains("`main`, `second`"), "{}", failure.message);
}

#[test]
fn a_token_that_the_gateway_would_refuse_is_not_printed() {
    let folder = Folder::new();
    let good = identity(&folder);
    let fails = |line: &[&str], identity: &IdentitySettings| {
        let failure = make(&args(line), identity, NOW).unwrap_err();
        assert_eq!(failure.exit as u8, 3);
        failure.message
    };
    assert!(fails(&["--sub", "u", "--claim", "type=refresh"], &good).contains("access token"));
    assert!(fails(&["--sub", "u", "--claim", "exp=\"soon\""], &good).contains("`exp`"));
    assert!(fails(&["--sub", ""], &good).contains("`sub`"));
    let mut stranger = good.clone();
    DevKey::generate(DevAlgorithm::Es256).unwrap().write_pem(&folder.path("stranger.pem")).unwrap();
    stranger.issuers[0].development_key = Some(folder.path("stranger.pem"));
    assert!(fails(&["--sub", "u"], &stranger).contains("does not hold"));
    let mut missing = good.clone();
    missing.issuers[0].development_key = Some(folder.path("missing.pem"));
    assert!(fails(&["--sub", "u"], &missing).contains("cannot read"));
}

#[test]
fn bad_arguments_are_told() {
    for line in [
        &["--sub", "u", "--ttl", "0"][..],
        &["--sub", "u", "--partner", "x"],
        &["--sub", "u", "--tenant", ""],
        &["--sub", "u", "--claim", "x"],
        &["--sub", "u", "--claim", "=1"],
        &[],
    ] {
        assert!(<Line as clap::Parser>::try_parse_from([&["token"], line].concat()).is_err(), "{line:?}");
    }
    assert_eq!(args(&["--sub", "u", "--claim", "x={\"a\":1}"]).claims[0].1, json!({"a": 1}));
}

#[test]
fn a_private_key_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let path = folder.path("key.pem");
    std::fs::write(&path, "old").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let key = DevKey::generate(DevAlgorithm::EdDsa).unwrap();
    key.write_pem(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(DevKey::read(&path).unwrap().kid(), key.kid());
}
