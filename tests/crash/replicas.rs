//! Three replicas under load while one is killed, Postgres and Redis go and come back, links are revoked and granted again
//! and a policy changes: nothing is wrongly allowed, no record is lost, and all recovers without a hand.
//!
//! What must be allowed is known from a time line of every link: a request that was sent when a change was acknowledged
//! longer ago than the bound, and answered before the next change began, has one right answer, however slow the machine is.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use linkgate::domain::{LinkId, Millis};

use crate::{
    client::{Connection, Request},
    exports::random,
    gateway::{Gateway, House, eventually},
    ledger::Ledger,
    load::{Due, Load, Mix, Told, reconcile},
    three::{BOUND, LIMIT, PAUSE, Three, stop},
};

/// Tenants whose links come and go, and one whose link goes while Postgres is away.
const TOGGLED: [&str; 3] = ["t-toggled-0", "t-toggled-1", "t-toggled-2"];
const CUT: &str = "t-cut";
/// Limited: under load all the time; for the replicas in turn; while Redis is away.
const BUSY: &str = "t-busy";
const SHARED: &str = "t-shared";
const AWAY: &str = "t-away";

/// The request that is under way when its replica dies.
const IN_THE_MIDDLE: &str = "in-the-middle";

/// Places in the mix. The toggled ones come after them, then those whose answer never changes.
const GUARDED: usize = 0;
const LIMITED: usize = 1;
const CUT_OFF: usize = 2;
const FIRST_TOGGLED: usize = 3;
const CONSTANT: usize = FIRST_TOGGLED + TOGGLED.len();

fn mix(house: &House) -> Mix {
    let (one, two) = (house.token1(), house.token2());
    let get = |tenant: &str| Request::get("/api/invoices").tenant(tenant).bearer(&one);
    let mut shapes = vec![
        (Request::new("PUT", "/t/echo").tenant("t-full").bearer(&one), Due::Allowed),
        (get(BUSY), Due::Allowed),
        (get(CUT), Due::Allowed),
    ];
    shapes.extend(TOGGLED.map(|tenant| (get(tenant), Due::Allowed)));
    shapes.extend([
        (get("t-full"), Due::Allowed),
        (get("t-unlinked"), Due::Refused),
        (Request::get("/t/slow/15").tenant("t-full").bearer(&one), Due::Allowed),
        (Request::new("POST", "/api/invoices").tenant("t-auditor").bearer(&one).json("{}"), Due::Refused),
        (Request::get("/own").bearer(&one), Due::Allowed),
        (get("t-other"), Due::Refused),
        (Request::get("/api/invoices").tenant("t-other").bearer(&two), Due::Allowed),
        (Request::get("/api/invoices").tenant("t-full").bearer("forged"), Due::Unrecorded),
        (Request::new("POST", "/api/invoices").tenant("t-full").bearer(&one).json("{}"), Due::Allowed),
    ]);
    Mix::new(shapes, PAUSE)
}

/// A change of one link.
#[derive(Clone, Copy, Debug)]
struct Event {
    granted: bool,
    began: Instant,
    acknowledged: Instant,
}

impl Event {
    fn of(granted: bool, change: impl FnOnce()) -> Self {
        let began = Instant::now();
        change();
        Self { granted, began, acknowledged: Instant::now() }
    }
}

/// Revokes and grants until stopped, each for a while that is often longer than the bound; granted at the end.
fn toggle(house: &House, tenant: &str, link: LinkId, over: &AtomicBool) -> Vec<Event> {
    let mut events = Vec::new();
    while !over.load(Ordering::SeqCst) {
        events.push(Event::of(false, || house.revoke(link)));
        thread::sleep(Duration::from_secs_f64(2.5 * random()));
        events.push(Event::of(true, || {
            house.grant(tenant);
        }));
        thread::sleep(Duration::from_secs_f64(2.0 * random()));
    }
    events
}

/// Requests with one right answer, by what it was.
#[derive(Debug, Default)]
struct Judged {
    allowed: usize,
    refused: usize,
    stale: usize,
    /// The longest after an acknowledged revocation that a request was sent which was still allowed.
    longest: Duration,
}

