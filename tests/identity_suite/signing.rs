//! What the gateway signs, checked by another implementation with the published keys, and refused by the gateway.

use std::collections::HashMap;

use jsonwebtoken::{Algorithm, DecodingKey, TokenData, Validation, jwk::JwkSet};
use linkgate::{
    domain::{
        DecisionId, LinkId, LinkRole, LinkVersion, Millis, PartnerId, Permission, PermissionSet, Secret, TenantId,
    },
    identity::{
        AssertionClaims, Keyring, LinkClaim, ReplacementClaims, ReplacementShape, RequestBinding, SignedCache,
        SignedForm, SignedKey, SigningError, Subject,
        mint::{DevAlgorithm, DevKey},
        settings::{SigningKey, SigningSettings},
    },
};
use serde_json::{Value, json};

use crate::support::*;

const UPSTREAM: &[u8] = b"the upstream's own secret, 32 bytes long";

fn keyring(folder: &Folder, algorithms: &[DevAlgorithm]) -> Keyring {
    let keys = algorithms.iter().enumerate().map(|(at, algorithm)| {
        let path = folder.path(&format!("sign-{at}.pem"));
        DevKey::generate(*algorithm).unwrap().write_pem(&path).unwrap();
        SigningKey { kid: format!("g{at}"), path }
    });
    Keyring::load(&SigningSettings { issuer: OWN_ISS.into(), keys: keys.collect() }).unwrap()
}

fn decode(token: &str, key: &DecodingKey, algorithm: Algorithm, audience: Option<&str>) -> TokenData<Value> {
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_aud = audience.is_some();
    if let Some(audience) = audience {
        validation.set_audience(&[audience]);
    }
    jsonwebtoken::decode(token, key, &validation).unwrap()
}

fn published(keyring: &Keyring, token: &str) -> (DecodingKey, Algorithm) {
    let set: JwkSet = serde_json::from_str(keyring.jwks_json()).unwrap();
    let header = jsonwebtoken::decode_header(token).unwrap();
    let jwk = set.find(header.kid.as_deref().unwrap()).unwrap();
    (DecodingKey::from_jwk(jwk).unwrap(), header.alg)
}

fn assertion<'a>(tenant: &'a TenantId, sub: &'a str) -> AssertionClaims<'a> {
    AssertionClaims {
        subject: Subject { issuer: ISS, sub, username: Some("ann"), email: None },
        audience: "billing",
        tenant,
        cross_tenant: true,
        partner: Some(PARTNER.parse::<PartnerId>().unwrap()),
        link: Some(LinkClaim {
            id: "0192a3b4-0000-7000-8000-000000000001".parse::<LinkId>().unwrap(),
            version: LinkVersion(7),
            role: LinkRole::MspBilling,
        }),
        not_after: None,
    }
}

#[test]
fn a_session_assertion_verifies_with_the_published_keys() {
    let folder = Folder::new();
    let tenant = TenantId::new("t-1").unwrap();
    for (algorithm, expect) in [(DevAlgorithm::EdDsa, Algorithm::EdDSA), (DevAlgorithm::Es256, Algorithm::ES256)] {
        let keyring = keyring(&folder, &[algorithm, DevAlgorithm::Es256]);
        let signed = keyring.session_assertion(&assertion(&tenant, "user-1"), Millis(NOW.0 + 999)).unwrap();
        let (key, alg) = published(&keyring, signed.token());
        assert_eq!(alg, expect);
        let data = decode(signed.token(), &key, alg, Some("billing"));
        assert_eq!(data.header.kid.as_deref(), Some("g0"), "the first key signs");
        assert_eq!(data.header.typ.as_deref(), Some("linkgate-assertion+jwt"));
        let expected = json!({
            "iss": OWN_ISS, "sub": "user-1", "aud": "billing", "iat": NOW_S, "exp": NOW_S + 60, "user_iss": ISS,
            "tenant_id": "t-1", "cross_tenant": true, "partner_id": PARTNER,
            "link_id": "0192a3b4-0000-7000-8000-000000000001", "link_version": 7, "role": "msp_billing",
        });
        assert_eq!(data.claims, expected);
        assert_eq!(signed.expires_at, Millis((NOW_S + 60) * 1000));
        assert!(signed.value.is_sensitive());
    }
}

