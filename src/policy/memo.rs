//! Remembers Cedar's own answers, bounded, one memo a worker, used through `&mut`.
//!
//! The key is not a version of the facts but the facts themselves, as far as the policies that apply can tell two
//! callers apart: the permissions asked, the link's role, of each set of permissions those bits that are asked for (a
//! generated policy tests only `action in set`), and what hand-written policies read beyond (`reads`). A fact that no
//! policy reads is not in the key, so all users and links of one kind share an entry; a fact that changes is another
//! key, so nothing has to be purged. The gates that are tested natively are tested again at every call, before the memo
//! is asked: an entry is never used outside a link's window, and needs no expiry of its own.

use std::{
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::Arc,
};

use quick_cache::{Equivalent, UnitWeighter, unsync};

use super::{bundle::Answer, facts::asked, reads::Reads};
use crate::domain::{Facts, LinkFacts, LinkId, Millis, PartnerId, PermissionSet, RoleTable};

/// A bounded memo of decisions.
pub struct Memo {
    entries: unsync::Cache<Key, Answer, UnitWeighter, ahash::RandomState>,
    hits: u64,
    misses: u64,
}

impl std::fmt::Debug for Memo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memo").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Memo {
    /// At most `capacity` decisions are kept; seldom used ones make room.
    pub fn new(capacity: usize) -> Self {
        let entries = unsync::Cache::with(
            capacity,
            u64::try_from(capacity).unwrap_or(u64::MAX),
            UnitWeighter,
            ahash::RandomState::new(),
            unsync::DefaultLifecycle::default(),
        );
        Self { entries, hits: 0, misses: 0 }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Look-ups that found an answer, and those that did not.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }

    pub(super) fn get(&mut self, probe: &Probe<'_>) -> Option<&Answer> {
        let found = self.entries.get(probe);
        let count = if found.is_some() { &mut self.hits } else { &mut self.misses };
        *count = count.wrapping_add(1);
        found
    }

    pub(super) fn put(&mut self, probe: &Probe<'_>, answer: Answer) {
        self.entries.insert(probe.to_key(), answer);
    }
}

/// What is in every key: plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Class {
    generation: u64,
    permission: u8,
    switch_context: bool,
    role: u8,
    holds: u32,
    granted: u32,
    denied: u32,
    ceiling: u32,
}

/// What hand-written policies may read of the link beyond its role and sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct What<'a> {
    link: LinkId,
    partner: PartnerId,
    tenant: &'a str,
    tenant_status: &'a str,
    starts: Millis,
    ends: Option<Millis>,
    require_mfa: bool,
}

/// A key that borrows: looking up allocates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Probe<'a> {
    class: Class,
    who: Option<(&'a str, &'a str, PartnerId)>,
    what: Option<What<'a>>,
    ip: Option<IpAddr>,
    mfa: Option<bool>,
    method: Option<&'a str>,
    route_class: Option<&'a str>,
}

impl<'a> Probe<'a> {
    /// `None` where the answer must not be remembered: a policy that applies reads the clock.
    pub(super) fn new(
        generation: u64,
        roles: &RoleTable,
        reads: Reads,
        facts: &Facts<'a>,
        link: &'a LinkFacts,
    ) -> Option<Self> {
        if reads.has(Reads::NOW) {
            return None;
        }
        let seen = if reads.has(Reads::SETS) { PermissionSet::ALL } else { asked(facts) };
        let bits = |set: PermissionSet| set.intersection(seen).bits();
        let class = Class {
            generation,
            permission: u8::try_from(facts.permission.index()).unwrap_or(u8::MAX),
            switch_context: facts.switch_context,
            role: link.link.role as u8,
            holds: bits(facts.user.holds),
            granted: bits(link.link.granted),
            denied: bits(link.link.denied),
            ceiling: bits(link.ceiling(roles)),
        };
        let user = facts.user;
        Some(Self {
            class,
            who: reads.has(Reads::PRINCIPAL).then(|| (&*user.issuer, &*user.sub, user.partner_id)),
            what: reads.has(Reads::RESOURCE).then(|| What::of(link)),
            ip: reads.has(Reads::IP).then(|| facts.ip.to_canonical()),
            mfa: reads.has(Reads::MFA).then_some(facts.mfa),
            method: reads.has(Reads::METHOD).then_some(facts.method),
            route_class: reads.has(Reads::ROUTE_CLASS).then_some(facts.route_class),
        })
    }

    fn to_key(self) -> Key {
        Key {
            class: self.class,
            who: self.who.map(|(issuer, sub, partner)| (issuer.into(), sub.into(), partner)),
            what: self.what.map(|what| Box::new(OwnedWhat::of(what))),
            ip: self.ip,
            mfa: self.mfa,
            method: self.method.map(Arc::from),
            route_class: self.route_class.map(Arc::from),
        }
    }
}

impl<'a> What<'a> {
    fn of(facts: &'a LinkFacts) -> Self {
        let (starts, ends) = facts.window();
        Self {
            link: facts.link.id,
            partner: facts.link.partner_id,
            tenant: facts.link.tenant_id.as_str(),
            tenant_status: &facts.tenant_status,
            starts,
            ends,
            require_mfa: facts.requires_mfa(),
        }
    }
}

/// A key that owns. Hashed and compared through the probe that it came from, so that the two cannot differ.
#[derive(Clone, Debug)]
struct Key {
    class: Class,
    who: Option<(Arc<str>, Arc<str>, PartnerId)>,
    what: Option<Box<OwnedWhat>>,
    ip: Option<IpAddr>,
    mfa: Option<bool>,
    method: Option<Arc<str>>,
    route_class: Option<Arc<str>>,
}

#[derive(Clone, Debug)]
struct OwnedWhat {
    tenant: Arc<str>,
    tenant_status: Arc<str>,
    rest: What<'static>,
}

impl OwnedWhat {
    fn of(what: What<'_>) -> Self {
        let rest = What {
            tenant: "",
            tenant_status: "",
            link: what.link,
            partner: what.partner,
            starts: what.starts,
            ends: what.ends,
            require_mfa: what.require_mfa,
        };
        Self { tenant: what.tenant.into(), tenant_status: what.tenant_status.into(), rest }
    }

    fn view(&self) -> What<'_> {
        What { tenant: &self.tenant, tenant_status: &self.tenant_status, ..self.rest }
    }
}

impl Key {
    fn probe(&self) -> Probe<'_> {
        Probe {
            class: self.class,
            who: self.who.as_ref().map(|(issuer, sub, partner)| (&**issuer, &**sub, *partner)),
            what: self.what.as_ref().map(|what| what.view()),
            ip: self.ip,
            mfa: self.mfa,
            method: self.method.as_deref(),
            route_class: self.route_class.as_deref(),
        }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.probe().hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.probe() == other.probe()
    }
}

impl Eq for Key {}

impl Equivalent<Key> for Probe<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self == key.probe()
    }
}