/// Holds all answers about one link against its time line.
fn judge(told: &[Told], shape: usize, events: &[Event], judged: &mut Judged) {
    for one in told.iter().filter(|one| one.shape == shape && one.status != 0) {
        // What is in force: the last change that was acknowledged before it was sent.
        let Some(at) = events.iter().rposition(|event| event.acknowledged <= one.sent) else { continue };
        let (event, next) = (events[at], events.get(at + 1));
        if next.is_some_and(|next| next.began <= one.answered) {
            continue;
        }
        let since = one.sent - event.acknowledged;
        if one.status == 200 && !event.granted {
            judged.longest = judged.longest.max(since);
        }
        if since <= BOUND {
            continue;
        }
        match (one.status, &*one.code) {
            (503, "LINKS_STALE") => judged.stale += 1,
            (200, _) if event.granted => judged.allowed += 1,
            (403, _) if !event.granted => judged.refused += 1,
            _ => panic!("{since:?} after {event:?} was acknowledged: {one:?}"),
        }
    }
}

/// What was due to a request about a link or a policy that changed, by how its record says that it began.
fn settle(one: &mut Told, union: &Ledger) {
    let began = union.records.get(&one.decision_id).map(|entry| &*entry.decision);
    let cut = one.status != 200
        && union.records.get(&one.decision_id).and_then(|entry| entry.completion.as_ref()).is_some_and(|completion| {
            !completion.reason.is_empty() && completion.status == Some(u64::from(one.status))
        });
    let allowed = one.status == 200 || one.code == "LINKS_STALE" || (cut && began == Some("allow"));
    one.due = if allowed { Due::Allowed } else { Due::Refused };
}

/// Goes on until there are so many answers more, of each replica.
fn go_on(load: &[Load], more: usize) {
    load.iter().for_each(|load| load.until(load.answers.load(Ordering::SeqCst) + more));
}

