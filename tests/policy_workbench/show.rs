//! What a link amounts to: its own Cedar text decides as the set does, and the table's `yes` and `no` are true.

use linkgate::{
    domain::{Millis, PermissionSet},
    policy::{Answer, Bundle, concrete, decide, decide_by_text, decide_in_full, effective, plain_link, role_text},
};

use crate::policy_support::{Case, Folder, LINK_ROLES, Prepared, RawLink, Rng, random_case};

/// Rules that read everything there is to read.
const GUARDRAILS: &str = r#"
@id("exports-need-mfa")
forbid (principal, action in [Action::"billing.export", Action::"partner.reports.export"], resource)
unless { context.mfa };

@id("freeze")
forbid (principal, action in [Action::"provisioning"], resource)
when { context.now >= datetime("1970-01-01T00:00:01.050Z") && context.now < datetime("1970-01-01T00:00:01.080Z") };

@id("suspended-tenant-is-read-only")
forbid (principal, action in [Action::"partner.billing.invoices.*"], resource is Link)
when { resource.tenant.status == "suspended" };

@id("not-that-tenant")
forbid (principal, action in [Action::"support.read"], resource in Tenant::"Ünïcode \"quoted\"");

@id("short-links-only-list")
forbid (principal, action == Action::"partner.reports.usage.read", resource is Link)
when { resource has ends && resource.ends < datetime("1970-01-01T00:00:01.150Z") };

@id("no-posts-by-auditors")
forbid (principal, action, resource is Link)
when { resource.role == Role::"auditor" && context.method == "POST" };

@id("resellers-may-comment")
permit (principal, action == Action::"partner.support.tickets.comment", resource is Link)
when { resource.role == Role::"reseller" };

@id("support-may-assign-with-mfa")
permit (principal, action == Action::"partner.provisioning.plans.assign", resource is Link)
when { resource.role == Role::"msp_support" && context.mfa };
"#;

