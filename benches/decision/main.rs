//! What one decision costs in process: a warm memo, a memo that misses, Cedar every time, and loading the set.
//!
//! `cargo bench --bench decision` prints criterion's figures and then, from a small harness of its own, the percentiles
//! of single calls (criterion has none), each with the cost of reading the clock taken off. The links are picked at
//! random from many, so that the figures hold for links that are not in the processor's cache. "With a shadow set" is the
//! warm decision and what shadow mode adds to it: the same question to a second set with a memo of its own. Last comes the
//! decision with a database of up to 1,000,000 links behind it (`loaded`; `-- loaded` runs that alone).

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a bench may stop")]

mod loaded;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::Criterion;
use linkgate::{
    domain::{
        Approval, Facts, Link, LinkFacts, LinkId, LinkRole, LinkVersion, Millis, PartnerId, Permission, PermissionSet,
        TenantId, UserFacts,
    },
    policy::{Bundle, Memo, Outcome, Verdict, decide, judge},
};

const NOW: Millis = Millis(1_790_000_000_000);

fn user() -> UserFacts {
    UserFacts {
        issuer: "https://idp.example.net".into(),
        sub: "019a0000-0000-7000-8000-0000000000aa".into(),
        partner_id: PartnerId(uuid::Uuid::from_u128(7)),
        holds: PermissionSet::ALL,
        suspended: false,
    }
}

fn links(count: u128) -> Vec<LinkFacts> {
    let roles = LinkRole::ALL;
    (0..count)
        .map(|at| LinkFacts {
            link: Link {
                id: LinkId(uuid::Uuid::from_u128(at)),
                partner_id: PartnerId(uuid::Uuid::from_u128(7)),
                tenant_id: TenantId::new(&format!("tenant-{at}")).unwrap(),
                role: roles[usize::try_from(at).unwrap() % roles.len()],
                granted: PermissionSet::from_claim("partner.billing.*"),
                denied: PermissionSet::from_claim("partner.reports.export"),
                approval: Approval::Approved,
                is_active: true,
                start: Millis(0),
                end: Some(Millis(1_900_000_000_000)),
                allowed_cidrs: ["192.0.2.0/24".parse().unwrap()].into(),
                require_mfa: true,
                version: LinkVersion(1),
            },
            partner_active: true,
            suspended: false,
            tenant_status: "active".into(),
            ancestors: Box::default(),
        })
        .collect()
}

fn facts<'a>(user: &'a UserFacts, link: &'a LinkFacts, switch_context: bool) -> Facts<'a> {
    Facts {
        user,
        link: Some(link),
        permission: Permission::parse("partner.billing.invoices.read").unwrap(),
        switch_context,
        now: NOW,
        ip: [192, 0, 2, 1].into(),
        mfa: true,
        method: "GET",
        route_class: "read",
    }
}

/// The shipped set with a guardrail that puts everything into the key: the dearest look-up.
fn guarded() -> Bundle {
    let dir = tempfile::tempdir().unwrap();
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    for name in ["schema.cedarschema", "roles.toml"] {
        std::fs::copy(shipped.join(name), dir.path().join(name)).unwrap();
    }
    std::fs::create_dir(dir.path().join("guardrails")).unwrap();
    let text = "@id(\"everything\") forbid (principal, action, resource is Link) when { principal.sub == \"nobody\" && \
                resource.tenant.status == \"x\" && context.ip.isLoopback() && context.mfa && context.method == \"PUT\" };";
    std::fs::write(dir.path().join("guardrails/all.cedar"), text).unwrap();
    Bundle::load(Some(dir.path())).unwrap()
}

/// A set in force and one that is only asked, as a worker asks both about each request.
struct Both<'a> {
    live: (&'a Bundle, Memo),
    shadow: (&'a Bundle, Memo),
}

impl<'a> Both<'a> {
    fn new(live: &'a Bundle, shadow: &'a Bundle) -> Self {
        Self { live: (live, Memo::new(10_000)), shadow: (shadow, Memo::new(10_000)) }
    }

    fn ask(&mut self, facts: &Facts<'_>) -> (Outcome, Verdict, String) {
        let (bundle, memo) = &mut self.live;
        let outcome = decide(bundle, Some(memo), facts);
        let (bundle, memo) = &mut self.shadow;
        // Its own role table says what the token grants, and the record names its version.
        let holds = bundle.roles().holds(["partner_msp_full"], std::iter::empty());
        let user = UserFacts { holds, ..facts.user.clone() };
        let verdict = judge(bundle, Some(memo), &Facts { user: &user, ..*facts });
        (outcome, verdict, bundle.version().to_owned())
    }
}

/// A cheap sequence of indices that jumps about.
fn next(at: &mut usize, count: usize) -> usize {
    *at = (*at).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*at >> 33) % count
}

