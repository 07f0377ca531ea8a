//! Random chains of delegated links, held against an oracle: attenuation, and every gate of every parent.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use linkgate::{
    domain::{Facts, LinkFacts, LinkId, Millis, PartnerId, Permission, PermissionSet, RoleTable, UserFacts},
    policy::{self, Bundle},
    store::{
        Admin, Reading, SuspensionScope,
        admin::{PartnerInput, SuspensionInput},
    },
};
use serde_json::json;

use crate::fixture::{Fixture, change, refused};

/// A small generator, so that both databases see the same chains and a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }

    fn one_in(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }
}

type Names = BTreeSet<&'static str>;

fn names(set: PermissionSet) -> Names {
    set.iter().map(Permission::name).collect()
}

fn named(name: &str) -> Names {
    names(PermissionSet::from_name(name).unwrap())
}

/// One link of a chain, as it was written.
#[derive(Clone, Debug)]
struct Level {
    id: LinkId,
    partner: PartnerId,
    role: &'static str,
    overrides: BTreeMap<&'static str, bool>,
    approved: bool,
    active: bool,
    start: i64,
    end: Option<i64>,
    cidrs: Vec<&'static str>,
    mfa: bool,
    partner_active: bool,
    suspended: bool,
}

/// Written from the contract's section 4 and 5 over plain sets of names, independently of the code under test.
mod oracle {
    use super::*;

    fn by_itself(level: &Level, roles: &RoleTable) -> Names {
        let mut set = names(roles.link_role(level.role.parse().unwrap()));
        if level.role == "delegate" {
            set.extend(level.overrides.iter().filter(|(_, allow)| **allow).flat_map(|(name, _)| named(name)));
        }
        for (name, _) in level.overrides.iter().filter(|(_, allow)| !**allow) {
            let denied = named(name);
            set.retain(|name| !denied.contains(name));
        }
        set
    }

    /// `chain`: from the link up to the one granted directly.
    pub(super) fn effective(chain: &[Level], roles: &RoleTable) -> Names {
        let mut sets = chain.iter().map(|level| by_itself(level, roles));
        let first = sets.next().unwrap();
        sets.fold(first, |all, set| all.intersection(&set).copied().collect())
    }

    /// The word of the refusal; `None`: allowed.
    pub(super) fn decide(chain: &[Level], roles: &RoleTable, asked: &Asked) -> Option<&'static str> {
        let any = |closed: fn(&Level, &Asked) -> bool| chain.iter().any(|level| closed(level, asked));
        let within = |cidrs: &[&str], ip: IpAddr| {
            cidrs.is_empty() || cidrs.iter().any(|net| net.parse::<ipnet::IpNet>().unwrap().contains(&ip))
        };
        if any(|level, _| level.suspended) {
            return Some("access_suspended");
        }
        if any(|level, _| !level.partner_active) {
            return Some("partner_inactive");
        }
        if any(|level, _| !level.approved) {
            return Some("link_pending");
        }
        if any(|level, _| !level.active) {
            return Some("link_inactive");
        }
        if any(|level, asked| asked.now < level.start) {
            return Some("link_not_started");
        }
        if any(|level, asked| level.end.is_some_and(|end| end <= asked.now)) {
            return Some("TENANT_LINK_EXPIRED");
        }
        if chain.iter().any(|level| !within(&level.cidrs, asked.ip)) {
            return Some("ip_not_allowed");
        }
        if any(|level, _| level.mfa) && !asked.mfa {
            return Some("mfa_required");
        }
        let own = &chain[0];
        let granted = {
            let plain = Level {
                overrides: own.overrides.clone().into_iter().filter(|(_, allow)| *allow).collect(),
                ..own.clone()
            };
            let mut chain = chain.to_vec();
            chain[0] = plain;
            effective(&chain, roles)
        };
        let denied: Names =
            own.overrides.iter().filter(|(_, allow)| !**allow).flat_map(|(name, _)| named(name)).collect();
        let wanted = [asked.permission.name(), Permission::SWITCH_CONTEXT.name()];
        if wanted.iter().any(|name| !granted.contains(name)) {
            return Some("permission");
        }
        wanted.iter().any(|name| denied.contains(name)).then_some("override")
    }
}

/// One question about the lowest link.
struct Asked {
    permission: Permission,
    now: i64,
    ip: IpAddr,
    mfa: bool,
}