#[test]
fn nothing_is_wrongly_allowed_and_nothing_lost_whatever_goes_away() {
    let mut three = Three::on_their_own(&[BUSY, SHARED, AWAY]);
    let links = TOGGLED.map(|tenant| three.house.add_tenant(tenant));
    let cut_link = three.house.add_tenant(CUT);
    let load = three.load(&mix(&three.house));
    // All was granted before the first request that is judged.
    let start = Event::of(true, || ());
    go_on(&load, 30);

    let over = Arc::new(AtomicBool::new(false));
    let toggling: Vec<_> = TOGGLED
        .into_iter()
        .zip(links)
        .map(|(tenant, link)| {
            let (house, over) = (Arc::clone(&three.house), Arc::clone(&over));
            thread::spawn(move || toggle(&house, tenant, link, &over))
        })
        .collect();

    // One bucket for all of them: what one replica used up, the others soon refuse.
    assert!((LIMIT..=LIMIT + 1).contains(&three.take(0, SHARED, LIMIT + 5)));
    for number in [1, 2] {
        assert!(until_limited(&three, number) < LIMIT / 2, "replica {number} does not know of the others");
    }

    let no_put = Event::of(false, || {
        three.forbid_put();
        three.all_answer("the new policy is in force", &put(), "FORBIDDEN/guardrail");
    });

    let mut open = Connection::open(three.gateways[1].public);
    let slow = Request::get("/t/slow/2000").tenant("t-full").bearer(&three.house.token1());
    open.write(&slow.header("X-Request-ID", IN_THE_MIDDLE).bytes());
    let has_it = || three.house.upstream.seen().iter().any(|seen| seen.one("x-request-id") == IN_THE_MIDDLE);
    eventually("the upstream is at work", has_it);
    three.kill_and_start(1);
    three.recovered();
    go_on(&load, 30);
    assert!(until_limited(&three, 1) < LIMIT / 2, "what it forgot, Redis knows");
    three.all_answer("the one that was started again knows the policy", &put(), "FORBIDDEN/guardrail");

    three.redis.down();
    three.are_shared(false);
    for number in 0..3 {
        let allowed = three.take(number, AWAY, LIMIT + 5);
        assert!((LIMIT..=LIMIT + 1).contains(&allowed), "each counts for itself: {allowed}");
    }
    eventually("an alarm and no outage", || three.gateways.iter().all(|gateway| gateway.ready().0 == 200));
    three.all_answer("requests go on", &Request::get("/api/invoices").tenant("t-full"), "");
    three.redis.up();
    three.recovered();

    // Postgres goes, and with it the way by which replicas would hear of a revocation.
    three.relay.away(true);
    let cut = Event::of(false, || three.house.revoke(cut_link));
    three.all_answer("links are stale", &Request::get("/api/invoices").tenant("t-full"), "LINKS_STALE");
    assert!(three.answers(&Request::get("/own")).iter().all(String::is_empty), "home goes on");
    let not_ready = |gateway: &Gateway| gateway.ready().1.iter().any(|(name, _)| name == "database");
    assert!(three.gateways.iter().all(not_ready));
    go_on(&load, 60);
    three.relay.away(false);
    three.recovered();
    let cut_off = Request::get("/api/invoices").tenant(CUT);
    eventually("all know what was revoked meanwhile", || {
        let told = three.answers(&cut_off);
        assert!(!told.iter().any(String::is_empty), "allowed by links that are fresh");
        told.iter().all(|told| told.starts_with("TENANT_ACCESS_DENIED"))
    });

    // As by a restart that is over before anybody asks.
    assert!(three.relay.break_all() >= 3, "each had a connection at least");
    three.recovered();
    go_on(&load, 60);

    over.store(true, Ordering::SeqCst);
    let toggled: Vec<_> = toggling.into_iter().map(|thread| thread.join().unwrap()).collect();
    go_on(&load, 30);
    three.recovered();
    // Restarted in earnest, while requests come.
    three.postgres.as_ref().unwrap().restart();
    three.recovered();
    go_on(&load, 30);
    let used_up: usize = (0..3).map(|number| three.take(number, BUSY, LIMIT + 5)).sum();
    let told = stop(load);
    three.recovered();

    let mut judged = Judged::default();
    judge(&told, GUARDED, &[start, no_put], &mut judged);
    judge(&told, CUT_OFF, &[start, cut], &mut judged);
    for (at, events) in toggled.iter().enumerate() {
        judge(&told, FIRST_TOGGLED + at, &[&[start], events.as_slice()].concat(), &mut judged);
    }
    eprintln!("{} requests; with one right answer: {judged:?}", told.len());
    assert!(judged.allowed > 20 && judged.refused > 20 && judged.stale > 5, "{judged:?}");
    // Four processes counted: three replicas, and the one that was started again and had to learn.
    let busy = told.iter().filter(|one| one.shape == LIMITED && one.status == 200).count();
    assert!((LIMIT..=4 * (LIMIT + 2)).contains(&(busy + used_up)), "{busy} {used_up}");
    everything_is_recorded_once(&three, told);
}

fn put() -> Request {
    Request::new("PUT", "/t/echo").tenant("t-full")
}

/// How many the replica lets through before it knows what the others did.
fn until_limited(three: &Three, number: usize) -> usize {
    let mut allowed = 0;
    eventually("the limit holds", || {
        let one = three.take(number, SHARED, 1);
        allowed += one;
        // Many rounds of the exchange.
        thread::sleep(Duration::from_millis(200 * one as u64));
        one == 0
    });
    allowed
}

/// Every answer has one record in all three journals, the index has the same, and so it is with changes.
fn everything_is_recorded_once(three: &Three, mut told: Vec<Told>) {
    let changes = three.changes();
    let ledgers = three.ledgers();
    let union = Ledger::union(&ledgers);
    for one in told.iter_mut().filter(|one| one.shape < CONSTANT) {
        settle(one, &union);
    }
    reconcile(&three.house, &union, &told, 0);
    let [(_, cut)] = &*union.by_request(IN_THE_MIDDLE) else { panic!("one record") };
    assert_eq!(cut.completion.as_ref().unwrap().reason, "process_ended");
    assert!(union.recoveries > 0);
    let chained: HashSet<_> = union.changes.iter().collect();
    assert!(changes.iter().all(|id| chained.contains(id)), "a change is in no journal");
    for ledger in &ledgers {
        assert_eq!(ledger.verify(&three.house).open_records, 0);
        ledger.agrees_with_index(&three.house, Millis(0), 0);
    }
    let chains: Vec<_> = ledgers.iter().map(Ledger::chain).collect();
    let indexed = three.house.indexed_since(Millis(0));
    assert!(indexed.iter().all(|record| chains.contains(&record.chain_id)));
}