#[test]
fn a_home_assertion_names_no_link_and_nothing_outlives_its_bound() {
    let folder = Folder::new();
    let keyring = keyring(&folder, &[DevAlgorithm::Es256]);
    let tenant = TenantId::new("home").unwrap();
    let mut claims = assertion(&tenant, "user-1");
    (claims.partner, claims.link, claims.cross_tenant) = (None, None, false);
    claims.not_after = Some(Millis(NOW.0 + 20_500));
    let signed = keyring.session_assertion(&claims, NOW).unwrap();
    let (key, alg) = published(&keyring, signed.token());
    let body = decode(signed.token(), &key, alg, Some("billing")).claims;
    assert_eq!(body["exp"], NOW_S + 20);
    for absent in ["link_id", "link_version", "role", "partner_id", "jti", "path"] {
        assert!(body.get(absent).is_none(), "{absent}");
    }
}

#[test]
fn the_request_form_binds_the_request() {
    let folder = Folder::new();
    let keyring = keyring(&folder, &[DevAlgorithm::EdDsa]);
    let tenant = TenantId::new("t-1").unwrap();
    let decision = DecisionId::generate();
    let secret = Secret::new(UPSTREAM);
    let mut binding = RequestBinding {
        permission: Permission::parse("partner.billing.invoices.read"),
        method: "GET",
        path: "/api/v1/invoices/%E2%82%AC",
        query: "a=1&b=%20",
        decision,
        hmac: None,
    };
    let asymmetric = keyring.request_assertion(&assertion(&tenant, "u"), &binding, NOW).unwrap();
    binding.hmac = Some(&secret);
    let shared = keyring.request_assertion(&assertion(&tenant, "u"), &binding, NOW).unwrap();
    let (key, alg) = published(&keyring, asymmetric.token());
    let one = decode(asymmetric.token(), &key, alg, Some("billing")).claims;
    let two = decode(shared.token(), &DecodingKey::from_secret(UPSTREAM), Algorithm::HS256, Some("billing")).claims;
    assert_eq!(one, two);
    assert_eq!(one["jti"], decision.to_string());
    assert_eq!(one["permission"], "partner.billing.invoices.read");
    assert_eq!(one["method"], "GET");
    assert_eq!(one["path"], "/api/v1/invoices/%E2%82%AC");
    // printf 'a=1&b=%%20' | openssl dgst -sha256 -binary | basenc --base64url | tr -d =
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"a=1&b=%20");
    assert_eq!(one["query_hash"], b64(hash));
    assert_eq!(one["exp"].as_i64().unwrap() - one["iat"].as_i64().unwrap(), 60);
    binding.query = "";
    let bare = keyring.request_assertion(&assertion(&tenant, "u"), &binding, NOW).unwrap();
    let bare = decode(bare.token(), &DecodingKey::from_secret(UPSTREAM), Algorithm::HS256, Some("billing")).claims;
    assert_eq!(bare["query_hash"], "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU");
}

fn replacement<'a>(
    tenant: &'a TenantId,
    secret: Option<&'a Secret>,
    names: &'a HashMap<String, Vec<String>>,
    roles: &'a HashMap<String, Vec<String>>,
) -> ReplacementClaims<'a> {
    ReplacementClaims {
        subject: Subject { issuer: ISS, sub: "user-1", username: Some("ann"), email: None },
        tenant,
        partner: PARTNER.parse().unwrap(),
        role: LinkRole::MspSupport,
        permissions: PermissionSet::from_claim("partner.support.tickets.*"),
        not_after: None,
        shape: ReplacementShape {
            hs256: secret,
            issuer: Some("dotmac"),
            audience: None,
            permission_names: names,
            role_names: roles,
        },
    }
}

