//! What was asked, written and read back.

use super::*;
use crate::domain::Permission;

fn usual() -> LinkFacts {
    LinkFacts {
        link: Link {
            id: LinkId(uuid::Uuid::from_u128(1)),
            partner_id: PartnerId(uuid::Uuid::from_u128(2)),
            tenant_id: TenantId::new("t-1").unwrap(),
            role: LinkRole::MspFull,
            granted: PermissionSet::EMPTY,
            denied: PermissionSet::EMPTY,
            approval: Approval::Approved,
            is_active: true,
            start: Millis(1_700_000_000_123),
            end: None,
            allowed_cidrs: Box::default(),
            require_mfa: false,
            version: LinkVersion(3),
        },
        partner_active: true,
        suspended: false,
        tenant_status: "active".into(),
        ancestors: Box::default(),
    }
}

fn written(facts: &LinkFacts) -> String {
    let mut out = Vec::new();
    write_link(&mut out, facts);
    String::from_utf8(out).unwrap()
}

fn read_back(facts: &LinkFacts) -> LinkFacts {
    let read: RecordedLink = serde_json::from_str(&written(facts)).unwrap();
    let link = &facts.link;
    read.facts(link.id, link.version, link.partner_id, link.tenant_id.clone())
}

#[test]
fn a_usual_link_is_short_and_says_nothing_usual() {
    assert_eq!(written(&usual()), r#"{"role":"msp_full","start_ms":1700000000123}"#);
    assert_eq!(read_back(&usual()), usual());
}

#[test]
fn every_fact_that_a_decision_reads_comes_back() {
    let mut facts = usual();
    let invoices = Permission::parse("partner.billing.invoices.read").unwrap();
    facts.link = Link {
        role: LinkRole::Delegate,
        granted: PermissionSet::ALL,
        denied: PermissionSet::of(invoices),
        approval: Approval::Rejected,
        is_active: false,
        start: Millis(-5),
        end: Some(Millis(i64::MAX)),
        allowed_cidrs: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()].into(),
        require_mfa: true,
        ..facts.link
    };
    facts.partner_active = false;
    facts.suspended = true;
    facts.tenant_status = "sus\"pended".into();
    let parent = Link {
        id: LinkId(uuid::Uuid::from_u128(9)),
        partner_id: PartnerId(uuid::Uuid::from_u128(8)),
        version: LinkVersion(7),
        denied: PermissionSet::of(Permission::SWITCH_CONTEXT),
        ..usual().link
    };
    let other = Ancestor { link: usual().link, partner_active: true, suspended: false };
    facts.ancestors = [Ancestor { link: parent, partner_active: false, suspended: true }, other].into();
    assert_eq!(read_back(&facts), facts);
    let shown = serde_json::to_value(RecordedLink::from(Arc::new(facts.clone()))).unwrap();
    assert_eq!(shown, serde_json::from_str::<serde_json::Value>(&written(&facts)).unwrap());
}

#[test]
fn what_this_build_does_not_know_is_not_guessed() {
    for bad in [
        r#"{"role":"msp_full","start_ms":0,"denied":["partner.new.thing"]}"#,
        r#"{"role":"msp_full","start_ms":0,"new_gate":true}"#,
        r#"{"role":"msp_new","start_ms":0}"#,
    ] {
        assert!(serde_json::from_str::<RecordedLink>(bad).is_err(), "{bad}");
    }
}

#[test]
fn holds_are_the_names_that_may_grant_and_are_bounded() {
    let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<Vec<Arc<str>>>();
    let holds = Holds::of(&names(&["partner_auditor", "ad\"min"]), &names(&["partner.billing.*", "other.read"]));
    let claims: Claims = serde_json::from_str(holds.0.as_deref().unwrap()).unwrap();
    assert_eq!(claims.roles, ["partner_auditor", "ad\"min"]);
    assert_eq!(claims.permissions, ["partner.billing.*"]);
    assert_eq!(Holds::of(&names(&[&"x".repeat(9_000)]), &[]), Holds(None));
}
