//! Policies and the configuration are read anew when their files change; what is bad changes nothing and is audited (I6).

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    client::{Connection, Request},
    rig::{HOME1, Rig, Setup},
    upstream::Upstream,
};

const CLOSED: &str = "@id(\"test.closed\")\nforbid (principal, action, resource) when { context.method == \"GET\" };\n";

pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Decision and reason of each recorded load.
fn loads_of(rig: &Rig, action: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    for line in rig.lines() {
        if line["pub"]["action"] == action {
            found.push((text(&line["pub"]["decision"]), line["pub"]["reason"].to_string()));
        }
    }
    found
}

fn loads(rig: &Rig) -> Vec<(String, String)> {
    loads_of(rig, "policy.load")
}

#[test]
fn i6_a_changed_file_is_in_force_and_a_bad_one_changes_nothing() {
    let harmless =
        "@id(\"test.harmless\")\nforbid (principal, action, resource) when { context.method == \"BREW\" };\n";
    let rig = Rig::with(Setup { guardrails: vec![("own.cedar", harmless.to_owned())], ..Setup::default() });
    let file = rig.dir.path().join("policies/guardrails/own.cedar");
    let ask = || rig.ask(Request::get("/api/invoices").tenant("t-full"));
    assert_eq!(ask().status, 200);

    std::fs::write(&file, CLOSED).unwrap();
    until("the guardrail is in force", || ask().status == 403);
    assert_eq!(ask().error(), "FORBIDDEN/guardrail");
    until("the load is recorded", || loads(&rig).len() == 1);

    std::fs::write(
        &file,
        "@id(\"test.bad\")\nforbid (principal, action, resource) when { context.metod == \"GET\" };\n",
    )
    .unwrap();
    until("the refusal is recorded", || loads(&rig).len() == 2);
    let (decision, reason) = loads(&rig).pop().unwrap();
    assert_eq!(decision, "deny");
    assert!(reason.contains("own.cedar:2:") && reason.contains("metod"), "{reason}");
    assert_eq!(ask().error(), "FORBIDDEN/guardrail", "the old set stays");

    std::fs::write(&file, harmless).unwrap();
    until("the good set is in force again", || ask().status == 200);
}

/// The configuration of a rig, as a person edits it.
struct Edited<'r> {
    rig: &'r Rig,
    first: String,
}

impl<'r> Edited<'r> {
    fn of(rig: &'r Rig) -> Self {
        Self { rig, first: std::fs::read_to_string(rig.dir.path().join("linkgate.toml")).unwrap() }
    }

    /// Puts another file in its place, as editors do, and waits until that was taken or refused: whether it was taken.
    fn put(&self, text: &str) -> bool {
        let before = self.loads();
        let (file, beside) = (self.rig.dir.path().join("linkgate.toml"), self.rig.dir.path().join("linkgate.toml.new"));
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, file).unwrap();
        until("the file is read", || self.loads() != before);
        let now = self.loads();
        assert_eq!(now[0] + now[1], before[0] + before[1] + 1, "once");
        now[0] > before[0]
    }

    /// How many were taken and refused.
    fn loads(&self) -> [u64; 2] {
        let metrics = self.rig.health("/metrics").text();
        ["taken", "refused"].map(|result| {
            let name = format!("linkgate_config_loads_total{{result=\"{result}\"}} ");
            let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
            line.unwrap_or_else(|| panic!("{name}: {metrics}")).parse().unwrap()
        })
    }

    /// As [`Self::put`]; the recorded reason where it was refused.
    fn save(&self, text: &str) -> Option<String> {
        let before = loads_of(self.rig, "config.load").len();
        let taken = self.put(text);
        until("the load is recorded", || loads_of(self.rig, "config.load").len() > before);
        let loads = loads_of(self.rig, "config.load");
        assert_eq!(loads.len(), before + 1, "once: {loads:?}");
        let (decision, reason) = loads.last().unwrap();
        assert_eq!(decision, if taken { "allow" } else { "deny" });
        (!taken).then(|| reason.clone())
    }

    fn replaced(&self, from: &str, to: &str) -> String {
        assert!(self.first.contains(from), "{from}: {}", self.first);
        self.first.replace(from, to)
    }
}