#[test]
fn a_replacement_token_holds_this_tenant_and_this_links_set_only() {
    let folder = Folder::new();
    let keyring = keyring(&folder, &[DevAlgorithm::Es256]);
    let tenant = TenantId::new("t-1").unwrap();
    let secret = Secret::new(UPSTREAM);
    let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
    let names = HashMap::from([
        ("partner.support.tickets.list".to_owned(), list(&["tickets:read"])),
        ("partner.support.tickets.read".to_owned(), list(&["tickets:read", "tickets:detail"])),
        ("partner.support.tickets.comment".to_owned(), list(&[])),
    ]);
    let roles = HashMap::from([("msp_support".to_owned(), list(&["support_agent"]))]);
    let signed = keyring.replacement_token(&replacement(&tenant, Some(&secret), &names, &roles), NOW).unwrap();
    assert!(signed.value.to_str().unwrap().starts_with("Bearer ey"));
    let data = decode(signed.token(), &DecodingKey::from_secret(UPSTREAM), Algorithm::HS256, None);
    let mut body = data.claims;
    assert!(body.as_object_mut().unwrap().remove("jti").unwrap().is_string());
    let expected = json!({
        "iss": "dotmac", "sub": "user-1", "iat": NOW_S, "exp": NOW_S + 60, "type": "access", "username": "ann",
        "tenant_id": "t-1", "partner_id": PARTNER, "managed_tenant_ids": ["t-1"], "active_managed_tenant_id": "t-1",
        "roles": ["support_agent"],
        "permissions": ["tickets:read", "tickets:detail", "partner.support.tickets.create", "partner.support.tickets.update"],
        "linkgate": true,
    });
    assert_eq!(body, expected);

    // Without a secret: the gateway's own key and `iss`; names without an entry go as they are.
    let empty = HashMap::new();
    let mut claims = replacement(&tenant, None, &empty, &empty);
    (claims.shape.issuer, claims.shape.audience) = (None, Some("billing"));
    let signed = keyring.replacement_token(&claims, NOW).unwrap();
    let (key, alg) = published(&keyring, signed.token());
    let body = decode(signed.token(), &key, alg, Some("billing")).claims;
    assert_eq!((&body["iss"], &body["roles"]), (&json!(OWN_ISS), &json!(["msp_support"])));
}

/// The worst case: an upstream's secret and `iss` are those of an issuer of the gateway too.
#[test]
fn nothing_that_the_gateway_signs_is_accepted_by_the_gateway() {
    let folder = Folder::new();
    let keyring = keyring(&folder, &[DevAlgorithm::Es256]);
    let tenant = TenantId::new("t-1").unwrap();
    let secret = Secret::new(SECRET);
    let mut own_keys = issuer("own-keys", folder.jwks("own.json", keyring.jwks_json()));
    own_keys.audiences.push("billing".into());
    let verifier = verifier(vec![own_keys, legacy()]);
    let empty = HashMap::new();
    let mut with_iss = replacement(&tenant, None, &empty, &empty);
    with_iss.shape.issuer = Some(ISS);
    with_iss.shape.audience = Some("linkgate");
    let by_secret = replacement(&tenant, Some(&secret), &empty, &empty);
    let binding = RequestBinding {
        permission: None,
        method: "GET",
        path: "/",
        query: "",
        decision: DecisionId::generate(),
        hmac: Some(&secret),
    };
    let claims = assertion(&tenant, "u");
    let signed = [
        (keyring.replacement_token(&with_iss, NOW).unwrap(), "own_token"),
        (keyring.replacement_token(&by_secret, NOW).unwrap(), "own_token"),
        (keyring.session_assertion(&claims, NOW).unwrap(), "token_type"),
        (keyring.request_assertion(&claims, &binding, NOW).unwrap(), "token_type"),
    ];
    for (token, label) in &signed {
        assert_eq!(verify(&verifier, token.token()).unwrap_err().label(), *label);
    }
}

