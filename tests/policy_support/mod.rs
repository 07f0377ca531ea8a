//! Shared by the policy tests: cases made of the contract's own words, a generator of them, and the reference oracle.
//!
//! The oracle is written from section 4 of the contract alone: it has its own role table, its own wildcards and scopes,
//! its own address arithmetic, and uses nothing of the crate but plain ids. Where it and the crate agree, two readings
//! of the contract agree.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

use std::net::IpAddr;

use linkgate::{
    domain::{
        Approval, Facts, Link, LinkFacts, LinkId, LinkVersion, Millis, PartnerId, Permission, PermissionSet, TenantId,
        UserFacts, facts::Ancestor,
    },
    policy::{Bundle, Outcome, Refusal},
};

pub const PERMISSIONS: [&str; 26] = [
    "partner.tenants.list",
    "partner.tenants.switch_context",
    "partner.billing.read",
    "partner.billing.summary.read",
    "partner.billing.invoices.read",
    "partner.billing.invoices.write",
    "partner.billing.invoices.export",
    "partner.billing.payments.read",
    "partner.billing.payments.write",
    "partner.support.tickets.list",
    "partner.support.tickets.read",
    "partner.support.tickets.create",
    "partner.support.tickets.update",
    "partner.support.tickets.comment",
    "partner.provisioning.subscribers.list",
    "partner.provisioning.subscribers.read",
    "partner.provisioning.subscribers.activate",
    "partner.provisioning.subscribers.suspend",
    "partner.provisioning.plans.assign",
    "partner.reports.usage.read",
    "partner.reports.sla.read",
    "partner.reports.revenue.read",
    "partner.reports.export",
    "partner.alerts.sla.read",
    "partner.alerts.billing.read",
    "partner.alerts.acknowledge",
];

pub const LINK_ROLES: [&str; 7] =
    ["msp_full", "msp_billing", "msp_support", "enterprise_hq", "auditor", "reseller", "delegate"];

/// Everything that an override may be named.
pub const OVERRIDES: [&str; 25] = [
    "partner.*",
    "partner.tenants.*",
    "partner.billing.*",
    "partner.billing.invoices.*",
    "partner.billing.payments.*",
    "partner.support.*",
    "partner.support.tickets.*",
    "partner.provisioning.*",
    "partner.provisioning.subscribers.*",
    "partner.provisioning.plans.*",
    "partner.reports.*",
    "partner.reports.sla.*",
    "partner.alerts.*",
    "partner.alerts.billing.*",
    "billing.read",
    "billing.export",
    "billing.write",
    "support.read",
    "support.write",
    "provisioning",
    "provisioning.limited",
    "reports.sla",
    "support.create_ticket",
    "provisioning.activate_service",
    "partner.tenants.switch_context",
];

/// One link in the contract's words.
#[derive(Clone, Debug)]
pub struct RawLink {
    pub id: u128,
    pub own_partner: bool,
    pub tenant: &'static str,
    pub status: &'static str,
    pub role: &'static str,
    pub overrides: Vec<(&'static str, bool)>,
    pub approval: &'static str,
    pub is_active: bool,
    pub start: i64,
    pub end: Option<i64>,
    pub cidrs: Vec<&'static str>,
    pub require_mfa: bool,
    pub partner_active: bool,
    pub suspended: bool,
    /// Nearest first.
    pub parents: Vec<RawLink>,
}

impl RawLink {
    /// A live link of this role.
    pub fn live(role: &'static str) -> Self {
        Self {
            id: 1,
            own_partner: true,
            tenant: "tenant-a",
            status: "active",
            role,
            overrides: Vec::new(),
            approval: "approved",
            is_active: true,
            start: 0,
            end: None,
            cidrs: Vec::new(),
            require_mfa: false,
            partner_active: true,
            suspended: false,
            parents: Vec::new(),
        }
    }