const SOME: [&str; 9] = [
    "billing.read",
    "billing.write",
    "support.read",
    "support.write",
    "reports.sla",
    "partner.billing.*",
    "partner.tenants.*",
    "partner.support.tickets.comment",
    "partner.*",
];

fn terms(level: &Level) -> serde_json::Value {
    json!({
        "custom_permissions": level.overrides, "start_date": Millis(level.start).to_string(),
        "end_date": level.end.map(|end| Millis(end).to_string()), "allowed_cidrs": level.cidrs, "require_mfa": level.mfa,
    })
}

/// Random terms; `T0` is a fixed moment, so that windows can be compared with it to the millisecond.
fn level(dice: &mut Dice, partner: PartnerId, role: &'static str, rare: usize) -> Level {
    let mut overrides = BTreeMap::new();
    for _ in 0..dice.below(4) {
        let allow = role == "delegate" && !dice.one_in(4);
        overrides.insert(dice.pick(&SOME), allow);
    }
    Level {
        id: LinkId(uuid::Uuid::nil()),
        partner,
        role,
        overrides,
        approved: true,
        active: true,
        start: if dice.one_in(rare) { T0 + 5 } else { T0 - 1_000 },
        end: [None, None, Some(T0 + 10), Some(T0 + 20)][dice.below(4)],
        cidrs: [vec![], vec![], vec!["10.0.0.0/8"], vec!["10.1.0.0/16", "2001:db8::/32"]][dice.below(4)].clone(),
        mfa: dice.one_in(rare),
        partner_active: true,
        suspended: false,
    }
}

const T0: i64 = 1_800_000_000_000;

/// Random chains of up to four links, each written through the front door: whatever is refused there goes beyond the
/// parent, whatever is accepted stays within every ancestor, whatever happens to a parent later is the child's too, and
/// the decision is the oracle's.
pub(crate) async fn chains_attenuate_and_decide_as_the_contract_says(f: Arc<Fixture>) {
    let mut dice = Dice(20_261_122);
    let bundle = Bundle::load(None).unwrap();
    let roles = Arc::new(bundle.roles().clone());
    let admin = Admin::new(&f.db, Arc::clone(&roles), false);
    let mut partners = Vec::new();
    for n in 0..4 {
        partners.push(f.partner(&format!("p{n}")).await);
    }
    let (mut refusals, mut allowed, mut denied) = (0, 0, BTreeMap::<&str, u32>::new());
    for round in 0..25 {
        let tenant = f.tenant(&format!("t-{round}")).await;
        let role = dice.pick(&["msp_full", "msp_billing", "msp_support", "auditor", "delegate"]);
        // From the link granted directly downwards.
        let mut chain: Vec<Level> = Vec::new();
        let depth = 2 + dice.below(3);
        while chain.len() < depth {
            let role = if chain.is_empty() { role } else { "delegate" };
            let mut next = level(&mut dice, partners[chain.len()], role, 12);
            let above: Vec<Level> = chain.iter().rev().cloned().collect();
            let beyond = !above.is_empty() && {
                let most = oracle::effective(&above, &roles);
                next.overrides.iter().any(|(name, allow)| *allow && !named(name).is_subset(&most))
            };
            let mut fields = terms(&next);
            fields["partner_id"] = json!(next.partner);
            fields["managed_tenant_id"] = json!(tenant);
            fields["access_role"] = json!(role);
            fields["parent_link_id"] = json!(chain.last().map(|parent| parent.id.to_string()));
            match admin.create_link(&f.actor, &change(fields.clone())).await {
                Ok(made) => {
                    assert!(!beyond, "{fields} goes beyond {above:?}");
                    next.id = made.value.id;
                    chain.push(next);
                }
                refusal => {
                    assert_eq!(refused(refusal).0, "PERMISSION_ESCALATION", "{fields}");
                    assert!(beyond, "{fields} stays within {above:?}");
                    refusals += 1;
                }
            }
        }
        for _ in 0..4 {
            let mut lifts = shaken(&f, &admin, &mut dice, &mut chain).await;
            let directory = f.fresh_directory().await;
            for at in 0..chain.len() {
                let own: Vec<Level> = chain[..=at].iter().rev().cloned().collect();
                let portfolio = directory.portfolio(own[0].partner, Reading::Fresh).await.unwrap().unwrap();
                let facts = portfolio.link(tenant.as_str()).unwrap();
                let effective = names(facts.effective(&roles));
                assert_eq!(effective, oracle::effective(&own, &roles), "{own:?}");
                for parent in facts.ancestors.iter() {
                    let alone =
                        oracle::effective(&own[own.iter().position(|l| l.id == parent.link.id).unwrap()..], &roles);
                    assert!(effective.is_subset(&alone), "more than an ancestor: {own:?}");
                }
                for _ in 0..6 {
                    let asked = Asked {
                        permission: Permission::parse(dice.pick(&[
                            "partner.billing.invoices.read",
                            "partner.billing.invoices.write",
                            "partner.support.tickets.comment",
                            "partner.tenants.list",
                        ]))
                        .unwrap(),
                        now: T0 + [0, 5, 9, 10, 19, 20][dice.below(6)],
                        ip: dice
                            .pick(&["10.1.2.3", "10.2.2.3", "::ffff:10.1.2.3", "2001:db8::9"])
                            .parse::<IpAddr>()
                            .unwrap()
                            .to_canonical(),
                        mfa: !dice.one_in(3),
                    };
                    let word = decided(&bundle, facts, &asked);
                    assert_eq!(word, oracle::decide(&own, &roles, &asked), "{own:?}");
                    match word {
                        None => allowed += 1,
                        Some(word) => *denied.entry(word).or_default() += 1,
                    }
                }
            }
            while let Some(id) = lifts.pop() {
                admin.restore(&f.actor, id).await.unwrap();
            }
            for level in &mut chain {
                level.suspended = false;
            }
        }
        for level in chain.iter().filter(|level| !level.partner_active) {
            let input = PartnerInput { is_active: Some(true), ..PartnerInput::default() };
            admin.update_partner(&f.actor, level.partner, None, &input).await.unwrap();
        }
    }
    println!("{refusals} refused as escalations, {allowed} allowed, denied: {denied:?}");
    assert!(refusals > 10 && allowed > 50 && denied.len() >= 9, "{refusals} {allowed} {denied:?}");
}