#[test]
fn a_keyring_publishes_every_key_and_refuses_bad_ones() {
    let folder = Folder::new();
    let ring = keyring(&folder, &[DevAlgorithm::EdDsa, DevAlgorithm::Es256]);
    let set: Value = serde_json::from_str(ring.jwks_json()).unwrap();
    let keys = set["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 2);
    for key in keys {
        assert!(key.get("d").is_none(), "no private part");
        assert_eq!(key["use"], "sig");
    }
    let path = folder.path("sign-0.pem");
    let load = |keys: Vec<SigningKey>, issuer: &str| Keyring::load(&SigningSettings { issuer: issuer.into(), keys });
    let key = |kid: &str| SigningKey { kid: kid.into(), path: path.clone() };
    assert!(load(vec![key("a")], OWN_ISS).is_ok());
    assert!(matches!(load(vec![], OWN_ISS), Err(SigningError::NoKeys)));
    assert!(matches!(load(vec![key("a")], ""), Err(SigningError::NoIssuer)));
    assert!(matches!(load(vec![key("a"), key("a")], OWN_ISS), Err(SigningError::RepeatedKid(_))));
    let missing = SigningKey { kid: "a".into(), path: folder.path("missing.pem") };
    assert!(matches!(load(vec![missing], OWN_ISS), Err(SigningError::Read { .. })));
    std::fs::write(&path, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
    assert!(matches!(load(vec![key("a")], OWN_ISS), Err(SigningError::Key { .. })));
}

#[test]
fn a_cached_signature_is_not_served_with_less_than_five_seconds_left() {
    let folder = Folder::new();
    let keyring = keyring(&folder, &[DevAlgorithm::Es256]);
    let tenant = TenantId::new("t-1").unwrap();
    let claims = assertion(&tenant, "u");
    let signed = keyring.session_assertion(&claims, NOW).unwrap();
    let key = SignedKey {
        form: SignedForm::SessionAssertion,
        upstream: 1,
        generation: 3,
        user: [1; 32],
        tenant: tenant.clone(),
        partner: claims.partner,
        link: claims.link.map(|link| (link.id, link.version)),
    };
    let mut cache = SignedCache::new(4);
    assert!(cache.get(&key, NOW, None).is_none());
    cache.put(key.clone(), signed.clone());
    assert_eq!(cache.get(&key, NOW, None).unwrap(), signed.value);
    assert!(cache.get(&key, Millis(NOW.0 + 55_000), None).is_some());
    assert!(cache.get(&key, Millis(NOW.0 + 55_001), None).is_none());
    assert!(cache.get(&key, Millis(NOW.0 - 1), None).is_none(), "a clock set back");
    let end = signed.expires_at;
    assert!(cache.get(&key, NOW, Some(end)).is_some());
    assert!(cache.get(&key, NOW, Some(Millis(end.0 - 1))).is_none(), "it would outlive what it is sent with");
    let changes: [&dyn Fn(&mut SignedKey); 8] = [
        &|key| key.form = SignedForm::Replacement,
        &|key| key.upstream = 2,
        &|key| key.generation = 4,
        &|key| key.user[31] = 0,
        &|key| key.tenant = TenantId::new("t-2").unwrap(),
        &|key| key.partner = None,
        &|key| key.link = None,
        &|key| key.link.as_mut().unwrap().1 = LinkVersion(8),
    ];
    for change in changes {
        let mut other = key.clone();
        change(&mut other);
        assert!(cache.get(&other, NOW, None).is_none(), "{other:?}");
    }
    for user in 0..100 {
        cache.put(SignedKey { user: [user; 32], ..key.clone() }, signed.clone());
    }
    let kept =
        (0..100).filter(|user| cache.get(&SignedKey { user: [*user; 32], ..key.clone() }, NOW, None).is_some()).count();
    assert!((1..=4).contains(&kept), "{kept}");
}

#[test]
fn users_that_a_signed_token_tells_apart_have_different_digests() {
    let folder = Folder::new();
    let key = Key::es256("k1");
    let verifier = verifier(vec![issuer("main", folder.jwks("m.json", &key.dev.jwks()))]);
    let digest = |change: &dyn Fn(&mut Value)| {
        let mut all = claims();
        change(&mut all);
        let caller = verify(&verifier, &key.token(&all)).unwrap();
        (caller.user_digest, caller.token_digest)
    };
    let base = digest(&|_| {});
    assert_eq!(digest(&|all| all["jti"] = "other".into()).0, base.0, "two tokens of one user share signatures");
    assert_ne!(digest(&|all| all["jti"] = "other".into()).1, base.1);
    let others = [
        digest(&|all| all["sub"] = "user-2".into()).0,
        digest(&|all| all["username"] = "x".into()).0,
        digest(&|all| all["email"] = "x".into()).0,
        base.0,
    ];
    for (at, one) in others.iter().enumerate() {
        assert!(others.iter().skip(at + 1).all(|other| other != one), "{at}");
    }
}
