//! What records say of rights in use: for each link, when and how often a permission let something through, and what each
//! user's token last granted.
//!
//! A use is an opening that allows: that an upstream answered with an error, or that the request was refused after it was
//! opened, does not make the right less needed. A request that names an active tenant uses
//! `partner.tenants.switch_context` beside its own permission. What is asked of the policies and told in no record of its
//! own (a field that a right adds to an answer, work that nobody asked for) cannot be seen here.

use std::collections::HashMap;

use super::{
    asked::{Claims, Question},
    decision::Decision,
    record::Slice,
    sweep::Opened,
};
use crate::domain::{LinkId, Millis, PartnerId, Permission, PermissionSet};

/// How often, and when last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    pub count: u64,
    /// `None`: never.
    pub last: Option<Millis>,
}

impl Use {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.last = self.last.max(other.last);
    }
}

/// The uses of one link, by permission.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses(HashMap<Permission, Use, ahash::RandomState>);

impl Uses {
    pub fn of(&self, permission: Permission) -> Use {
        self.0.get(&permission).copied().unwrap_or_default()
    }

    /// Every permission that let something through.
    pub fn used(&self) -> PermissionSet {
        self.0.keys().copied().collect()
    }

    /// Adds those of another link, such as one that was delegated onward from this one.
    pub fn add(&mut self, other: &Self) {
        for (permission, more) in &other.0 {
            self.0.entry(*permission).or_default().add(*more);
        }
    }

    fn note(&mut self, permission: Permission, at: Millis) {
        self.0.entry(permission).or_default().add(Use { count: 1, last: Some(at) });
    }
}

/// A user, as tokens name them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject {
    pub partner_id: PartnerId,
    /// Empty: the legacy issuer without `iss`.
    pub issuer: String,
    pub sub: String,
}

/// What records say, added up.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub links: HashMap<LinkId, Uses, ahash::RandomState>,
    /// What the newest token of each user granted, and when it was seen.
    pub claims: HashMap<Subject, (Millis, Claims), ahash::RandomState>,
}

/// What a record says, from whichever form it was read.
struct Said<'a> {
    time: Millis,
    permission: Option<Permission>,
    decision: Decision,
    link: Option<LinkId>,
    names_tenant: bool,
    slices: &'a [Slice],
    asked: Option<&'a Question>,
    user: Option<(PartnerId, &'a str, &'a str)>,
}

impl Usage {
    /// Of a line of the journal.
    pub fn see(&mut self, opened: &Opened<'_>) {
        let (visible, private) = (&opened.visible, &opened.private);
        self.add(&Said {
            time: visible.time,
            permission: visible.action.as_deref().and_then(Permission::parse),
            decision: visible.decision,
            link: private.link_id,
            names_tenant: visible.managed_tenant_id.is_some(),
            slices: &opened.slices,
            asked: private.asked.as_ref(),
            user: user(visible.partner_id, private.issuer.as_deref(), visible.user_id.as_deref()),
        });
    }

    fn add(&mut self, said: &Said<'_>) {
        if let (Some((partner_id, issuer, sub)), Some(claims)) =
            (said.user, said.asked.and_then(|asked| asked.holds.as_ref()))
        {
            let subject = Subject { partner_id, issuer: issuer.to_owned(), sub: sub.to_owned() };
            let known = self.claims.get(&subject);
            if known.is_none_or(|(at, _)| *at <= said.time) {
                self.claims.insert(subject, (said.time, claims.clone()));
            }
        }
        let Some(permission) = said.permission.filter(|_| said.decision == Decision::Allow) else { return };
        let mut note = |link: LinkId, switched: bool| {
            let uses = self.links.entry(link).or_default();
            uses.note(permission, said.time);
            if switched && permission != Permission::SWITCH_CONTEXT {
                uses.note(Permission::SWITCH_CONTEXT, said.time);
            }
        };
        if let Some(link) = said.link {
            // A record from before questions were kept does not say; where a tenant is named, it was needed.
            let switched = said.asked.map_or(said.names_tenant, |asked| asked.switch_context);
            note(link, switched || said.names_tenant);
        }
        for slice in said.slices.iter().filter(|slice| slice.decision == Decision::Allow) {
            if let Some(link) = slice.link_id.filter(|link| said.link != Some(*link)) {
                note(link, said.asked.is_some_and(|asked| asked.switch_context));
            }
        }
    }

    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for (link, uses) in &other.links {
            self.links.entry(*link).or_default().add(uses);
        }
        for (subject, (at, claims)) in other.claims {
            if self.claims.get(&subject).is_none_or(|(known, _)| *known <= at) {
                self.claims.insert(subject, (at, claims));
            }
        }
        self
    }
}

fn user<'a>(
    partner: Option<PartnerId>,
    issuer: Option<&'a str>,
    sub: Option<&'a str>,
) -> Option<(PartnerId, &'a str, &'a str)> {
    Some((partner?, issuer.unwrap_or_default(), sub?))
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