#[test]
fn i6_a_changed_configuration_is_in_force_and_a_bad_one_changes_nothing() {
    let rig = Rig::start();
    let edited = Edited::of(&rig);
    let other = Upstream::start();
    let ask = |path: &str| rig.ask(Request::get(path).tenant("t-full")).status;
    let here = rig.upstream.address.to_string();
    assert_eq!((ask("/api/invoices"), ask("/later")), (200, 404));

    // Routes and upstreams.
    let later = "[[routes]]\nmethods = [\"GET\"]\npath = \"/later\"\npermission = \"partner.tenants.list\"\nupstream = \"up\"\n";
    let moved = format!("{}\n{later}", edited.replaced(&here, &other.address.to_string()));
    assert_eq!(edited.save(&moved), None);
    assert_eq!((ask("/api/invoices"), ask("/later")), (200, 200));
    assert_eq!((other.last().target(), other.last().one("x-tenant-id")), ("/later", "t-full"));
    let served = rig.upstream.seen().len();

    // What is wrong, and why: nothing of it is taken.
    for (text, told) in [
        (format!("{moved}\nnonsense = 1\n"), "nonsense"),
        (moved.replace("path = \"/later\"", "path = \"/api/invoices\""), "/api/invoices"),
        (moved.replace("jwks.json", "nowhere.json"), "nowhere.json"),
        (moved.replace("signing.pem", "nowhere.pem"), "nowhere.pem"),
        (moved.replace("[audit]", "[audit]\nsegment_size = \"1MiB\""), "cannot change [audit]"),
        (String::new(), "issuers"),
    ] {
        let reason = edited.save(&text).unwrap_or_else(|| panic!("taken: {told}"));
        assert!(reason.contains(told), "{told}: {reason}");
        assert_eq!((ask("/api/invoices"), ask("/later")), (200, 200), "{told}");
    }
    assert_eq!(rig.upstream.seen().len(), served, "the old upstream is not asked any more");

    // Back to where it was: the route is gone.
    assert_eq!(edited.save(&edited.first), None);
    assert_eq!((ask("/api/invoices"), ask("/later")), (200, 404));
    assert_eq!(rig.upstream.seen().len(), served + 1);
    assert_eq!(edited.loads(), [2, 6]);
}

#[test]
fn an_issuer_that_is_taken_out_is_believed_no_more_and_no_bucket_is_filled_again() {
    let setup = || Setup { limits: "tenant = \"3/h\"\nrefusal = 0\nunauthenticated = 0\n".into(), ..Setup::default() };
    let rig = Rig::with(setup());
    let edited = Edited::of(&rig);
    // One connection that stays open across all of it, and one token that is known by now.
    let token = rig.token();
    let mut connection = Connection::open(rig.public);
    let mut ask = |tenant: &str| {
        connection.write(&Request::get("/api/invoices").tenant(tenant).bearer(&token).bytes());
        connection.answer().status
    };
    assert_eq!([ask("t-full"), ask("t-full"), ask("t-full"), ask("t-full")], [200, 200, 200, 429]);
    assert_eq!(edited.save(&format!("# again\n{}", edited.first)), None);
    assert_eq!(ask("t-full"), 429, "what was used up stays used up");
    assert_eq!(edited.save(&edited.replaced("https://issuer.test", "https://another.test")), None);
    assert_eq!(ask("t-full"), 401);
    assert_eq!(edited.save(&edited.first), None);
    assert_eq!(ask("t-full"), 429);
}

#[test]
fn open_streams_live_through_a_reload_and_are_cut_all_the_same() {
    let rig = Rig::start();
    let edited = Edited::of(&rig);
    let open = |path: &str| {
        let mut connection = Connection::open(rig.public);
        connection.write(&Request::get(path).tenant("t-full").bearer(&rig.token()).bytes());
        assert_eq!(connection.head().status, 200);
        connection
    };
    let mut events = open("/t/sse");
    // Twice, so that nothing of the first configuration is left but the stream.
    for round in 0..2 {
        assert_eq!(edited.save(&format!("# {round}\n{}", edited.first)), None);
    }
    assert!(!events.read_some().is_empty());
    std::thread::sleep(Duration::from_millis(500));
    assert!(!events.read_some().is_empty(), "still flowing");
    let revoked = Instant::now();
    rig.revoke("t-full");
    while !events.read_some().is_empty() {
        assert!(revoked.elapsed() < Duration::from_secs(5), "the stream outlives its link");
    }
}

/// Reloads under load, upstreams moved each time: no request fails, none is answered by what was long replaced.
#[test]
fn reloads_under_load_fail_no_request() {
    let rig = Rig::start();
    let edited = Edited::of(&rig);
    let other = Upstream::start();
    let token = rig.token_with("user-1", HOME1, json!({"roles": ["partner_msp_full"]}));
    let (ended, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (rig, token, ended, asked) = (&rig, &token, &ended, &asked);
            scope.spawn(move || {
                let mut connection = Connection::open(rig.public);
                while !ended.load(Ordering::Relaxed) {
                    // Half of them keep their connection, half open another each time.
                    if client % 2 == 0 {
                        connection = Connection::open(rig.public);
                    }
                    let request = Request::new("POST", "/api/invoices").tenant("t-full").bearer(token).json("{}");
                    connection.write(&request.bytes());
                    let answer = connection.answer_to("POST");
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    asked.fetch_add(1, Ordering::Relaxed);
                    // Enough to have requests under way at any moment; more would only fill the upstream's memory.
                    std::thread::sleep(Duration::from_millis(3));
                }
            });
        }
        let before = rig.upstream.address.to_string();
        for round in 0..10 {
            let text = if round % 2 == 0 {
                edited.replaced(&before, &other.address.to_string())
            } else {
                edited.first.clone()
            };
            let so_far = asked.load(Ordering::Relaxed);
            assert!(edited.put(&text), "round {round}");
            until("requests go on", || asked.load(Ordering::Relaxed) > so_far + 8);
        }
        ended.store(true, Ordering::Relaxed);
    });
    let (one, two) = (rig.upstream.seen().len(), other.seen().len());
    assert!(one > 0 && two > 0);
    assert_eq!(one + two, asked.load(Ordering::Relaxed), "each once");
}
