//! Every way in which a token is refused, one row each, beside a sibling that passes: a row whose sibling were refused
//! too would prove nothing.

use aws_lc_rs::{
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{self, KeyPair as _},
};
use linkgate::{
    domain::Millis,
    identity::{
        Verifier,
        mint::{DevAlgorithm, jwks_of, mint_hs256},
        settings::{IssuerSettings, Trusts},
    },
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::*;

struct World {
    key: Key,
    verifier: std::sync::Arc<Verifier>,
    _folder: Folder,
}

/// One ES256 issuer with one key, and the legacy issuer.
fn world(change: impl FnOnce(&mut IssuerSettings)) -> World {
    let folder = Folder::new();
    let key = Key::es256("k1");
    let mut main = issuer("main", folder.jwks("main.json", &key.dev.jwks()));
    change(&mut main);
    World { verifier: verifier(vec![main, legacy()]), key, _folder: folder }
}

/// `good` passes, every token of `bad` is refused for the reason `label`.
fn row(world: &World, what: &str, label: &str, good: &[String], bad: &[String]) {
    assert!(!good.is_empty() && !bad.is_empty(), "{what}");
    for token in good {
        if let Err(error) = verify(&world.verifier, token) {
            panic!("{what}: the good sibling was refused: {error}\n{token}");
        }
    }
    for (at, token) in bad.iter().enumerate() {
        match verify(&world.verifier, token) {
            Ok(caller) => panic!("{what}: bad token {at} passed as {caller:?}\n{token}"),
            Err(error) => assert_eq!(error.label(), label, "{what}: bad token {at}: {error}"),
        }
    }
}

/// A row on one claim: values that pass and values that do not.
fn claim_row(name: &str, label: &str, good: &[Value], bad: &[Value]) {
    let world = world(|_| {});
    let make = |values: &[Value]| -> Vec<String> {
        values.iter().map(|value| world.key.token(&with(name, value.clone()))).collect()
    };
    row(&world, name, label, &make(good), &make(bad));
}

/// A row on one member of the header.
fn header_row(name: &str, label: &str, good: &[Value], bad: &[Value]) {
    let world = world(|_| {});
    let make = |values: &[Value]| -> Vec<String> {
        let one = |value: &Value| {
            let mut header = world.key.header();
            header[name] = value.clone();
            world.key.raw(&header.to_string(), claims().to_string().as_bytes())
        };
        values.iter().map(one).collect()
    };
    row(&world, name, label, &make(good), &make(bad));
}

#[test]
fn a_good_token_becomes_its_caller() {
    let world = world(|_| {});
    let mut all = claims();
    all["username"] = "ann".into();
    all["email"] = "ann@example".into();
    all["session_id"] = "s-1".into();
    all["jti"] = "j-1".into();
    all["roles"] = json!(["partner_auditor", "x"]);
    all["permissions"] = json!(["partner.billing.*"]);
    all["partner_id"] = PARTNER.into();
    all["is_platform_admin"] = true.into();
    let caller = verify(&world.verifier, &world.key.token(&all)).unwrap();
    assert_eq!(&*caller.issuer_name, "main");
    assert_eq!(&*caller.issuer, ISS);
    assert_eq!(&*caller.sub, "user-1");
    assert_eq!(caller.username.as_deref(), Some("ann"));
    assert_eq!(caller.email.as_deref(), Some("ann@example"));
    assert_eq!(caller.session_id.as_deref(), Some("s-1"));
    assert_eq!(caller.jti.as_deref(), Some("j-1"));
    assert_eq!(caller.home_tenant.as_ref().unwrap().as_str(), "home-1");
    assert_eq!(caller.roles.iter().map(|role| &**role).collect::<Vec<_>>(), ["partner_auditor", "x"]);
    assert_eq!(caller.permissions.len(), 1);
    assert_eq!(caller.partner_id.unwrap().to_string(), PARTNER);
    assert!(caller.is_platform_admin && !caller.mfa);
    assert_eq!(caller.expires_at, Millis((NOW_S + 600) * 1000));
    assert_eq!(caller.issued_at, Some(Millis((NOW_S - 10) * 1000)));
}

#[test]
fn what_the_issuer_is_not_trusted_for_is_left_out() {
    let world = world(|main| main.trusts = Trusts::default());
    let mut all = claims();
    all["roles"] = json!(["partner_msp_full"]);
    all["permissions"] = json!(["partner.*"]);
    all["partner_id"] = PARTNER.into();
    all["is_platform_admin"] = true.into();
    let caller = verify(&world.verifier, &world.key.token(&all)).unwrap();
    assert!(caller.roles.is_empty() && caller.permissions.is_empty());
    assert!(caller.partner_id.is_none() && !caller.is_platform_admin);
    // Not trusted, but still typed.
    all["roles"] = "partner_msp_full".into();
    assert_eq!(verify(&world.verifier, &world.key.token(&all)).unwrap_err().label(), "claim");
}

#[test]
fn header_algorithm_none_and_unlisted_ones() {
    let world = world(|_| {});
    let good = world.key.token(&claims());
    let forged = |alg: &str| {
        let mut header = world.key.header();
        header["alg"] = alg.into();
        world.key.raw(&header.to_string(), claims().to_string().as_bytes())
    };
    let unlisted = ["none", "None", "NONE", "nOnE", "", "es256", "ES384", "RS256", "HS384", "HS512", "EdDSA", "ES256K"];
    let bad: Vec<String> = unlisted.iter().map(|alg| forged(alg)).collect();
    row(&world, "alg", "algorithm", std::slice::from_ref(&good), &bad);

    let bare = |alg: &str| format!("{}.{}.", b64(json!({"alg": alg}).to_string()), b64(claims().to_string()));
    row(&world, "alg none without signature", "malformed", std::slice::from_ref(&good), &[bare("none"), bare("ES256")]);
    let no_alg = world.key.raw(r#"{"kid":"k1"}"#, claims().to_string().as_bytes());
    let odd_alg = world.key.raw(r#"{"kid":"k1","alg":["ES256"]}"#, claims().to_string().as_bytes());
    row(&world, "alg missing", "malformed", &[good], &[no_alg, odd_alg]);
}

#[test]
fn a_public_key_is_never_an_hmac_secret() {
    let world = world(|_| {});
    let jwk: Value = serde_json::from_str(&world.key.dev.jwk()).unwrap();
    let pair_public = world.key.dev.jwks();
    let secrets: Vec<Vec<u8>> = vec![
        jwk.to_string().into_bytes(),
        world.key.dev.jwk().into_bytes(),
        pair_public.into_bytes(),
        jwk["x"].as_str().unwrap().as_bytes().to_vec(),
        vec![],
    ];
    let header = json!({"typ": "JWT", "alg": "HS256", "kid": "k1"}).to_string();
    let bad: Vec<String> = secrets.iter().map(|key| hs256(&header, &claims().to_string(), key)).collect();
    row(&world, "HS256 with public material", "algorithm", &[world.key.token(&claims())], &bad);
    // And the secret of the legacy issuer signs for nobody else.
    let stolen = hs256(&header, &claims().to_string(), SECRET);
    row(&world, "HS256 with the legacy secret", "algorithm", &[world.key.token(&claims())], &[stolen]);
}

#[test]
fn an_asymmetric_algorithm_is_never_checked_with_the_secret() {
    let world = world(|_| {});
    let good = mint_hs256(SECRET, without("iss").as_object().unwrap());
    // The legacy issuer allows HS256 only, so its claims under another algorithm meet no key.
    let mut no_aud = without("iss");
    no_aud.as_object_mut().unwrap().remove("aud");
    let legacy_good = mint_hs256(SECRET, no_aud.as_object().unwrap()).unwrap();
    row(&world, "legacy alg", "algorithm", &[legacy_good], &[world.key.token(&no_aud)]);
    // Without configured audiences a token that names one is meant for others.
    assert_eq!(verify(&world.verifier, &good.unwrap()).unwrap_err().label(), "audience");
}

#[test]
fn a_key_verifies_its_own_algorithm_only() {
    let folder = Folder::new();
    let (ec, ed) = (Key::es256("ec"), Key::new(DevAlgorithm::EdDsa, "ed"));
    let mut main = issuer("main", folder.jwks("m.json", &jwks_of([&ec.dev, &ed.dev])));
    main.algorithms = vec!["ES256".into(), "EdDSA".into()];
    let world = World { verifier: verifier(vec![main]), key: ec, _folder: folder };
    let cross = |key: &Key, alg: &str, kid: &str| {
        key.raw(&json!({"alg": alg, "kid": kid}).to_string(), claims().to_string().as_bytes())
    };
    let good = [cross(&world.key, "ES256", "ec"), cross(&ed, "EdDSA", "ed")];
    row(
        &world,
        "key of another algorithm",
        "no_single_key",
        &good,
        &[cross(&ed, "EdDSA", "ec"), cross(&world.key, "ES256", "ed")],
    );
    // Each algorithm has one key, so a token without `kid` finds it.
    let bare = |key: &Key, alg: &str| key.raw(&json!({ "alg": alg }).to_string(), claims().to_string().as_bytes());
    row(
        &world,
        "no kid",
        "signature",
        &[bare(&world.key, "ES256"), bare(&ed, "EdDSA")],
        &[bare(&ed, "ES256"), bare(&world.key, "EdDSA")],
    );
}

#[test]
fn rsa_keys_take_the_algorithms_that_issuer_and_key_agree_on() {
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let public = rsa.public_key();
    let jwk = |extra: Value| {
        let n = b64(public.modulus().big_endian_without_leading_zero());
        let e = b64(public.exponent().big_endian_without_leading_zero());
        let mut jwk = json!({"kty": "RSA", "n": n, "e": e});
        jwk.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        jwk
    };
    let sign = |alg: &str, kid: &str| {
        let encoding: &'static dyn signature::RsaEncoding = match alg {
            "RS256" => &signature::RSA_PKCS1_SHA256,
            "RS512" => &signature::RSA_PKCS1_SHA512,
            _ => &signature::RSA_PSS_SHA256,
        };
        let message = format!("{}.{}", b64(json!({"alg": alg, "kid": kid}).to_string()), b64(claims().to_string()));
        let mut out = vec![0; rsa.public_modulus_len()];
        rsa.sign(encoding, &aws_lc_rs::rand::SystemRandom::new(), message.as_bytes(), &mut out).unwrap();
        format!("{message}.{}", b64(out))
    };
    let folder = Folder::new();
    let document = json!({"keys": [jwk(json!({"kid": "any"})), jwk(json!({"kid": "pss", "alg": "PS256"}))]});
    let mut main = issuer("main", folder.jwks("m.json", &document.to_string()));
    main.algorithms = vec!["RS256".into(), "PS256".into()];
    let world = World { verifier: verifier(vec![main]), key: Key::es256("unused"), _folder: folder };
    let good = [sign("RS256", "any"), sign("PS256", "any"), sign("PS256", "pss")];
    row(&world, "key's own alg", "no_single_key", &good, &[sign("RS256", "pss")]);
    row(&world, "issuer's list", "algorithm", &good, &[sign("RS512", "any")]);
    let swapped = sign("RS256", "any").replacen(
        &b64(json!({"alg": "RS256", "kid": "any"}).to_string()),
        &b64(json!({"alg": "PS256", "kid": "any"}).to_string()),
        1,
    );
    row(&world, "padding of another algorithm", "signature", &good, &[swapped]);
}

#[test]
fn header_typ() {
    let good = [json!("JWT"), json!("jwt"), json!("at+jwt")];
    let bad =
        [json!("refresh+jwt"), json!("JWE"), json!("id+jwt"), json!("logout+jwt"), json!(""), json!(1), json!(null)];
    header_row("typ", "token_type", &good, &bad);
    let world = world(|_| {});
    let untyped = world.key.raw(r#"{"alg":"ES256","kid":"k1"}"#, claims().to_string().as_bytes());
    assert!(verify(&world.verifier, &untyped).is_ok());
}

#[test]
fn header_extensions() {
    // A member that changes nothing is ignored; one that asks to be understood is refused.
    for name in ["crit", "b64", "enc", "zip"] {
        let world = world(|_| {});
        let make = |name: &str, value: Value| {
            let mut header = world.key.header();
            header[name] = value;
            world.key.raw(&header.to_string(), claims().to_string().as_bytes())
        };
        let bad = [make(name, json!(["exp"])), make(name, json!([])), make(name, json!(true)), make(name, json!(null))];
        row(&world, name, "malformed", &[make("x-note", json!(["exp"]))], &bad);
    }
}

#[test]
fn header_kid() {
    let bad = [json!(1), json!(null), json!(["k1"]), json!(""), json!("k".repeat(256))];
    header_row("kid", "malformed", &[json!("k1")], &bad);
    let bad = [json!("k2"), json!("K1"), json!("k1 "), json!("../k1"), json!("k".repeat(255))];
    header_row("kid", "unknown_kid", &[json!("k1")], &bad);
}

#[test]
fn a_token_without_kid_needs_a_set_with_one_fitting_key() {
    let folder = Folder::new();
    let (one, two) = (Key::es256("k1"), Key::es256("k2"));
    let bare = |key: &Key| key.raw(r#"{"alg":"ES256"}"#, claims().to_string().as_bytes());
    let alone = verifier(vec![issuer("main", folder.jwks("one.json", &one.dev.jwks()))]);
    let both = verifier(vec![issuer("main", folder.jwks("two.json", &jwks_of([&one.dev, &two.dev])))]);
    assert!(verify(&alone, &bare(&one)).is_ok());
    assert_eq!(verify(&both, &bare(&one)).unwrap_err().label(), "no_single_key");
    assert!(verify(&both, &one.token(&claims())).is_ok());
    assert!(verify(&both, &two.token(&claims())).is_ok());
    // Two different keys of one name: neither is chosen.
    let twin = Key::es256("k1");
    let twins = verifier(vec![issuer("main", folder.jwks("twins.json", &jwks_of([&one.dev, &twin.dev])))]);
    assert_eq!(verify(&twins, &one.token(&claims())).unwrap_err().label(), "no_single_key");
    let twice = verifier(vec![issuer("main", folder.jwks("twice.json", &jwks_of([&one.dev, &one.dev])))]);
    assert!(verify(&twice, &one.token(&claims())).is_ok());
}

#[test]
fn keys_that_the_token_brings_along_are_not_used() {
    let world = world(|_| {});
    let attacker = Key::es256("k1");
    let jwk: Value = serde_json::from_str(&attacker.dev.jwk()).unwrap();
    let with_key = |key: &Key| {
        let mut header = key.header();
        header["jwk"] = jwk.clone();
        header["jku"] = "http://127.0.0.1:1/jwks".into();
        header["x5c"] = json!(["AAAA"]);
        header["x5u"] = "http://127.0.0.1:1/x5u".into();
        key.raw(&header.to_string(), claims().to_string().as_bytes())
    };
    row(&world, "embedded key", "signature", &[with_key(&world.key)], &[with_key(&attacker)]);
}

#[test]
fn repeated_keys() {
    let world = world(|_| {});
    let text = claims().to_string();
    let good = world.key.token(&claims());
    let more =
        |extra: &str| world.key.raw(&world.key.header().to_string(), format!("{{{extra},{}", &text[1..]).as_bytes());
    row(
        &world,
        "claims",
        "malformed",
        &[good.clone(), more(r#""x":{"y":1}"#)],
        &[
            more(r#""exp":9999999999"#),
            more(r#""tenant_id":"other""#),
            more(r#""\u0065xp":9999999999"#),
            more(r#""x":1,"x":1"#),
            more(r#""x":{"y":1,"y":2}"#),
        ],
    );
    let header = |text: &str| world.key.raw(text, claims().to_string().as_bytes());
    row(
        &world,
        "header",
        "malformed",
        &[header(r#"{"alg":"ES256","kid":"k1"}"#)],
        &[
            header(r#"{"alg":"ES256","alg":"ES256","kid":"k1"}"#),
            header(r#"{"alg":"none","kid":"k1","alg":"ES256"}"#),
            header(r#"{"alg":"ES256","kid":"k1","x":1,"x":2}"#),
            header(r#"["ES256"]"#),
            header(r#"{"alg":"ES256","kid":"k1"} x"#),
        ],
    );
    let payload = |bytes: &[u8]| world.key.raw(&world.key.header().to_string(), bytes);
    row(&world, "payload", "malformed", &[good], &[payload(b""), payload(b"[]"), payload(b"\xff{}"), payload(b"null")]);
}

#[test]
fn form_of_the_whole() {
    let world = world(|_| {});
    let good = world.key.token(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let last = |text: &str, to: char| format!("{}{to}", &text[..text.len() - 1]);
    // 64 bytes of signature leave four unused bits in the last character: it decodes to the same bytes, or nothing.
    let ends = ['B', 'C', 'h', 'x'];
    let noncanonical: Vec<String> =
        ends.iter().filter(|end| !parts[2].ends_with(**end)).map(|end| last(&good, *end)).collect();
    let mut bad = vec![
        String::new(),
        "a".into(),
        "..".into(),
        format!("{}.{}", parts[0], parts[1]),
        format!("{good}."),
        format!("{good}.{}", parts[2]),
        format!(".{good}"),
        format!("{good}="),
        format!("{good}=="),
        format!("{good} "),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        format!("{}.{}.+{}", parts[0], parts[1], &parts[2][1..]),
        format!("{}.{}./{}", parts[0], parts[1], &parts[2][1..]),
        format!("{}.{}.é", parts[0], parts[1]),
    ];
    bad.extend(noncanonical);
    row(&world, "form", "malformed", &[good], &bad);
}

#[test]
fn length() {
    let world = world(|_| {});
    let sized = |pad: usize| world.key.token(&with("pad", "x".repeat(pad)));
    let base = sized(0).len();
    // Three bytes of payload are four characters of token.
    let fits = sized((16 * 1024 - base) * 3 / 4 - 3);
    let over = sized((16 * 1024 - base) * 3 / 4 + 8);
    assert!(fits.len() <= 16 * 1024 && fits.len() > 16 * 1024 - 16 && over.len() > 16 * 1024);
    row(&world, "length", "too_long", &[fits], &[over]);
}

#[test]
fn signature() {
    let world = world(|_| {});
    let good = world.key.token(&claims());
    let (message, _) = good.rsplit_once('.').unwrap();
    let other = Key::es256("k1");
    let signed = |bytes: &[u8]| format!("{message}.{}", b64(bytes));
    let other_claims = world.key.token(&with("tenant_id", "other"));
    let moved = format!("{message}.{}", other_claims.rsplit_once('.').unwrap().1);
    row(
        &world,
        "signature",
        "signature",
        std::slice::from_ref(&good),
        &[
            signed(&[0; 64]),
            signed(&[0; 63]),
            signed(&[1]),
            signed(&[0x30, 6, 2, 1, 1, 2, 1, 1]),
            signed(&other.sign(message.as_bytes())),
            moved,
            other.token(&claims()),
        ],
    );
}

#[test]
fn no_changed_byte_of_a_token_passes() {
    let world = world(|_| {});
    let good = world.key.token(&claims());
    assert!(verify(&world.verifier, &good).is_ok());
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(verify(&world.verifier, &changed).is_err(), "byte {at}");
    }
}

proptest! {
    /// Whatever comes, the answer is an answer.
    #[test]
    fn no_text_makes_the_verifier_panic(text in "[ -~]{0,80}", dots in "[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,9}") {
        let verifier = verifier(vec![legacy()]);
        prop_assert!(verify(&verifier, &text).is_err());
        prop_assert!(verify(&verifier, &dots).is_err());
    }

    /// Any JSON value in any claim that is read: refused, or taken for what it says.
    #[test]
    fn no_claim_makes_the_verifier_panic(at in 0usize..18, text in ".{0,12}", number in any::<f64>(), kind in 0u8..8) {
        let names = [
            "exp", "nbf", "iat", "sub", "aud", "iss", "type", "jti", "username", "email", "tenant_id", "roles",
            "permissions", "session_id", "is_platform_admin", "partner_id", "amr", "acr",
        ];
        let value = match kind {
            0 => json!(text),
            1 => json!(number),
            2 => json!(number as i64),
            3 => json!([text]),
            4 => json!({ text: number }),
            5 => json!(null),
            6 => json!(kind == 6),
            _ => json!([[number]]),
        };
        let mut all = json!({"sub": "u", "exp": NOW_S + 60});
        all[names[at]] = value.clone();
        let verifier = verifier(vec![legacy()]);
        if let Ok(caller) = verify(&verifier, &mint_hs256(SECRET, all.as_object().unwrap()).unwrap()) {
            prop_assert!(caller.expires_at > NOW && !caller.sub.is_empty());
            prop_assert!(names[at] != "iss", "a token with an `iss` is not for the legacy issuer");
            prop_assert!(names[at] != "sub" || value == json!(&*caller.sub));
        }
    }
}

#[test]
fn claim_iss() {
    let bad = [json!("https://idp.example/"), json!("https://IDP.example"), json!("legacy"), json!("main")];
    claim_row("iss", "issuer", &[json!(ISS)], &bad);
    claim_row("iss", "claim", &[json!(ISS)], &[json!(null), json!(1), json!([ISS]), json!("")]);
    claim_row("iss", "own_token", &[json!(ISS)], &[json!(OWN_ISS)]);
}

#[test]
fn a_token_without_iss_is_for_the_legacy_issuer_alone() {
    let legacy_claims = json!({"sub": "u", "exp": NOW_S + 60, "tenant_id": "t", "type": "access"});
    let minted = |change: &dyn Fn(&mut Value)| {
        let mut all = legacy_claims.clone();
        change(&mut all);
        mint_hs256(SECRET, all.as_object().unwrap()).unwrap()
    };
    let world = world(|_| {});
    let good = minted(&|_| {});
    let caller = verify(&world.verifier, &good).unwrap();
    assert_eq!((&*caller.issuer_name, &*caller.issuer), ("legacy", ""));
    // A kid in a legacy token names nothing.
    let named = hs256(r#"{"alg":"HS256","kid":"any"}"#, &legacy_claims.to_string(), SECRET);
    row(&world, "legacy iss", "issuer", &[good.clone(), named], &[minted(&|all| all["iss"] = "dotmac".into())]);
    row(
        &world,
        "legacy secret",
        "signature",
        std::slice::from_ref(&good),
        &[hs256(r#"{"alg":"HS256"}"#, &legacy_claims.to_string(), b"another secret of at least 32 bytes!!")],
    );
    let without_legacy = {
        let folder = Folder::new();
        let key = Key::es256("k1");
        verifier(vec![issuer("main", folder.jwks("m.json", &key.dev.jwks()))])
    };
    assert_eq!(verify(&without_legacy, &good).unwrap_err().label(), "issuer");
}

#[test]
fn claim_aud() {
    let good = [json!("linkgate"), json!(["x", "linkgate-2"])];
    claim_row("aud", "audience", &good, &[json!("x"), json!(["x"]), json!([]), json!("linkgat"), json!("Linkgate")]);
    claim_row("aud", "claim", &good, &[json!(1), json!(["linkgate", 1]), json!(null), json!({"linkgate": 1})]);
    let world = world(|_| {});
    row(&world, "aud missing", "audience", &[world.key.token(&claims())], &[world.key.token(&without("aud"))]);
}

#[test]
fn claim_exp() {
    let s = NOW_S;
    let good = [json!(s + 1), json!(s as f64 + 0.5), json!(253_402_300_799_i64)];
    claim_row("exp", "expired", &good, &[json!(s), json!(s - 1), json!(0), json!(s as f64 - 0.5)]);
    let odd = [
        json!((s + 600).to_string()),
        json!(true),
        json!(null),
        json!([s + 600]),
        json!({}),
        json!(-1),
        json!(-0.0),
        json!(1e300),
        json!(253_402_300_800_i64),
        json!(u64::MAX),
        json!((s + 600) * 1000),
    ];
    claim_row("exp", "claim", &good, &odd[..6]);
    claim_row("exp", "claim", &good, &odd[7..]);
    claim_row("exp", "expired", &good, &odd[6..7]);
    let world = world(|_| {});
    let good = world.key.token(&claims());
    row(&world, "exp missing", "claim", std::slice::from_ref(&good), &[world.key.token(&without("exp"))]);
    let text = claims().to_string().replace(&(s + 600).to_string(), "1e999");
    let infinite = world.key.raw(&world.key.header().to_string(), text.as_bytes());
    row(&world, "exp infinite", "malformed", &[good], &[infinite]);
}

#[test]
fn claim_nbf_and_iat() {
    let s = NOW_S;
    let good = [json!(s), json!(s - 5), json!(0), json!(s as f64 - 0.5)];
    claim_row("nbf", "not_yet_valid", &good, &[json!(s + 1), json!(s as f64 + 0.5), json!(253_402_300_799_i64)]);
    let odd = [json!("0"), json!(false), json!(null), json!([]), json!(-1), json!(1e300)];
    claim_row("nbf", "claim", &good, &odd);
    claim_row("iat", "claim", &good, &odd);
}

#[test]
fn leeway_is_what_was_configured_and_no_more() {
    let s = NOW_S;
    let world = world(|main| main.leeway = std::time::Duration::from_secs(30));
    let token = |name: &str, value: i64| world.key.token(&with(name, value));
    row(&world, "exp", "expired", &[token("exp", s - 29)], &[token("exp", s - 30)]);
    row(&world, "nbf", "not_yet_valid", &[token("nbf", s + 30)], &[token("nbf", s + 31)]);
    let caller = verify(&world.verifier, &token("exp", s + 10)).unwrap();
    assert_eq!(caller.expires_at, Millis((s + 40) * 1000));
    let folder = Folder::new();
    let mut main = issuer("main", folder.jwks("m.json", &world.key.dev.jwks()));
    main.leeway = std::time::Duration::from_secs(61);
    assert!(Verifier::new(&settings(vec![main]), None).is_err());
}

#[test]
fn claim_sub() {
    let good = [json!("u"), json!("ü".repeat(255))];
    let bad = [json!(""), json!(null), json!(1), json!(["u"]), json!("ü".repeat(256)), json!("a\nb"), json!("a\u{7f}")];
    claim_row("sub", "claim", &good, &bad);
    let world = world(|_| {});
    row(&world, "sub missing", "claim", &[world.key.token(&claims())], &[world.key.token(&without("sub"))]);
}

#[test]
fn claims_roles_and_permissions() {
    for name in ["roles", "permissions"] {
        let bad = [
            json!("partner.*"),
            json!(null),
            json!({"a": 1}),
            json!(["a", 1]),
            json!([["a"]]),
            json!(true),
            json!([null]),
        ];
        claim_row(name, "claim", &[json!([]), json!(["a", "b"])], &bad);
    }
}

#[test]
fn claim_tenant_id() {
    let bad = [
        json!(""),
        json!(1),
        json!(["t"]),
        json!(true),
        json!("a\u{0}"),
        json!("t".repeat(256)),
        json!({"id": "t"}),
        json!("t "),
        json!("\u{a0}t"),
    ];
    claim_row("tenant_id", "claim", &[json!("t"), json!(null), json!("ü".repeat(255))], &bad);
    let world = world(|_| {});
    for homeless in [world.key.token(&with("tenant_id", Value::Null)), world.key.token(&without("tenant_id"))] {
        assert_eq!(verify(&world.verifier, &homeless).unwrap().home_tenant, None);
    }
}

#[test]
fn claim_is_platform_admin() {
    let bad = [json!("true"), json!(1), json!(null), json!([true])];
    claim_row("is_platform_admin", "claim", &[json!(true), json!(false)], &bad);
}

#[test]
fn claim_partner_id() {
    let bad = [
        json!("p-1"),
        json!(""),
        json!(1),
        json!([PARTNER]),
        json!(PARTNER.replace('-', "")),
        json!(format!("{{{PARTNER}}}")),
        json!(format!("urn:uuid:{PARTNER}")),
        json!(PARTNER.replace('6', "g")),
    ];
    claim_row("partner_id", "claim", &[json!(PARTNER), json!(null), json!(PARTNER.to_uppercase())], &bad);
}

#[test]
fn claim_type() {
    let bad =
        [json!("refresh"), json!("api_key"), json!("ACCESS"), json!(""), json!(null), json!(1), json!(["access"])];
    claim_row("type", "token_type", &[json!("access")], &bad);
    let world = world(|_| {});
    assert!(verify(&world.verifier, &world.key.token(&without("type"))).is_ok());
}

/// An HTTP/1 service would see another user: white space at the edges is lost on the way.
#[test]
fn ids_have_no_open_edges() {
    for name in ["sub", "session_id", "jti"] {
        claim_row(name, "claim", &[json!("a"), json!("a b")], &[json!("a "), json!(" a"), json!("a\u{2003}")]);
    }
}

#[test]
fn texts_that_travel_on_are_texts() {
    for name in ["username", "email", "session_id", "jti"] {
        let bad = [json!(1), json!(["a"]), json!("a\r\nX-Admin: 1"), json!("x".repeat(321)), json!(false)];
        claim_row(name, "claim", &[json!("a"), json!(null)], &bad);
    }
}

#[test]
fn tokens_of_the_gateway_itself() {
    let world = world(|_| {});
    let token = |name: &str, value: Value| world.key.token(&with(name, value));
    let bad = [true.into(), false.into(), Value::Null, json!("x")].map(|value: Value| token("linkgate", value));
    row(&world, "linkgate", "own_token", &[token("linkgate2", true.into())], &bad);
}

#[test]
fn home_tenants_of_an_issuer() {
    let world = world(|main| main.home_tenants = Some(vec![linkgate::domain::TenantId::new("home-1").unwrap()]));
    let token = |value: Value| world.key.token(&with("tenant_id", value));
    row(
        &world,
        "home tenants",
        "home_tenant",
        &[token(json!("home-1")), token(json!(null))],
        &[token(json!("home-2")), token(json!("HOME-1"))],
    );
}

#[test]
fn mfa_is_shown_by_amr_or_by_a_listed_acr() {
    let world = world(|_| {});
    let mfa = |name: &str, value: Value| verify(&world.verifier, &world.key.token(&with(name, value))).unwrap().mfa;
    assert!(mfa("amr", json!(["pwd", "mfa"])));
    assert!(!mfa("amr", json!(["pwd", "otp", "MFA"])));
    assert!(!mfa("amr", json!(null)));
    assert!(mfa("acr", json!("urn:mfa")));
    assert!(!mfa("acr", json!("urn:mfa:not")));
    claim_row("amr", "claim", &[json!(["mfa"])], &[json!("mfa"), json!(["mfa", 1]), json!(true)]);
    claim_row("acr", "claim", &[json!("1")], &[json!(1), json!(["urn:mfa"])]);
}

#[test]
fn one_issuers_key_signs_for_no_other() {
    let folder = Folder::new();
    let (one, two) = (Key::es256("k1"), Key::es256("k1"));
    let mut second = issuer("second", folder.jwks("2.json", &two.dev.jwks()));
    second.issuer = Some("https://second.example".into());
    second.trusts = Trusts::default();
    let first = issuer("first", folder.jwks("1.json", &one.dev.jwks()));
    let world = World { verifier: verifier(vec![first, second]), key: one, _folder: folder };
    let as_second = with("iss", "https://second.example");
    row(
        &world,
        "cross issuer",
        "signature",
        &[world.key.token(&claims()), two.token(&as_second)],
        &[two.token(&claims()), world.key.token(&as_second)],
    );
    assert_eq!(&*verify(&world.verifier, &two.token(&as_second)).unwrap().issuer_name, "second");
}

#[test]
fn claim_names_are_configurable() {
    let world = world(|main| {
        main.claims.tenant_id = "https://x.example/tenant".into();
        main.claims.token_type = "token_use".into();
    });
    let mut all = claims();
    all["https://x.example/tenant"] = "t-9".into();
    let caller = verify(&world.verifier, &world.key.token(&all)).unwrap();
    assert_eq!(caller.home_tenant.as_ref().unwrap().as_str(), "t-9");
    all["token_use"] = "refresh".into();
    assert_eq!(verify(&world.verifier, &world.key.token(&all)).unwrap_err().label(), "token_type");
}

#[test]
fn the_age_limit_binds_by_iat() {
    let world = world(|main| main.max_token_age = Some(std::time::Duration::from_secs(60)));
    let age = |claims: Value| verify(&world.verifier, &world.key.token(&claims)).unwrap().too_old(NOW);
    assert!(!age(with("iat", NOW_S - 60)));
    assert!(age(with("iat", NOW_S - 61)));
    assert!(!age(with("iat", NOW_S + 60)));
    assert!(age(with("iat", NOW_S + 61)));
    assert!(age(without("iat")));
    let unlimited = self::world(|_| {});
    let old = unlimited.key.token(&with("iat", 0));
    assert!(!verify(&unlimited.verifier, &old).unwrap().too_old(NOW));
}

#[test]
fn settings_that_would_open_a_door_are_refused() {
    let folder = Folder::new();
    let key = Key::es256("k1");
    let good = || issuer("main", folder.jwks("m.json", &key.dev.jwks()));
    let build =
        |issuers: Vec<IssuerSettings>| Verifier::new(&settings(issuers), Some(OWN_ISS)).err().map(|e| e.to_string());
    assert_eq!(build(vec![good(), legacy()]), None);
    let refused = |change: &dyn Fn(&mut IssuerSettings)| {
        let mut one = good();
        change(&mut one);
        build(vec![one]).expect("refused")
    };
    assert!(refused(&|one| one.algorithms = vec!["none".into()]).contains("`none`"));
    assert!(refused(&|one| one.algorithms = vec!["HS256".into()]).contains("HS256"));
    assert!(refused(&|one| one.algorithms = vec!["ES256".into(), "HS256".into()]).contains("HS256"));
    assert!(refused(&|one| one.algorithms.clear()).contains("algorithm"));
    assert!(refused(&|one| one.audiences.clear()).contains("audience"));
    assert!(refused(&|one| one.issuer = Some(String::new())).contains("iss"));
    assert!(refused(&|one| one.issuer = Some(OWN_ISS.into())).contains("own"));
    assert!(refused(&|one| one.keys = legacy().keys).contains("HS256"));
    assert!(refused(&|one| one.keys = folder.jwks("x.json", "{}")).contains("key set"));
    let remote = linkgate::identity::settings::KeySource::JwksUrl {
        url: "http://127.0.0.1:1/".into(),
        refresh: std::time::Duration::from_secs(2),
        min_refetch: std::time::Duration::from_secs(1),
        max_age: std::time::Duration::from_secs(1),
    };
    assert!(refused(&|one| one.keys = remote.clone()).contains("max_age"));
    let mut short = legacy();
    short.keys = linkgate::identity::settings::KeySource::Hs256(linkgate::domain::Secret::new(&b"short"[..]));
    assert!(build(vec![short]).expect("refused").contains("32 bytes"));
    assert!(build(vec![good(), good()]).expect("refused").contains("same `iss`"));
    assert!(build(vec![legacy(), legacy()]).expect("refused").contains("same `iss`"));
}
