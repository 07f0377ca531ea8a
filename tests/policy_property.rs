//! Invariant I5: a decision equals what Cedar says for the same facts, and what section 4 says.
//!
//! Three answers to each generated case: (a) `decide` with its slices, native gates and memo, (b) Cedar alone over the
//! whole set, (c) an oracle written from the contract. Allow and deny are equal in all three, code and reason in (a)
//! and (c). `LINKGATE_POLICY_SEED` runs other cases; a failure prints the seed and the case.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

mod policy_support;

use std::collections::BTreeMap;

use linkgate::policy::{Bundle, Memo, decide, decide_in_full};
use policy_support::{Case, Extra, Folder, NO_EXTRA, Prepared, Rng, oracle, random_case, stands_for, told};

fn seed() -> u64 {
    std::env::var("LINKGATE_POLICY_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0x11_9a7e)
}

/// Runs `cases` over all cores; gives how often each word was told.
fn compare(bundle: &Bundle, extra: &Extra, cases: usize, seed: u64) -> BTreeMap<&'static str, usize> {
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let parts: Vec<_> = std::thread::scope(|scope| {
        let run = |part: usize| {
            scope.spawn(move || {
                let mut rng = Rng(seed.wrapping_add(0x1_0000_0000 * u64::try_from(part).unwrap()));
                // Small enough to evict, large enough to hit.
                let mut memo = Memo::new(2_000);
                let mut counts = BTreeMap::new();
                for at in 0..cases.div_ceil(threads) {
                    let case = random_case(&mut rng);
                    let word = check(bundle, extra, &mut memo, &case)
                        .unwrap_or_else(|error| panic!("seed {seed}, part {part}, case {at}: {error}\n{case:#?}"));
                    *counts.entry(word).or_insert(0) += 1;
                }
                let (hits, misses) = memo.hits_and_misses();
                counts.insert("memo hits", usize::try_from(hits).unwrap());
                counts.insert("memo misses", usize::try_from(misses).unwrap());
                counts
            })
        };
        let running: Vec<_> = (0..threads).map(run).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut total = BTreeMap::new();
    for (word, count) in parts.into_iter().flatten() {
        *total.entry(word).or_insert(0) += count;
    }
    println!("seed {seed}: {total:?}");
    total
}

fn check(bundle: &Bundle, extra: &Extra, memo: &mut Memo, case: &Case) -> Result<&'static str, String> {
    let prepared = Prepared::new(bundle, case);
    let facts = prepared.facts();
    let expected = oracle(case, extra);
    let fast = decide(bundle, Some(memo), &facts);
    if told(&fast) != expected {
        return Err(format!("decide says {fast:?}, section 4 says {expected:?}"));
    }
    let alone = decide_in_full(bundle, &facts).map_err(|refusal| format!("Cedar alone: {refusal:?}"))?;
    if alone != expected.is_none() {
        return Err(format!("Cedar alone says {alone}, section 4 says {expected:?}"));
    }
    Ok(match expected {
        None => "allowed",
        Some((code, "")) => code,
        Some((_, reason)) => reason,
    })
}

const EVERY_WORD: [&str; 12] = [
    "allowed",
    "no_link",
    "access_suspended",
    "partner_inactive",
    "link_pending",
    "link_inactive",
    "link_not_started",
    "TENANT_LINK_EXPIRED",
    "ip_not_allowed",
    "mfa_required",
    "permission",
    "override",
];

#[test]
fn i5_a_decision_equals_cedar_and_the_contract() {
    let bundle = Bundle::load(None).unwrap();
    let counts = compare(&bundle, &NO_EXTRA, 100_000, seed());
    for word in EVERY_WORD {
        assert!(counts.get(word).copied().unwrap_or(0) >= 300, "`{word}` is hardly tested: {counts:?}");
    }
    assert!(counts["allowed"] >= 10_000, "{counts:?}");
    assert!(counts["memo hits"] > counts["memo misses"], "{counts:?}");
}

/// Guardrails that read ip, mfa, now, method, principal and resource, and a permit.
const GUARDRAILS: &str = r#"
@id("exports-need-mfa")
forbid (principal, action in [Action::"billing.export", Action::"partner.reports.export"], resource)
unless { context.mfa };

@id("no-writes-from-ten")
forbid (principal, action in [Action::"billing.write", Action::"support.write"], resource)
when { context.ip.isInRange(ip("10.0.0.0/8")) };

@id("freeze")
forbid (principal, action in [Action::"provisioning"], resource)
when { context.now >= datetime("1970-01-01T00:00:01.050Z") && context.now < datetime("1970-01-01T00:00:01.080Z") };

@id("posts-are-for-writes")
forbid (principal, action in [Action::"support.read"], resource)
when { context.method == "POST" || context.route_class == "write" };

@id("one-person")
forbid (principal, action in [Action::"partner.alerts.*"], resource)
when { principal.issuer == "https://idp.example.net" && principal.sub == "user-4711" };

@id("suspended-tenant-is-read-only")
forbid (principal, action in [Action::"partner.billing.invoices.*"], resource is Link)
when { resource.tenant.status == "suspended" };

@id("short-links-only-list")
forbid (principal, action == Action::"partner.reports.usage.read", resource is Link)
when { resource has ends && resource.ends < datetime("1970-01-01T00:00:01.150Z") };

@id("full-users-only")
forbid (principal, action == Action::"partner.reports.sla.read", resource)
unless { Action::"partner.alerts.acknowledge" in principal.holds };

@id("resellers-may-comment")
permit (principal, action == Action::"partner.support.tickets.comment", resource is Link)
when { resource.role == Role::"reseller" };
"#;

const EXTRA: Extra = Extra {
    grants: |_, link, name| link.role == "reseller" && name == "partner.support.tickets.comment",
    forbids: |case, link, name| {
        let any = |keys: &[&str]| keys.iter().any(|key| stands_for(key, name));
        let starts = link.parents.iter().filter_map(|parent| parent.end).chain(link.end).min();
        let holds_acknowledge = {
            let asks = Case { permission: "partner.alerts.acknowledge", ..case.clone() };
            let open = Case { link: Some(policy_support::RawLink::live("msp_full")), now: 1_000, ..asks };
            oracle(&Case { user_suspended: false, switch_context: false, ..open }, &NO_EXTRA).is_none()
        };
        (any(&["billing.export", "partner.reports.export"]) && !case.mfa)
            || (any(&["billing.write", "support.write"])
                && (case.ip.starts_with("10.") || case.ip == "::ffff:10.0.0.1"))
            || (any(&["provisioning"]) && (1_050..1_080).contains(&case.now))
            || (any(&["support.read"]) && (case.method == "POST" || case.route_class == "write"))
            || (any(&["partner.alerts.*"]) && case.sub == "user-4711" && case.issuer == "https://idp.example.net")
            || (any(&["partner.billing.invoices.*"]) && link.status == "suspended")
            || (name == "partner.reports.usage.read" && starts.is_some_and(|end| end < 1_150))
            || (name == "partner.reports.sla.read" && !holds_acknowledge)
    },
};

#[test]
fn i5_holds_with_hand_written_policies() {
    let bundle = Folder::new(GUARDRAILS).load();
    assert_eq!(bundle.warnings().len(), 1, "{:?}", bundle.warnings());
    let counts = compare(&bundle, &EXTRA, 20_000, seed() ^ 0xabcd);
    assert!(counts["guardrail"] >= 300, "{counts:?}");
    assert!(counts["allowed"] >= 1_000, "{counts:?}");
}