    pub fn with(mut self, name: &'static str, value: bool) -> Self {
        self.overrides.push((name, value));
        self
    }
}

/// One question in the contract's words.
#[derive(Clone, Debug)]
pub struct Case {
    pub issuer: &'static str,
    pub sub: &'static str,
    pub roles: Vec<&'static str>,
    pub permissions: Vec<&'static str>,
    pub user_suspended: bool,
    pub link: Option<RawLink>,
    pub permission: &'static str,
    pub switch_context: bool,
    pub now: i64,
    pub ip: &'static str,
    pub mfa: bool,
    pub method: &'static str,
    pub route_class: &'static str,
}

impl Case {
    /// Nothing but link role and permission can refuse it.
    pub fn open(link: RawLink, permission: &'static str) -> Self {
        Self {
            issuer: "https://idp.example.net",
            sub: "user-1",
            roles: Vec::new(),
            permissions: vec!["partner.*"],
            user_suspended: false,
            link: Some(link),
            permission,
            switch_context: false,
            now: 1_000,
            ip: "192.0.2.1",
            mfa: true,
            method: "GET",
            route_class: "read",
        }
    }
}

/// The case in the crate's terms, kept so that `facts` can borrow from it.
pub struct Prepared {
    pub user: UserFacts,
    pub link: Option<LinkFacts>,
    permission: Permission,
    switch_context: bool,
    now: Millis,
    ip: IpAddr,
    mfa: bool,
    method: &'static str,
    route_class: &'static str,
}

impl Prepared {
    pub fn new(bundle: &Bundle, case: &Case) -> Self {
        let user = UserFacts {
            issuer: case.issuer.into(),
            sub: case.sub.into(),
            partner_id: partner(true),
            holds: bundle.roles().holds(case.roles.iter().copied(), case.permissions.iter().copied()),
            suspended: case.user_suspended,
        };
        let link = case.link.as_ref().map(|raw| LinkFacts {
            link: link(raw),
            partner_active: raw.partner_active,
            suspended: raw.suspended,
            tenant_status: raw.status.into(),
            ancestors: raw
                .parents
                .iter()
                .map(|parent| Ancestor {
                    link: link(parent),
                    partner_active: parent.partner_active,
                    suspended: parent.suspended,
                })
                .collect(),
        });
        Self {
            user,
            link,
            permission: Permission::parse(case.permission).unwrap(),
            switch_context: case.switch_context,
            now: Millis(case.now),
            ip: case.ip.parse().unwrap(),
            mfa: case.mfa,
            method: case.method,
            route_class: case.route_class,
        }
    }

    pub fn facts(&self) -> Facts<'_> {
        Facts {
            user: &self.user,
            link: self.link.as_ref(),
            permission: self.permission,
            switch_context: self.switch_context,
            now: self.now,
            ip: self.ip,
            mfa: self.mfa,
            method: self.method,
            route_class: self.route_class,
        }
    }
}

fn partner(own: bool) -> PartnerId {
    PartnerId(uuid::Uuid::from_u128(if own { 7 } else { 8 }))
}

fn link(raw: &RawLink) -> Link {
    let overrides = |wanted: bool| {
        raw.overrides
            .iter()
            .filter(|(_, value)| *value == wanted)
            .fold(PermissionSet::EMPTY, |set, (name, _)| set.union(PermissionSet::from_name(name).unwrap()))
    };
    Link {
        id: LinkId(uuid::Uuid::from_u128(raw.id)),
        partner_id: partner(raw.own_partner),
        tenant_id: TenantId::new(raw.tenant).unwrap(),
        role: raw.role.parse().unwrap(),
        granted: overrides(true),
        denied: overrides(false),
        approval: raw.approval.parse::<Approval>().unwrap(),
        is_active: raw.is_active,
        start: Millis(raw.start),
        end: raw.end.map(Millis),
        allowed_cidrs: raw.cidrs.iter().map(|net| net.parse().unwrap()).collect(),
        require_mfa: raw.require_mfa,
        version: LinkVersion(1),
    }
}

/// `None`: allowed. Otherwise code and reason as in section 7.
pub type Told = Option<(&'static str, &'static str)>;

/// What the crate said, in the same form.
pub fn told(outcome: &Outcome) -> Told {
    match &outcome.verdict {
        Ok(_) => None,
        Err(Refusal::Denied(denial)) => {
            Some((denial.code.as_str(), denial.reason.map_or("", |reason| reason.as_str())))
        }
        Err(Refusal::Unavailable) => Some(("POLICY_UNAVAILABLE", "")),
    }
}

