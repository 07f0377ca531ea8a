//! A counterexample in linkgate's own terms: a user, a link and a moment, as a person and `linkgate decide` know them.
//!
//! The solver's request lives in a wider world than the gateway's: partners need not be UUIDs, a set of permissions may
//! hold a wildcard, an instant may lie in the year 200,000. What has no counterpart is replaced by the nearest thing that
//! has; whether the result still shows the same is asked afterwards, never assumed.

use std::net::{IpAddr, Ipv4Addr};

use cedar_policy::{EvalResult, Expression, eval_expression};
use cedar_policy_symcc::Env;
use ipnet::{IpNet, Ipv4Net};
use uuid::Uuid;

use super::super::{bundle::Bundle, facts, schema::Vocabulary};
use crate::domain::{
    Approval, Case, Link, LinkFacts, LinkId, LinkRole, LinkVersion, Millis, PartnerId, Permission, PermissionSet,
    TenantId, UserFacts, facts::Ancestor, permission::Kind,
};

// What `linkgate decide` takes where a line leaves it out, so that the lines are short.
pub(super) const OWN_PARTNER: PartnerId = PartnerId(Uuid::nil());
pub(super) const LINK: LinkId = LinkId(Uuid::nil());
pub(super) const TENANT: &str = "tenant";

pub(super) const OTHER_PARTNER: PartnerId = PartnerId(Uuid::from_u128(1));
pub(super) const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Lists that leave out every address but those of one documentation network.
const ELSEWHERE: [Ipv4Net; 2] =
    [Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 0), 24), Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 0), 24)];

/// `None` for a request of a type that the gateway never asks (an edited schema may add some).
pub(super) fn of(env: &Env, words: &Vocabulary) -> Option<Case> {
    let read = Reader { env, words };
    let permission = Permission::parse(env.request.action()?.id().unescaped())?;
    if env.request.principal()?.type_name() != &words.user_type {
        return None;
    }
    let own = partner(&read.id("principal.partner")?, OWN_PARTNER);
    let user = UserFacts {
        issuer: read.text("principal.issuer")?.into(),
        sub: read.text("principal.sub")?.into(),
        partner_id: own,
        holds: read.set("principal.holds")?,
        suspended: read.flag("principal.suspended")?,
    };
    let ip = read.address();
    let kind = env.request.resource()?.type_name();
    let link = if kind == &words.link_type {
        Some(read.link(own, ip)?)
    } else if kind == &words.tenant_type {
        None
    } else {
        return None;
    };
    Some(Case {
        switch_context: false,
        user,
        link,
        permission,
        now: read.instant("context.now")?,
        ip,
        mfa: read.flag("context.mfa")?,
        method: read.text("context.method")?.into(),
        route_class: read.text("context.route_class")?.into(),
    })
}

/// A live link of this role, of the user's own partner, to an active tenant; nothing but its role grants anything.
pub(super) fn ordinary_link(role: LinkRole) -> Option<LinkFacts> {
    let link = Link {
        id: LINK,
        partner_id: OWN_PARTNER,
        tenant_id: TenantId::new(TENANT).ok()?,
        role,
        granted: PermissionSet::EMPTY,
        denied: PermissionSet::EMPTY,
        approval: Approval::Approved,
        is_active: true,
        start: STARTED,
        end: None,
        allowed_cidrs: Box::default(),
        require_mfa: false,
        version: LinkVersion(1),
    };
    let (ancestors, tenant_status) = (Box::default(), "active".into());
    Some(LinkFacts { link, partner_active: true, suspended: false, tenant_status, ancestors })
}

/// A user of the own partner who asks in an ordinary moment.
pub(super) fn ordinary(permission: Permission, holds: PermissionSet, link: Option<LinkFacts>) -> Case {
    let (issuer, sub) = ("".into(), "".into());
    Case {
        switch_context: false,
        user: UserFacts { issuer, sub, partner_id: OWN_PARTNER, holds, suspended: false },
        link,
        permission,
        now: NOW,
        ip: ADDRESS,
        mfa: true,
        method: "".into(),
        route_class: ordinary_class(permission).into(),
    }
}

/// 2026-01-01T00:00:00Z: when an ordinary link starts.
pub(super) const STARTED: Millis = Millis(1_767_225_600_000);
/// 2026-06-01T00:00:00Z: when an ordinary request is made.
pub(super) const NOW: Millis = Millis(1_780_272_000_000);

pub(super) fn ordinary_class(permission: Permission) -> &'static str {
    match permission.kind() {
        Kind::Read | Kind::Context => "read",
        Kind::Write => "write",
        Kind::Export => "export",
    }
}

/// Lets the chain above the link allow exactly `ceiling`: nothing above it, or one parent, a delegate that was granted
/// everything and denied the rest.
pub(super) fn set_ceiling(link: &mut LinkFacts, ceiling: PermissionSet) {
    if ceiling == PermissionSet::ALL {
        link.ancestors = Box::default();
        return;
    }
    let parent = Link {
        id: LinkId(Uuid::from_u128(1)),
        partner_id: OTHER_PARTNER,
        role: LinkRole::Delegate,
        granted: if ceiling.is_empty() { PermissionSet::EMPTY } else { PermissionSet::ALL },
        denied: PermissionSet::ALL.without(ceiling),
        approval: Approval::Approved,
        is_active: true,
        end: None,
        allowed_cidrs: Box::default(),
        require_mfa: false,
        ..link.link.clone()
    };
    link.ancestors = Box::new([Ancestor { link: parent, partner_active: true, suspended: false }]);
}