fn criterion_figures(criterion: &mut Criterion) {
    let bundle = Bundle::load(None).unwrap();
    let guarded = guarded();
    let user = user();
    let many = links(10_000);
    let mut at = 1;

    let mut memo = Memo::new(10_000);
    criterion.bench_function("warm memo", |bencher| {
        bencher.iter(|| decide(&bundle, Some(&mut memo), black_box(&facts(&user, &many[next(&mut at, 10_000)], true))));
    });
    let mut both = Both::new(&bundle, &guarded);
    criterion.bench_function("warm memo, with a shadow set", |bencher| {
        bencher.iter(|| both.ask(black_box(&facts(&user, &many[next(&mut at, 1_000)], true))));
    });
    let mut memo = Memo::new(100_000);
    criterion.bench_function("warm memo, a guardrail reads everything", |bencher| {
        bencher.iter(|| decide(&guarded, Some(&mut memo), black_box(&facts(&user, &many[next(&mut at, 1_000)], true))));
    });
    criterion.bench_function("memo miss", |bencher| {
        bencher.iter_batched_ref(
            || Memo::new(16),
            |memo| decide(&bundle, Some(memo), black_box(&facts(&user, &many[next(&mut at, 10_000)], false))),
            criterion::BatchSize::SmallInput,
        );
    });
    criterion.bench_function("Cedar, one action", |bencher| {
        bencher.iter(|| decide(&bundle, None, black_box(&facts(&user, &many[next(&mut at, 10_000)], false))));
    });
    criterion.bench_function("Cedar, route and switch_context", |bencher| {
        bencher.iter(|| decide(&bundle, None, black_box(&facts(&user, &many[next(&mut at, 10_000)], true))));
    });
    criterion.bench_function("load the shipped set", |bencher| bencher.iter(|| Bundle::load(None).unwrap()));
}

/// Percentiles of single calls.
fn percentiles(name: &str, rounds: usize, mut call: impl FnMut()) {
    let clock = sample(rounds, &mut || {})[rounds / 2];
    let times = sample(rounds, &mut call);
    let show = |share: usize| times[rounds * share / 1_000].saturating_sub(clock).as_nanos();
    println!("{name:44} p50 {:>8} ns   p99 {:>8} ns   p99.9 {:>8} ns", show(500), show(990), show(999));
}

fn sample(rounds: usize, call: &mut dyn FnMut()) -> Vec<Duration> {
    let mut times: Vec<_> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            call();
            start.elapsed()
        })
        .collect();
    times.sort();
    times
}

fn percentile_figures(rounds: usize) {
    let bundle = Bundle::load(None).unwrap();
    let guarded = guarded();
    let user = user();
    let mut at = 1;
    for count in [1_000, 100_000] {
        let many = links(count);
        let count = many.len();
        let mut memo = Memo::new(10_000);
        percentiles(&format!("warm memo, {count} links"), rounds, || {
            black_box(decide(&bundle, Some(&mut memo), &facts(&user, &many[next(&mut at, count)], true)));
        });
    }
    let many = links(1_000);
    let mut memo = Memo::new(10_000);
    percentiles("warm memo, a guardrail reads everything", rounds, || {
        black_box(decide(&guarded, Some(&mut memo), &facts(&user, &many[next(&mut at, 1_000)], true)));
    });
    let mut both = Both::new(&bundle, &guarded);
    percentiles("warm memo, with a shadow set", rounds, || {
        black_box(both.ask(&facts(&user, &many[next(&mut at, 1_000)], true)));
    });
    percentiles("Cedar, one action", rounds / 20, || {
        black_box(decide(&bundle, None, &facts(&user, &many[next(&mut at, 1_000)], false)));
    });
    percentiles("Cedar, route and switch_context", rounds / 20, || {
        black_box(decide(&bundle, None, &facts(&user, &many[next(&mut at, 1_000)], true)));
    });
}

fn main() {
    let full = std::env::args().any(|argument| argument == "--bench");
    if std::env::args().any(|argument| argument == "loaded") {
        return loaded::figures(full);
    }
    let mut criterion = Criterion::default().configure_from_args();
    criterion_figures(&mut criterion);
    criterion.final_summary();
    // `cargo test --benches` only wants to know that it runs.
    percentile_figures(if full { 200_000 } else { 200 });
    loaded::figures(full);
}