/// What hand-written policies say beside the contract; the shipped set says nothing.
pub struct Extra {
    pub grants: fn(&Case, &RawLink, &str) -> bool,
    pub forbids: fn(&Case, &RawLink, &str) -> bool,
}

pub const NO_EXTRA: Extra = Extra { grants: |_, _, _| false, forbids: |_, _, _| false };

/// Section 4, read line by line.
pub fn oracle(case: &Case, extra: &Extra) -> Told {
    let denied = |reason| Some(("TENANT_ACCESS_DENIED", reason));
    let forbidden = |reason| Some(("FORBIDDEN", reason));
    let Some(link) = case.link.as_ref().filter(|link| link.own_partner) else { return denied("no_link") };
    let mut chain = vec![link];
    chain.extend(&link.parents);
    if case.user_suspended || chain.iter().any(|one| one.suspended) {
        return denied("access_suspended");
    }
    if chain.iter().any(|one| !one.partner_active) {
        return denied("partner_inactive");
    }
    if chain.iter().any(|one| one.approval != "approved") {
        return denied("link_pending");
    }
    if chain.iter().any(|one| !one.is_active) {
        return denied("link_inactive");
    }
    if chain.iter().any(|one| one.start > case.now) {
        return denied("link_not_started");
    }
    if chain.iter().any(|one| matches!(one.end, Some(end) if case.now >= end)) {
        return Some(("TENANT_LINK_EXPIRED", ""));
    }
    if chain.iter().any(|one| !one.cidrs.is_empty() && !one.cidrs.iter().any(|net| within(case.ip, net))) {
        return forbidden("ip_not_allowed");
    }
    if chain.iter().any(|one| one.require_mfa) && !case.mfa {
        return forbidden("mfa_required");
    }
    let mut asked = vec![case.permission];
    if case.switch_context {
        asked.push("partner.tenants.switch_context");
    }
    if asked.iter().any(|name| !user_holds(case, name)) {
        return forbidden("permission");
    }
    let granted = |name: &str| {
        let parents = link.parents.iter().all(|parent| granted_by(parent, name) && !denied_by(parent, name));
        (granted_by(link, name) || (extra.grants)(case, link, name)) && parents
    };
    if asked.iter().any(|name| !granted(name)) {
        return forbidden("permission");
    }
    if asked.iter().any(|name| denied_by(link, name)) {
        return forbidden("override");
    }
    if asked.iter().any(|name| (extra.forbids)(case, link, name)) {
        return forbidden("guardrail");
    }
    None
}

fn user_holds(case: &Case, name: &str) -> bool {
    case.roles.iter().any(|role| {
        role.strip_prefix("partner_").is_some_and(|role| {
            matches!(role, "msp_full" | "msp_billing" | "msp_support" | "auditor") && role_has(role, name)
        })
    }) || case.permissions.iter().any(|claim| {
        // Names or wildcards, no scopes; an unknown name grants nothing.
        *claim == name || (claim.starts_with("partner.") && is_wildcard_of(claim, name))
    })
}

fn granted_by(link: &RawLink, name: &str) -> bool {
    let by_override =
        link.role == "delegate" && link.overrides.iter().any(|(key, value)| *value && stands_for(key, name));
    role_has(link.role, name) || by_override
}

fn denied_by(link: &RawLink, name: &str) -> bool {
    link.overrides.iter().any(|(key, value)| !*value && stands_for(key, name))
}

fn is_wildcard_of(key: &str, name: &str) -> bool {
    key.strip_suffix(".*").is_some_and(|level| name.strip_prefix(level).is_some_and(|rest| rest.starts_with('.')))
}

/// Name, wildcard, scope or alias.
pub fn stands_for(key: &str, name: &str) -> bool {
    let ends = |list: &[&str]| list.iter().any(|end| name.strip_prefix("partner.") == Some(*end));
    match key {
        "billing.read" => {
            ends(&["billing.read", "billing.summary.read", "billing.invoices.read", "billing.payments.read"])
        }
        "billing.export" => ends(&["billing.invoices.export"]),
        "billing.write" => ends(&["billing.invoices.write", "billing.payments.write"]),
        "support.read" => ends(&["support.tickets.list", "support.tickets.read"]),
        "support.write" => ends(&["support.tickets.create", "support.tickets.update", "support.tickets.comment"]),
        "provisioning" => name.starts_with("partner.provisioning."),
        "provisioning.limited" => {
            name.starts_with("partner.provisioning.") && name != "partner.provisioning.subscribers.suspend"
        }
        "reports.sla" => ends(&["reports.sla.read", "alerts.sla.read"]),
        "support.create_ticket" => ends(&["support.tickets.create"]),
        "provisioning.activate_service" => ends(&["provisioning.subscribers.activate"]),
        _ => key == name || is_wildcard_of(key, name),
    }
}