fn seed() -> u64 {
    std::env::var("LINKGATE_POLICY_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0x5_0e)
}

#[test]
fn the_text_of_one_link_decides_as_the_set_does() {
    for (bundle, cases) in [(Bundle::load(None).unwrap(), 900), (Folder::new(GUARDRAILS).load(), 1_200)] {
        let mut rng = Rng(seed());
        let (mut allowed, mut denied) = (0, 0);
        for at in 0..cases {
            let case = random_case(&mut rng);
            let prepared = Prepared::new(&bundle, &case);
            let Some(link) = &prepared.link else { continue };
            let text = concrete(&bundle, link);
            let facts = prepared.facts();
            let by_text = decide_by_text(&bundle, &text, &facts);
            assert_eq!(by_text, decide_in_full(&bundle, &facts), "seed {}, case {at}: {case:#?}\n{text}", seed());
            if by_text == Ok(true) { allowed += 1 } else { denied += 1 }
        }
        assert!(allowed > 100 && denied > 100, "{allowed} allowed, {denied} denied");
    }
}

#[test]
fn what_the_table_says_is_so() {
    for bundle in [Bundle::load(None).unwrap(), Folder::new(GUARDRAILS).load()] {
        let mut rng = Rng(seed() ^ 0xeffe);
        let mut counts = [0usize; 3];
        for at in 0..150 {
            let mut case = random_case(&mut rng);
            (case.roles, case.permissions) = (Vec::new(), vec!["partner.*"]);
            (case.user_suspended, case.switch_context) = (false, false);
            if let Some(link) = &mut case.link {
                link.own_partner = true;
            }
            let prepared = Prepared::new(&bundle, &case);
            let Some(link) = &prepared.link else { continue };
            assert_eq!(prepared.user.holds, PermissionSet::ALL);
            for row in effective(&bundle, link, Millis(case.now)) {
                counts[row.answer as usize] += 1;
                for _ in 0..3 {
                    // Everything of the request that the table leaves open.
                    let other = random_case(&mut rng);
                    let asked = Case {
                        permission: row.permission.name(),
                        ip: other.ip,
                        mfa: other.mfa,
                        method: other.method,
                        route_class: other.route_class,
                        ..case.clone()
                    };
                    let prepared = Prepared::new(&bundle, &asked);
                    let allowed = decide(&bundle, None, &prepared.facts()).verdict.is_ok();
                    let true_to_it = match row.answer {
                        Answer::Yes => allowed,
                        Answer::No => !allowed,
                        Answer::Depends => true,
                    };
                    assert!(true_to_it, "seed {}, case {at}: {row:?} and allowed={allowed}: {asked:#?}", seed());
                }
            }
        }
        assert!(counts.iter().all(|count| *count > 100), "each answer is met: {counts:?}");
    }
}

/// A link with everything that a text can hold.
fn full_link() -> RawLink {
    let mut link = RawLink::live("delegate").with("partner.billing.*", true).with("billing.write", false);
    (link.id, link.require_mfa, link.start, link.end) = (17, true, 1_780_000_000_000, Some(1_790_000_000_000));
    link.cidrs = vec!["192.0.2.0/24", "2001:db8::/32"];
    let mut parent = RawLink::live("msp_billing");
    (parent.id, parent.cidrs) = (18, vec!["10.0.0.0/8"]);
    link.parents = vec![parent];
    link
}

#[test]
fn the_text_and_the_table_of_a_link() {
    let bundle = Folder::new(GUARDRAILS).load();
    let case = Case::open(full_link(), "partner.billing.read");
    let prepared = Prepared::new(&bundle, &case);
    let link = prepared.link.as_ref().unwrap();
    let rows = effective(&bundle, link, Millis(1_785_000_000_000));
    let table: Vec<_> = rows
        .iter()
        .map(|row| format!("{:42} {:?} {:?} {:?} {:?}", row.permission, row.answer, row.gate, row.on, row.rules))
        .collect();
    let text = concrete(&bundle, link);
    // The places of hand-written rules name a folder of this run.
    let text: Vec<_> = text.lines().filter(|line| !line.starts_with("// /")).collect();
    insta::assert_snapshot!(format!("{}\n\n{}", text.join("\n"), table.join("\n")));
}

#[test]
fn a_link_that_is_not_live_permits_nothing_and_says_why() {
    let bundle = Bundle::load(None).unwrap();
    for (change, id, gate) in [
        ((|link| link.is_active = false) as fn(&mut RawLink), "link.inactive", "active"),
        (|link| link.approval = "pending", "link.approval", "approval"),
        (|link| link.suspended = true, "link.suspended", "suspension"),
        (|link| link.partner_active = false, "link.partner-inactive", "partner"),
    ] {
        let mut link = RawLink::live("msp_full");
        change(&mut link);
        let prepared = Prepared::new(&bundle, &Case::open(link, "partner.billing.read"));
        let link = prepared.link.as_ref().unwrap();
        assert!(concrete(&bundle, link).contains(&format!("@id(\"{id}\")\nforbid")), "{id}");
        assert!(effective(&bundle, link, Millis(1_000)).iter().all(|row| row.gate == Some(gate)));
    }
    let prepared = Prepared::new(&bundle, &Case::open(RawLink::live("msp_full"), "partner.billing.read"));
    let live = prepared.link.as_ref().unwrap();
    assert!(effective(&bundle, live, Millis(1_000)).iter().all(|row| row.answer == Answer::Yes));
    assert!(!concrete(&bundle, live).contains("inactive"));
}

#[test]
fn a_roles_text_holds_its_own_permits_and_the_rules_that_concern_it() {
    let bundle = Folder::new(GUARDRAILS).load();
    for role in LINK_ROLES {
        let role: linkgate::domain::LinkRole = role.parse().unwrap();
        let text = role_text(&bundle, role);
        let has = |id: &str| text.contains(&format!("@id(\"{id}\")"));
        assert!(
            has(&format!("linkgate.role.{role}")) && has("linkgate.gate.user") && has("exports-need-mfa"),
            "{role}"
        );
        assert_eq!(text.matches("@id(\"linkgate.role.").count(), 1, "{role}");
        assert_eq!(has("linkgate.grant.delegate"), role.as_str() == "delegate");
        assert_eq!(has("resellers-may-comment"), role.as_str() == "reseller");
        assert_eq!(has("no-posts-by-auditors"), role.as_str() == "auditor");
        let answers = effective(&bundle, &plain_link(role).unwrap(), Millis(1_000));
        assert_eq!(answers.len(), 26);
    }
}