/// A list that does not hold this address.
fn elsewhere(ip: IpAddr) -> Box<[IpNet]> {
    ELSEWHERE.into_iter().map(IpNet::V4).filter(|net| !net.contains(&ip)).take(1).collect()
}

/// The UUID that the name is, or one that stands for it.
fn partner(name: &str, otherwise: PartnerId) -> PartnerId {
    name.parse().map_or(otherwise, PartnerId)
}

struct Reader<'a> {
    env: &'a Env,
    words: &'a Vocabulary,
}

impl Reader<'_> {
    fn value(&self, expression: &str) -> Option<EvalResult> {
        let expression: Expression = expression.parse().ok()?;
        eval_expression(&self.env.request, &self.env.entities, &expression).ok()
    }

    fn text(&self, expression: &str) -> Option<String> {
        match self.value(expression)? {
            EvalResult::String(text) => Some(text),
            _ => None,
        }
    }

    fn flag(&self, expression: &str) -> Option<bool> {
        match self.value(expression)? {
            EvalResult::Bool(flag) => Some(flag),
            _ => None,
        }
    }

    fn id(&self, expression: &str) -> Option<String> {
        match self.value(expression)? {
            EvalResult::EntityUid(uid) => Some(uid.id().unescaped().to_owned()),
            _ => None,
        }
    }

    fn instant(&self, expression: &str) -> Option<Millis> {
        let since = format!("({expression}).durationSince(datetime(\"1970-01-01\")).toMilliseconds()");
        match self.value(&since)? {
            EvalResult::Long(at) => Some(facts::clamp(Millis(at))),
            _ => None,
        }
    }

    /// A set of actions as permissions; a group in it stands for its members, as `action in` reads it.
    fn set(&self, expression: &str) -> Option<PermissionSet> {
        let EvalResult::Set(members) = self.value(expression)? else { return None };
        let members = members.iter().filter_map(|member| match member {
            EvalResult::EntityUid(uid) => Some(uid),
            _ => None,
        });
        Some(members.fold(PermissionSet::EMPTY, |set, uid| {
            let within = Permission::all().filter(|one| {
                self.words.is_in(*one, uid) || self.words.action(*one).is_some_and(|action| action.uid() == *uid)
            });
            set.union(within.collect())
        }))
    }

    /// `ip("192.0.2.0/24")` as the address before the slash.
    fn address(&self) -> IpAddr {
        let text = match self.value("context.ip") {
            Some(EvalResult::ExtensionValue(text)) => text,
            _ => String::new(),
        };
        let inner = text.split('"').nth(1).unwrap_or_default();
        inner.split('/').next().and_then(|address| address.parse().ok()).unwrap_or(ADDRESS)
    }

    fn link(&self, own: PartnerId, ip: IpAddr) -> Option<LinkFacts> {
        let name = self.id("resource.partner")?;
        let same = self.flag("resource.partner == principal.partner")?;
        let role: LinkRole = self.id("resource.role")?.parse().ok()?;
        let granted = self.set("resource.granted")?;
        let link = Link {
            id: self.id("resource").and_then(|id| id.parse().ok()).map_or(LINK, LinkId),
            partner_id: if same { own } else { partner(&name, OTHER_PARTNER) },
            tenant_id: self
                .id("resource.tenant")
                .and_then(|id| TenantId::new(&id).ok())
                .or(TenantId::new(TENANT).ok())?,
            role,
            granted,
            denied: self.set("resource.denied")?,
            approval: if self.flag("resource.approved")? { Approval::Approved } else { Approval::Pending },
            is_active: self.flag("resource.active")?,
            start: self.instant("resource.starts")?,
            end: if self.flag("resource has ends")? { Some(self.instant("resource.ends")?) } else { None },
            allowed_cidrs: if self.flag("context.address_allowed")? { Box::default() } else { elsewhere(ip) },
            require_mfa: self.flag("resource.require_mfa")?,
            version: LinkVersion(1),
        };
        let mut facts = LinkFacts {
            link,
            partner_active: self.flag("resource.partner_active")?,
            suspended: self.flag("resource.suspended")?,
            // Told only where a policy looks at it.
            tenant_status: self.text("resource.tenant.status").unwrap_or_default().into(),
            ancestors: Box::default(),
        };
        set_ceiling(&mut facts, self.set("resource.ceiling")?);
        Some(facts)
    }
}

/// Overrides that are true count inside the role's own set only, or for a delegate; others cannot be stored.
pub(super) fn storable(mut draft: Case, bundle: &Bundle) -> Case {
    if let Some(LinkFacts { link, .. }) = &mut draft.link
        && link.role != LinkRole::Delegate
    {
        link.granted = link.granted.intersection(bundle.roles().link_role(link.role));
    }
    draft
}