/// The matrix of section 4, column by column.
fn role_has(role: &str, name: &str) -> bool {
    let any = |keys: &[&str]| keys.iter().any(|key| stands_for(key, name));
    if stands_for("partner.tenants.*", name) {
        return true;
    }
    match role {
        "msp_full" | "enterprise_hq" => true,
        "msp_billing" => any(&[
            "billing.read",
            "billing.write",
            "billing.export",
            "reports.sla",
            "partner.reports.usage.read",
            "partner.reports.revenue.read",
            "partner.reports.export",
            "partner.alerts.billing.read",
        ]),
        "msp_support" => {
            any(&["billing.read", "support.read", "support.write", "reports.sla", "partner.reports.usage.read"])
        }
        // Every report and alert read, reports.export; never a write.
        "auditor" => {
            let reports = name.starts_with("partner.reports.");
            let alerts = name.starts_with("partner.alerts.") && name.ends_with(".read");
            reports || alerts || any(&["billing.read", "support.read"])
        }
        "reseller" => any(&["billing.read", "support.read", "provisioning.limited", "reports.sla"]),
        _ => false,
    }
}

/// Address arithmetic on bits, families apart, mapped IPv4 as IPv4.
fn within(ip: &str, net: &str) -> bool {
    let bits = |text: &str| match text.parse::<IpAddr>().unwrap() {
        IpAddr::V4(v4) => (32u32, u128::from(u32::from(v4))),
        IpAddr::V6(v6) => match v6.segments() {
            [0, 0, 0, 0, 0, 0xffff, a, b] => (32, u128::from(a) << 16 | u128::from(b)),
            _ => (128, u128::from(v6)),
        },
    };
    let (base, prefix) = net.split_once('/').unwrap();
    let ((width, ip), (net_width, base)) = (bits(ip), bits(base));
    let shift = width - prefix.parse::<u32>().unwrap().min(width);
    width == net_width && (shift == 128 || ip >> shift == base >> shift)
}

/// SplitMix64: small, known, the same everywhere.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    /// True once in `n`.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

const CIDRS: [&str; 7] =
    ["192.0.2.0/24", "192.0.2.1/32", "10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32", "::/0", "2001:db8::1/128"];
const ADDRESSES: [&str; 7] =
    ["192.0.2.1", "192.0.2.255", "10.9.8.7", "::ffff:192.0.2.1", "::ffff:10.0.0.1", "2001:db8::1", "fd00::1"];
const USER_ROLES: [&str; 9] = [
    "partner_msp_full",
    "partner_msp_billing",
    "partner_msp_support",
    "partner_auditor",
    "partner_reseller",
    "msp_full",
    "admin",
    "",
    "PARTNER_MSP_FULL",
];
const CLAIMS: [&str; 14] = [
    "partner.*",
    "partner.billing.*",
    "partner.billing.invoices.*",
    "partner.support.tickets.*",
    "partner.tenants.*",
    "partner.tenants.switch_context",
    "partner.provisioning.*",
    "partner.reports.*",
    "partner.alerts.*",
    "billing.read",
    "*",
    "partner.bill*",
    "partner",
    "partner.billing.invoices.delete",
];

