//! What a tenant sees of a record, and of a record over several tenants.

use super::*;
use crate::{
    audit::{ChainId, Hash, IndexUnavailable, Slice, Stamp},
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

/// Newest first, as the index gives them.
struct Index(Vec<Record>);

impl RecordSource for Index {
    async fn query(&self, filter: &RecordFilter) -> Result<Vec<Record>, IndexUnavailable> {
        let found = self.0.iter().filter(|record| filter.matches(record)).skip(filter.offset);
        Ok(found.take(filter.limit.unwrap()).cloned().collect())
    }
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
    let index = Index(all.collect());
    let filter = RecordFilter { managed_tenant_id: Some("mine".into()), ..RecordFilter::default() };
    let (found, whole) = entries(&index, &bases(), filter.clone(), Some(Decision::Deny), "mine", 50, 40).await.unwrap();
    let times: Vec<i64> = found.iter().map(|entry| entry.time.0).collect();
    assert_eq!((times.first(), times.len(), whole), (Some(&690), 41, false), "one more than asked for");
    let (found, whole) =
        entries(&index, &bases(), filter.clone(), Some(Decision::Deny), "mine", 100, 40).await.unwrap();
    assert_eq!((found.len(), whole), (20, true));
    let (found, _) = entries(&index, &bases(), filter, None, "mine", 1_100, 10).await.unwrap();
    assert_eq!((found.first().unwrap().time.0, found.len()), (99, 11));
}
