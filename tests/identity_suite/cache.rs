//! The verified-token cache never answers for another token, another configuration, or a later time.

use linkgate::{domain::Millis, identity::TokenCache};
use proptest::prelude::*;

use crate::support::*;

#[test]
fn a_token_is_found_until_the_instant_it_expires() {
    let folder = Folder::new();
    let key = Key::es256("k1");
    let verifier = verifier(vec![issuer("main", folder.jwks("m.json", &key.dev.jwks()))]);
    let token = key.token(&with("exp", NOW_S + 10));
    let generation = verifier.generation();
    let caller = verify(&verifier, &token).unwrap();
    let mut cache = TokenCache::new(10);
    assert!(cache.get(&token, generation, NOW).is_none());
    cache.put(&token, generation, caller.clone());
    assert_eq!(cache.get(&token, generation, NOW).unwrap(), caller);
    assert_eq!(cache.get(&token, generation, Millis((NOW_S + 10) * 1000 - 1)).unwrap(), caller);
    assert!(cache.get(&token, generation, Millis((NOW_S + 10) * 1000)).is_none());
    // Expired for good, even if the clock goes back.
    assert!(cache.get(&token, generation, NOW).is_none());
}

#[test]
fn another_configuration_never_sees_the_entry() {
    let folder = Folder::new();
    let key = Key::es256("k1");
    let trusted = issuer("main", folder.jwks("m.json", &key.dev.jwks()));
    let mut distrusted = trusted.clone();
    distrusted.trusts = Default::default();
    let (before, after) = (verifier(vec![trusted]), verifier(vec![distrusted]));
    assert_ne!(before.generation(), after.generation());
    let token = key.token(&with("roles", serde_json::json!(["partner_msp_full"])));
    let mut cache = TokenCache::new(10);
    cache.put(&token, before.generation(), verify(&before, &token).unwrap());
    assert_eq!(cache.get(&token, before.generation(), NOW).unwrap().roles.len(), 1);
    assert!(cache.get(&token, after.generation(), NOW).is_none());
}

#[test]
fn a_key_that_leaves_the_file_takes_its_cached_tokens_along() {
    let folder = Folder::new();
    let (old, new) = (Key::es256("k1"), Key::es256("k2"));
    let verifier = verifier(vec![issuer("main", folder.jwks("m.json", &old.dev.jwks()))]);
    let token = old.token(&claims());
    let before = verifier.generation();
    let mut cache = TokenCache::new(10);
    cache.put(&token, before, verify(&verifier, &token).unwrap());

    verifier.reload().unwrap();
    assert_eq!(verifier.generation(), before, "unchanged keys empty no cache");
    assert!(cache.get(&token, verifier.generation(), NOW).is_some());

    folder.jwks("m.json", &new.dev.jwks());
    verifier.reload().unwrap();
    assert!(cache.get(&token, verifier.generation(), NOW).is_none());
    assert_eq!(verify(&verifier, &token).unwrap_err().label(), "unknown_kid");
    assert!(verify(&verifier, &new.token(&claims())).is_ok());

    // A bad file never replaces good keys.
    let after = verifier.generation();
    for bad in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#] {
        folder.jwks("m.json", bad);
        assert_eq!(verifier.reload().unwrap_err().len(), 1, "{bad}");
    }
    std::fs::remove_file(folder.path("m.json")).unwrap();
    assert!(verifier.reload().is_err());
    assert_eq!(verifier.generation(), after);
    assert!(verify(&verifier, &new.token(&claims())).is_ok());
}

#[test]
fn memory_is_bounded() {
    let folder = Folder::new();
    let key = Key::es256("k1");
    let verifier = verifier(vec![issuer("main", folder.jwks("m.json", &key.dev.jwks()))]);
    let token = key.token(&claims());
    let caller = verify(&verifier, &token).unwrap();
    let mut cache = TokenCache::new(50);
    for at in 0..1000 {
        cache.put(&format!("{token}{at}"), 1, caller.clone());
    }
    assert!((25..=50).contains(&cache.len()), "{}", cache.len());
    // Long tokens count for more.
    let mut cache = TokenCache::new(50);
    for at in 0..1000 {
        cache.put(&format!("{}{at}", "x".repeat(16_000)), 1, caller.clone());
    }
    assert!((1..=50 / 7).contains(&cache.len()), "{}", cache.len());
}

proptest! {
    /// Whatever was put, only the very same token under the very same generation comes back.
    #[test]
    fn only_the_whole_token_is_a_key(steps in prop::collection::vec((0usize..40, 0u64..3, any::<bool>()), 1..200)) {
        let folder = Folder::new();
        let key = Key::es256("k1");
        let verifier = verifier(vec![issuer("main", folder.jwks("m.json", &key.dev.jwks()))]);
        let callers: Vec<_> =
            (0..40).map(|at| verify(&verifier, &key.token(&with("sub", format!("u{at}")))).unwrap()).collect();
        let mut cache = TokenCache::new(1000);
        let (mut newest, mut model) = (0, std::collections::HashSet::new());
        // Long common prefixes: as between tokens of one issuer.
        let name = |at: usize| format!("{}{at:02}", "same".repeat(at / 10 + 1));
        for (at, generation, put) in steps {
            if put {
                if generation > newest {
                    (newest, model) = (generation, std::collections::HashSet::new());
                }
                cache.put(&name(at), generation, callers[at].clone());
                if generation == newest {
                    model.insert(at);
                }
            } else {
                let found = cache.get(&name(at), generation, NOW);
                if generation == newest && model.contains(&at) {
                    prop_assert_eq!(found.unwrap().sub.to_string(), format!("u{at}"));
                } else {
                    prop_assert!(found.is_none());
                }
                if generation > newest {
                    (newest, model) = (generation, std::collections::HashSet::new());
                }
            }
        }
    }
}
