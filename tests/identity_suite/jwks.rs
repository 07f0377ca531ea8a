//! Key sets behind an address: rotation, outage, floods. Against a small server that counts its requests.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use linkgate::identity::{AuthError, TokenCache, Verifier, mint::jwks_of, settings::KeySource};

use crate::support::*;

#[derive(Clone)]
struct Answer {
    status: StatusCode,
    body: String,
    delay: Duration,
    location: Option<String>,
}

struct Server {
    url: String,
    hits: AtomicUsize,
    answer: Mutex<Answer>,
}

impl Server {
    async fn start(body: String) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answer = Answer { status: StatusCode::OK, body, delay: Duration::ZERO, location: None };
        let server = Arc::new(Self {
            url: format!("http://{}/jwks", listener.local_addr().unwrap()),
            hits: AtomicUsize::new(0),
            answer: Mutex::new(answer),
        });
        let shared = server.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = shared.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |_| {
                        let shared = shared.clone();
                        async move { Ok::<_, std::convert::Infallible>(shared.answer().await) }
                    });
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        server
    }

    async fn answer(&self) -> Response<Full<Bytes>> {
        self.hits.fetch_add(1, Ordering::SeqCst);
        let answer = self.answer.lock().unwrap().clone();
        tokio::time::sleep(answer.delay).await;
        let mut response = Response::builder().status(answer.status);
        if let Some(location) = answer.location {
            response = response.header("location", location);
        }
        response.body(Full::from(answer.body)).unwrap()
    }

    fn set(&self, change: impl FnOnce(&mut Answer)) {
        change(&mut self.answer.lock().unwrap());
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

struct Intervals {
    refresh: Duration,
    min_refetch: Duration,
    max_age: Duration,
}

const LONG: Duration = Duration::from_secs(3600);
const NEVER: Intervals = Intervals { refresh: LONG, min_refetch: Duration::ZERO, max_age: LONG };

fn remote(server: &Server, intervals: &Intervals) -> Arc<Verifier> {
    let keys = KeySource::JwksUrl {
        url: server.url.clone(),
        refresh: intervals.refresh,
        min_refetch: intervals.min_refetch,
        max_age: intervals.max_age,
    };
    verifier(vec![issuer("main", keys)])
}

async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < Duration::from_secs(10), "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Maintained, and with its first keys.
async fn started(server: &Server, intervals: &Intervals) -> Arc<Verifier> {
    let verifier = remote(server, intervals);
    assert!(!verifier.ready());
    tokio::spawn(verifier.clone().maintain());
    until("first keys", || verifier.ready()).await;
    // `ready` turns true a moment before the fetch counts as ended.
    tokio::time::sleep(Duration::from_millis(20)).await;
    verifier
}

#[tokio::test]
async fn nothing_is_verified_before_the_first_keys_came() {
    let key = Key::es256("k1");
    let server = Server::start(key.dev.jwks()).await;
    let verifier = remote(&server, &NEVER);
    let error = verify(&verifier, &key.token(&claims())).unwrap_err();
    assert_eq!(error.label(), "keys_unavailable");
    assert_eq!(verifier.missing(), [Arc::<str>::from("main")]);
    // Nobody maintains it yet: the answer is no, at once.
    let start = Instant::now();
    assert!(!verifier.refetch(&error).await);
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(server.hits(), 0);
    tokio::spawn(verifier.clone().maintain());
    until("ready", || verifier.ready()).await;
    assert!(verify(&verifier, &key.token(&claims())).is_ok());
    assert!(verifier.missing().is_empty());
}

#[tokio::test]
async fn an_unknown_kid_brings_the_new_key_and_takes_the_old_one() {
    let (old, new) = (Key::es256("k1"), Key::es256("k2"));
    let server = Server::start(old.dev.jwks()).await;
    let verifier = started(&server, &NEVER).await;
    let (old_token, new_token) = (old.token(&claims()), new.token(&claims()));
    let before = verifier.generation();
    let mut cache = TokenCache::new(10);
    cache.put(&old_token, before, verify(&verifier, &old_token).unwrap());

    server.set(|answer| answer.body = jwks_of([&old.dev, &new.dev]));
    let error = verify(&verifier, &new_token).unwrap_err();
    assert_eq!(error.label(), "unknown_kid");
    assert!(verifier.refetch(&error).await);
    assert!(verify(&verifier, &new_token).is_ok());
    assert!(verify(&verifier, &old_token).is_ok());
    assert_ne!(verifier.generation(), before);

    server.set(|answer| answer.body = new.dev.jwks());
    assert!(verifier.refetch(&error).await);
    assert_eq!(verify(&verifier, &old_token).unwrap_err().label(), "unknown_kid");
    assert!(cache.get(&old_token, verifier.generation(), NOW).is_none());
    // Other errors fetch nothing.
    let hits = server.hits();
    assert!(!verifier.refetch(&AuthError::Signature).await);
    assert!(!verifier.refetch(&AuthError::UnknownKid { issuer: "other".into() }).await);
    assert_eq!(server.hits(), hits);
}

#[tokio::test]
async fn a_refresh_finds_new_keys_by_itself_and_unchanged_ones_empty_no_cache() {
    let (old, new) = (Key::es256("k1"), Key::es256("k2"));
    let server = Server::start(old.dev.jwks()).await;
    let refresh = Duration::from_millis(60);
    let verifier = started(&server, &Intervals { refresh, min_refetch: LONG, max_age: LONG }).await;
    let before = verifier.generation();
    let hits = server.hits();
    until("refreshes", || server.hits() > hits + 3).await;
    assert_eq!(verifier.generation(), before);
    server.set(|answer| answer.body = new.dev.jwks());
    until("new key", || verify(&verifier, &new.token(&claims())).is_ok()).await;
    assert_ne!(verifier.generation(), before);
}

#[tokio::test]
async fn the_last_good_keys_live_through_an_outage_up_to_their_age() {
    let key = Key::es256("k1");
    let server = Server::start(key.dev.jwks()).await;
    let intervals = Intervals {
        refresh: Duration::from_millis(100),
        min_refetch: Duration::from_millis(50),
        max_age: Duration::from_secs(3),
    };
    let verifier = started(&server, &intervals).await;
    let token = key.token(&claims());
    let mut cache = TokenCache::new(10);
    let generation = verifier.generation();
    cache.put(&token, generation, verify(&verifier, &token).unwrap());

    server.set(|answer| answer.status = StatusCode::INTERNAL_SERVER_ERROR);
    let hits = server.hits();
    until("failed refreshes", || server.hits() > hits + 1).await;
    assert!(verifier.ready() && verify(&verifier, &token).is_ok(), "an outage within `max_age` is survived");
    assert_eq!(verifier.generation(), generation);

    until("the keys' age", || !verifier.ready()).await;
    let error = verify(&verifier, &token).unwrap_err();
    assert_eq!(error.label(), "keys_unavailable");
    until("the generation", || verifier.generation() != generation).await;
    assert!(cache.get(&token, verifier.generation(), NOW).is_none(), "cached tokens go with the keys");

    server.set(|answer| answer.status = StatusCode::OK);
    until("recovery", || verifier.ready()).await;
    assert!(verify(&verifier, &token).is_ok());
}

#[tokio::test]
async fn keys_age_between_two_fetches_and_without_a_maintainer_too() {
    let key = Key::es256("k1");
    let age = Duration::from_millis(1500);
    let server = Server::start(key.dev.jwks()).await;
    let verifier = remote(&server, &Intervals { refresh: age, min_refetch: LONG, max_age: age });
    let start = Instant::now();
    tokio::spawn(verifier.clone().maintain());
    let orphan = remote(&server, &Intervals { refresh: age, min_refetch: LONG, max_age: age });
    let maintainer = tokio::spawn(orphan.clone().maintain());
    until("ready", || verifier.ready() && orphan.ready()).await;
    maintainer.abort();
    server.set(|answer| answer.status = StatusCode::BAD_GATEWAY);
    let generation = verifier.generation();
    // The next fetch is due a second after the failed one, well after the keys' age.
    until("the generation", || verifier.generation() != generation).await;
    assert!(start.elapsed() >= age && start.elapsed() < age + Duration::from_millis(700), "{:?}", start.elapsed());
    until("the orphan's keys", || !orphan.ready()).await;
    assert_eq!(verify(&orphan, &key.token(&claims())).unwrap_err().label(), "keys_unavailable");
}

#[tokio::test]
async fn keys_do_not_outlive_their_age_because_the_server_hangs() {
    let key = Key::es256("k1");
    let server = Server::start(key.dev.jwks()).await;
    let intervals = Intervals {
        refresh: Duration::from_millis(100),
        min_refetch: Duration::from_millis(50),
        max_age: Duration::from_millis(500),
    };
    let verifier = started(&server, &intervals).await;
    let generation = verifier.generation();
    server.set(|answer| answer.delay = Duration::from_secs(3));
    let start = Instant::now();
    until("the keys' age", || verifier.generation() != generation).await;
    assert!(!verifier.ready());
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_document_without_usable_keys_never_replaces_a_good_one() {
    let key = Key::es256("k1");
    let server = Server::start(key.dev.jwks()).await;
    let verifier = started(&server, &NEVER).await;
    let generation = verifier.generation();
    let token = key.token(&claims());
    let kid = AuthError::UnknownKid { issuer: "main".into() };
    // Another key than the good one, so that a document that was taken would show.
    let rogue = Key::es256("k2");
    let rogue_token = rogue.token(&claims());
    let jwk: serde_json::Value = serde_json::from_str(&rogue.dev.jwk()).unwrap();
    let one = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut jwk = jwk.clone();
        change(&mut jwk);
        serde_json::json!({"keys": [jwk]}).to_string()
    };
    let padded = |to: usize| format!("{}{}", rogue.dev.jwks(), " ".repeat(to - rogue.dev.jwks().len()));
    let huge = padded(256 * 1024 + 1);
    let many = format!(r#"{{"keys":[{}]}}"#, vec![rogue.dev.jwk(); 65].join(","));
    let documents = [
        String::new(),
        "<html>".into(),
        "{}".into(),
        "[]".into(),
        r#"{"keys":[]}"#.into(),
        r#"{"keys":{}}"#.into(),
        r#"{"keys":[{"kty":"oct","kid":"k1","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ"}]}"#.into(),
        format!(r#"{{"keys":[],"keys":[{}]}}"#, rogue.dev.jwk()),
        one(&|jwk| jwk["use"] = "enc".into()),
        one(&|jwk| jwk["key_ops"] = serde_json::json!(["sign"])),
        one(&|jwk| jwk["alg"] = "ES384".into()),
        one(&|jwk| jwk["crv"] = "P-384".into()),
        one(&|jwk| jwk["crv"] = "secp256k1".into()),
        one(&|jwk| jwk["kty"] = "OKP".into()),
        one(&|jwk| jwk["x"] = jwk["y"].clone()),
        one(&|jwk| jwk["d"] = "AAAA".into()),
        one(&|jwk| jwk["kid"] = 1.into()),
        huge,
        many,
    ];
    for document in documents {
        let hits = server.hits();
        server.set(|answer| answer.body = document.clone());
        assert!(verifier.refetch(&kid).await);
        assert_eq!(server.hits(), hits + 1);
        assert_eq!(verifier.generation(), generation, "{document:.200}");
        assert!(verify(&verifier, &token).is_ok(), "{document:.200}");
        assert!(verify(&verifier, &rogue_token).is_err(), "{document:.200}");
    }
    // Bad keys beside a good one do no harm, nor does a document at the bound of size or of keys.
    let mixed = format!(r#"{{"keys":[{{"kty":"x"}},1,{}],"extra":1}}"#, rogue.dev.jwk());
    for good in [mixed, padded(256 * 1024), format!(r#"{{"keys":[{}]}}"#, vec![rogue.dev.jwk(); 64].join(","))] {
        server.set(|answer| answer.body = good.clone());
        assert!(verifier.refetch(&kid).await);
        assert!(verify(&verifier, &rogue_token).is_ok(), "{good:.200}");
        server.set(|answer| answer.body = key.dev.jwks());
        assert!(verifier.refetch(&kid).await);
        assert!(verify(&verifier, &rogue_token).is_err());
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (key, other) = (Key::es256("k1"), Key::es256("k2"));
    let elsewhere = Server::start(other.dev.jwks()).await;
    let server = Server::start(key.dev.jwks()).await;
    let verifier = started(&server, &NEVER).await;
    for status in [StatusCode::MOVED_PERMANENTLY, StatusCode::FOUND, StatusCode::TEMPORARY_REDIRECT] {
        server.set(|answer| {
            answer.status = status;
            answer.location = Some(elsewhere.url.clone());
        });
        assert!(verifier.refetch(&AuthError::UnknownKid { issuer: "main".into() }).await);
    }
    assert_eq!(elsewhere.hits(), 0);
    assert!(verify(&verifier, &key.token(&claims())).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_meet_an_unknown_kid_share_one_fetch() {
    let (old, new) = (Key::es256("k1"), Key::es256("k2"));
    let server = Server::start(old.dev.jwks()).await;
    let verifier = started(&server, &NEVER).await;
    server.set(|answer| {
        answer.body = new.dev.jwks();
        answer.delay = Duration::from_millis(300);
    });
    let hits = server.hits();
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let (verifier, token) = (verifier.clone(), new.token(&claims()));
            tokio::spawn(async move {
                let error = verify(&verifier, &token).unwrap_err();
                assert!(verifier.refetch(&error).await);
                verify(&verifier, &token).map(|_| ())
            })
        })
        .collect();
    // Meanwhile known keys go on.
    assert!(verify(&verifier, &old.token(&claims())).is_ok());
    for one in waiting {
        one.await.unwrap().unwrap();
    }
    assert_eq!(server.hits(), hits + 1);
}

/// Workers have runtimes of their own, and a flood of unknown kids on all of them is one fetch an interval.
#[test]
fn a_flood_of_unknown_kids_is_no_storm() {
    let service = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let key = Key::es256("k1");
    let server = service.block_on(Server::start(key.dev.jwks()));
    let min_refetch = Duration::from_millis(400);
    let verifier = service.block_on(started(&server, &Intervals { refresh: LONG, min_refetch, max_age: LONG }));
    let hits = server.hits();
    let start = Instant::now();
    let asked = AtomicUsize::new(0);
    let (good, other) = (key.token(&claims()), Key::es256("x"));
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let (verifier, asked, good, other) = (&verifier, &asked, &good, &other);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let mut at = 0;
                while start.elapsed() < Duration::from_millis(1000) {
                    at += 1;
                    let header = format!(r#"{{"alg":"ES256","kid":"flood-{worker}-{at}"}}"#);
                    let token = other.raw(&header, claims().to_string().as_bytes());
                    let error = verify(verifier, &token).unwrap_err();
                    assert_eq!(error.label(), "unknown_kid");
                    runtime.block_on(verifier.refetch(&error));
                    asked.fetch_add(1, Ordering::Relaxed);
                    assert!(verify(verifier, good).is_ok());
                }
            });
        }
    });
    let fetched = server.hits() - hits;
    let most = start.elapsed().as_millis() as usize / min_refetch.as_millis() as usize + 1;
    assert!(asked.load(Ordering::Relaxed) > 30, "the flood was one");
    assert!((1..=most).contains(&fetched), "{fetched} fetches, at most {most}");
}

#[tokio::test]
async fn a_dead_server_is_asked_less_and_less() {
    let key = Key::es256("k1");
    let server = Server::start(key.dev.jwks()).await;
    server.set(|answer| answer.status = StatusCode::BAD_GATEWAY);
    let min_refetch = Duration::from_millis(50);
    let verifier = remote(&server, &Intervals { refresh: LONG, min_refetch, max_age: LONG });
    tokio::spawn(verifier.clone().maintain());
    tokio::time::sleep(Duration::from_millis(1200)).await;
    // 50, 100, 200, 400, ... ms: about five in this time, where a fixed pause would give 24.
    assert!((3..=8).contains(&server.hits()), "{}", server.hits());
    assert!(!verifier.ready());
    server.set(|answer| answer.status = StatusCode::OK);
    verifier.reload().unwrap();
    until("ready at the operator's wish", || verifier.ready()).await;
}

#[tokio::test]
async fn nobody_waits_for_a_maintainer_that_was_dropped() {
    let key = Key::es256("k1");
    let server = Server::start(key.dev.jwks()).await;
    let verifier = remote(&server, &NEVER);
    let maintainer = tokio::spawn(verifier.clone().maintain());
    until("ready", || verifier.ready()).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    server.set(|answer| answer.delay = Duration::from_secs(4));
    let kid = AuthError::UnknownKid { issuer: "main".into() };
    let waiting = tokio::spawn({
        let (verifier, kid) = (verifier.clone(), kid.clone());
        async move { verifier.refetch(&kid).await }
    });
    let hits = server.hits();
    until("the fetch", || server.hits() > hits).await;
    let start = Instant::now();
    maintainer.abort();
    waiting.await.unwrap();
    assert!(!verifier.refetch(&kid).await, "and nobody asks it any more");
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn shared_parts_cross_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Verifier>();
    shared::<linkgate::identity::Keyring>();
    shared::<linkgate::identity::Caller>();
    shared::<linkgate::limit::Limits>();
}