/// Changes one thing of one link of the chain; suspensions that have to be lifted again.
async fn shaken(f: &Fixture, admin: &Admin, dice: &mut Dice, chain: &mut [Level]) -> Vec<uuid::Uuid> {
    let at = dice.below(chain.len());
    let update = async |id, fields| admin.update_link(&f.actor, id, None, &change(fields)).await.map(drop);
    let level = &mut chain[at];
    match dice.below(7) {
        0 => {
            level.active = !level.active;
            update(level.id, json!({"is_active": level.active})).await.unwrap();
        }
        1 => {
            level.approved = !level.approved;
            let word = if level.approved { "approved" } else { "rejected" };
            update(level.id, json!({"approval": word})).await.unwrap();
        }
        2 => {
            level.partner_active = !level.partner_active;
            let input = PartnerInput { is_active: Some(level.partner_active), ..PartnerInput::default() };
            let (partner, active) = (level.partner, level.partner_active);
            admin.update_partner(&f.actor, partner, None, &input).await.unwrap();
            chain.iter_mut().filter(|level| level.partner == partner).for_each(|level| level.partner_active = active);
        }
        3 => {
            level.mfa = !level.mfa;
            update(level.id, json!({"require_mfa": level.mfa})).await.unwrap();
        }
        4 => {
            let overrides: BTreeMap<&str, bool> = BTreeMap::from([(dice.pick(&SOME[..6]), false)]);
            level.overrides = overrides;
            update(level.id, json!({"custom_permissions": level.overrides})).await.unwrap();
        }
        5 => {
            let input = SuspensionInput {
                scope: SuspensionScope::Link,
                issuer: None,
                subject: level.id.to_string(),
                reason: "r".into(),
            };
            level.suspended = true;
            return vec![admin.suspend(&f.actor, &input).await.unwrap().value.id];
        }
        _ => {}
    }
    Vec::new()
}

fn decided(bundle: &Bundle, facts: &LinkFacts, asked: &Asked) -> Option<&'static str> {
    let user = UserFacts {
        issuer: "i".into(),
        sub: "u".into(),
        partner_id: facts.link.partner_id,
        holds: PermissionSet::ALL,
        suspended: false,
    };
    let question = Facts {
        user: &user,
        link: Some(facts),
        permission: asked.permission,
        switch_context: true,
        now: Millis(asked.now),
        ip: asked.ip,
        mfa: asked.mfa,
        method: "GET",
        route_class: "read",
    };
    match policy::decide(bundle, None, &question).verdict {
        Ok(_) => None,
        Err(policy::Refusal::Denied(denial)) => Some(denial.word()),
        Err(policy::Refusal::Unavailable) => panic!("no decision"),
    }
}