fn random_link(rng: &mut Rng, depth: usize) -> RawLink {
    let mut link = RawLink::live(rng.pick(&LINK_ROLES));
    // Each gate is mostly open, so that later gates are reached and allows are common.
    link.id = rng.below(4) as u128;
    link.own_partner = !rng.once_in(40) || depth > 0;
    link.tenant = rng.pick(&["tenant-a", "tenant-b", "019a0000-0000-7000-8000-000000000001", "Ünïcode \"quoted\""]);
    link.status = rng.pick(&["active", "suspended", ""]);
    link.approval = if rng.once_in(25) { rng.pick(&["pending", "rejected"]) } else { "approved" };
    link.is_active = !rng.once_in(25);
    link.partner_active = !rng.once_in(30);
    link.suspended = rng.once_in(30);
    link.require_mfa = rng.once_in(3);
    link.start = 900 + i64::try_from(rng.below(100)).unwrap();
    link.end = (!rng.once_in(3)).then(|| 1_100 + i64::try_from(rng.below(100)).unwrap());
    if rng.once_in(3) {
        link.cidrs = (0..=rng.below(3)).map(|_| rng.pick(&CIDRS)).collect();
    }
    let overrides = if link.role == "delegate" { 1 + rng.below(4) } else { rng.below(4) };
    for _ in 0..overrides {
        let name = if rng.once_in(2) { rng.pick(&PERMISSIONS) } else { rng.pick(&OVERRIDES) };
        let value = if link.role == "delegate" { !rng.once_in(4) } else { rng.once_in(2) };
        link.overrides.push((name, value));
    }
    if depth == 0 && rng.once_in(4) {
        link.role = "delegate";
        link.overrides.push((rng.pick(&["partner.*", "partner.billing.*", "partner.support.*"]), true));
        link.parents = (0..=rng.below(2)).map(|_| random_link(rng, 1)).collect();
    }
    link
}

/// One case, mostly near the border between allow and deny.
pub fn random_case(rng: &mut Rng) -> Case {
    let link = (!rng.once_in(50)).then(|| random_link(rng, 0));
    let mut roles = Vec::new();
    for _ in 0..rng.below(3) {
        roles.push(rng.pick(&USER_ROLES));
    }
    let mut permissions = Vec::new();
    for _ in 0..rng.below(3) {
        permissions.push(if rng.once_in(2) { rng.pick(&PERMISSIONS) } else { rng.pick(&CLAIMS) });
    }
    if rng.once_in(2) {
        permissions.push("partner.*");
    }
    let mut now = 1_000 + i64::try_from(rng.below(100)).unwrap();
    if let Some(link) = &link
        && rng.once_in(6)
    {
        // On an edge of the link or of a parent, and one millisecond to either side.
        let mut edges = vec![link.start, link.end.unwrap_or(now)];
        edges.extend(link.parents.iter().flat_map(|parent| [parent.start, parent.end.unwrap_or(now)]));
        now = rng.pick(&edges) + rng.pick(&[-1, 0, 1]);
    }
    Case {
        issuer: rng.pick(&["", "https://idp.example.net", "https://other.example.net"]),
        sub: rng.pick(&["user-1", "user-2", "user-4711"]),
        roles,
        permissions,
        user_suspended: rng.once_in(40),
        link,
        permission: rng.pick(&PERMISSIONS),
        switch_context: rng.once_in(2),
        now,
        ip: rng.pick(&ADDRESSES),
        mfa: !rng.once_in(3),
        method: rng.pick(&["GET", "POST", "PATCH", ""]),
        route_class: rng.pick(&["read", "write", "export", ""]),
    }
}

/// A policy folder of its own: the shipped set, with these guardrails instead of the shipped ones.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new(guardrails: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
        for name in ["schema.cedarschema", "roles.toml"] {
            std::fs::copy(shipped.join(name), dir.path().join(name)).unwrap();
        }
        std::fs::create_dir(dir.path().join("guardrails")).unwrap();
        let folder = Self(dir);
        folder.write("guardrails/test.cedar", guardrails);
        folder
    }

    pub fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    /// Replaces a piece of a file that must be there.
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path().join(name)).unwrap();
        assert!(text.contains(from), "{name} has no `{from}`");
        self.write(name, &text.replacen(from, to, 1));
    }

    pub fn load(&self) -> Bundle {
        Bundle::load(Some(self.path())).unwrap_or_else(|errors| panic!("{}", errors.render()))
    }

    /// The refusal as a terminal shows it, without the folder's own name.
    pub fn refused(&self) -> String {
        let errors = Bundle::load(Some(self.path())).expect_err("the set must be refused");
        let text = format!("{errors}\n\n{}", errors.render());
        let text = text.replace(&format!("{}/", self.path().display()), "");
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}
