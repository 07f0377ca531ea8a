//! What a tenant sees of a record, and of a record over several tenants.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{
    audit::{
        ChainId, Hash, Slice, Stamp,
        gather::{Gathering, Kept},
    },
    domain::PartnerId,
};

fn bases() -> Bases {
    Bases { partner: vec!["/api/v1/partner".into()], compatible: Vec::new(), tenant: "/api/v1/tenant".into() }
}

fn slice(tenant: &str, decision: Decision, reason: Option<&str>, status: &str) -> Slice {
    Slice {
        managed_tenant_id: tenant.into(),
        decision,
        reason: reason.map(Into::into),
        status: Some(status.into()),
        ..Slice::default()
    }
}

/// A consolidated request over two tenants, with everything in it that must stay private.
fn record(n: i64) -> Record {
    Record {
        id: DecisionId::generate(),
        time: Millis(n),
        kind: Kind::Access,
        user_id: Some("u".into()),
        username: Some("u@p".into()),
        partner_id: Some(PartnerId(uuid::Uuid::nil())),
        partner_name: Some("P".into()),
        partner_tenant_id: Some("secret-home".into()),
        session_id: Some("secret-session".into()),
        issuer: Some("secret-issuer".into()),
        action: Some("partner.support.tickets.update".into()),
        method: Some("PATCH".into()),
        path: Some("/api/v1/partner/support/tickets/theirs%2D1?token=secret".into()),
        resource_type: Some("tickets".into()),
        resource_id: Some("theirs-1".into()),
        managed_tenant_id: None,
        link_id: None,
        link_version: None,
        decision: Decision::Allow,
        reason: None,
        policies: vec!["secret-policy".into()],
        policy_version: Some("secret-version".into()),
        near_misses: vec![],
        status: Some(200),
        bytes: Some(1),
        duration_us: Some(1),
        upstream: Some("secret-upstream".into()),
        aborted: Some(false),
        request_id: Some("r".into()),
        trace_id: None,
        client_ip: None,
        user_agent: None,
        mfa: Some(true),
        slices: vec![
            slice("mine", Decision::Deny, Some("override"), "ok"),
            slice("theirs", Decision::Allow, None, "acted"),
        ],
        asked: Some(crate::audit::asked::Question { class: "secret-class".into(), ..Default::default() }),
        shadow: Some(crate::audit::asked::Shadow { version: "secret-shadow".into(), ..Default::default() }),
        waived: vec![crate::audit::asked::Other { reason: Some("secret-waived".into()), ..Default::default() }],
        before: None,
        after: None,
        chain_id: ChainId(uuid::Uuid::nil()),
        opening: Stamp { seq: 1, prev_hash: Hash::GENESIS, hash: Hash::GENESIS },
        completion: None,
    }
}

#[test]
fn a_shared_record_shows_the_own_part_only() {
    let mine = Entry::of(&bases(), record(1), "mine").unwrap();
    assert_eq!((mine.decision, mine.reason.as_deref()), (Decision::Deny, Some("override")));
    assert_eq!(mine.path.as_deref(), Some("/api/v1/partner/support/tickets/_?token=_"));
    let text = serde_json::to_string(&mine).unwrap();
    assert!(!text.contains("theirs") && !text.contains("secret"), "{text}");
    let theirs = Entry::of(&bases(), record(1), "theirs").unwrap();
    assert_eq!((theirs.decision, theirs.resource_id.as_deref()), (Decision::Allow, Some("theirs-1")));
    assert!(Entry::of(&bases(), record(1), "third").is_none());
}

#[test]
fn a_record_about_one_tenant_is_shown_as_it_is() {
    let mut one = record(1);
    one.slices.clear();
    one.managed_tenant_id = Some("mine".into());
    (one.decision, one.reason) = (Decision::Deny, Some("link_pending".into()));
    let shown = Entry::of(&bases(), one, "mine").unwrap();
    assert_eq!((shown.decision, shown.reason.as_deref()), (Decision::Deny, Some("link_pending")));
    assert_eq!(shown.resource_id.as_deref(), Some("theirs-1"));
    assert!(!shown.path.unwrap().contains("secret"));
}

#[test]
fn the_names_are_those_of_the_contract() {
    let value = serde_json::to_value(Entry::of(&bases(), record(1), "mine")).unwrap();
    let names: std::collections::BTreeSet<_> = value.as_object().unwrap().keys().cloned().collect();
    let wanted = "id, time, partner_id, partner_name, user_id, username, action, method, path, resource_type, \
         resource_id, decision, reason, status, request_id, client_ip, user_agent";
    assert_eq!(names, wanted.split(", ").map(str::to_owned).collect());
}

/// Newest first, as the index gives them; `walks` counts the questions.
struct Index {
    records: Vec<Record>,
    walks: AtomicUsize,
}

impl RecordSearch for Index {
    async fn search<T: Serialize + Send + 'static>(&self, search: &Search<T>) -> Result<Gathered<T>, IndexUnavailable> {
        self.walks.fetch_add(1, Ordering::Relaxed);
        let filter = &search.filter;
        let most = search.most_looked_at.unwrap_or(usize::MAX);
        let matching: Vec<&Record> = self.records.iter().filter(|record| filter.matches(record)).collect();
        let limit = filter.limit.unwrap();
        let kept = matching.iter().take(most).filter_map(|record| (search.keep)((*record).clone()));
        let items: Vec<T> = kept.skip(filter.offset).take(limit).collect();
        Ok(Gathered { cut: items.len() < limit && matching.len() > most, items })
    }
}

async fn ask(index: &Index, decision: Option<Decision>, offset: u64, limit: u64) -> Answer {
    let paging = Paging { limit, offset };
    let search = search(RecordFilter::default(), &bases(), decision, "mine", paging);
    page(index, &search, paging).await.unwrap()
}

#[tokio::test]
async fn a_refusal_of_another_tenants_slice_is_none_here() {
    // 1,200 records, newest first; every tenth refuses `mine`.
    let all = (0..1_200).rev().map(|n| {
        let mut one = record(n);
        if n % 10 != 0 {
            one.slices[0] = slice("mine", Decision::Allow, None, "ok");
            one.slices[1] = slice("theirs", Decision::Deny, None, "ok");
        }
        one
    });
    let index = Index { records: all.collect(), walks: AtomicUsize::new(0) };
    let found = ask(&index, Some(Decision::Deny), 50, 40).await;
    let told = (found.items[0].time.0, found.items.len(), found.total, found.total_exact, found.has_more);
    assert_eq!(told, (690, 40, 91, false, true));
    let found = ask(&index, Some(Decision::Deny), 100, 40).await;
    assert_eq!((found.items.len(), found.total, found.total_exact, found.has_more), (20, 120, true, false));
    assert_eq!(index.walks.load(Ordering::Relaxed), 2, "one walk for each answer");
    let found = ask(&index, None, 1_100, 10).await;
    assert_eq!((found.items[0].time.0, found.items.len(), found.has_more), (99, 10, true));
}

#[tokio::test]
async fn what_was_not_looked_through_is_told() {
    let records: Vec<Record> = (0..1_000).rev().map(record).collect();
    let index = Index { records, walks: AtomicUsize::new(0) };
    let paging = Paging { limit: 10, offset: 0 };
    let mut search = search(RecordFilter::default(), &bases(), Some(Decision::Allow), "mine", paging);
    assert_eq!(search.most_looked_at, Some(MOST_LOOKED_AT));
    search.most_looked_at = Some(500);
    let found = page(&index, &search, paging).await.unwrap();
    assert_eq!((found.items.len(), found.total, found.total_exact, found.has_more), (0, 0, false, false));
}

/// However many tenants a record is about, one of them holds no more of it than it is shown.
#[test]
fn a_tenant_holds_its_own_part_only() {
    let mut wide = record(1);
    wide.slices.extend((0..1_023).map(|n| slice(&format!("tenant-{n}"), Decision::Allow, Some("reason"), "ok")));
    let search = search(RecordFilter::default(), &bases(), None, "mine", Paging { limit: 50, offset: 1_400 });
    let mut gathering = Gathering::new(1_400, 51, search.most_bytes);
    let mut most = 0;
    for _ in 0..2 {
        let kept = (0..725).map(|_| Kept::of(wide.clone(), &search.keep).unwrap()).collect();
        gathering.add(kept).unwrap();
        most = most.max(gathering.bytes());
    }
    assert!(most < 1_450 * 2_000, "{most} bytes held");
    assert_eq!(gathering.finish().len(), 50);
}
