//! What the policies were asked with, kept in the record so that the same question can be put to another set.
//!
//! Who, when, from where, which permission and which link a record says anyway. Here stands the rest: what the token
//! grants (names, because another set may have another role table), and the link's terms with everything around them
//! that a decision reads. They are written into the record itself rather than found in the link's history: partner,
//! tenant status, suspensions and parents have no history by version, and an exported journal has no database at all.
//! What is as it usually is (approved, active, no override) is left out, so that the usual link costs some sixty bytes.
//!
//! Private, and of a slice: part of the slice, which only its own tenant may see. Nothing here is secret: no token, no
//! key. `encode` calls the writers; `entry` and `sweep` read.

use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    decision::Decision,
    json::{Object, key, string},
};
use crate::domain::{
    Approval, Link, LinkFacts, LinkId, LinkRole, LinkVersion, Millis, PartnerId, PermissionSet, RoleTable, TenantId,
    facts::Ancestor,
};

/// The longest list of names that is recorded, in bytes. A token that grants more is a fault of its issuer; its
/// decisions are recorded and cannot be replayed.
const MAX_HOLDS_BYTES: usize = 8_192;

/// What a token grants, as it stands in records: made once for a session, written as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holds(Option<Box<str>>);

impl Holds {
    /// Claims that can grant nothing under any role table are left out: permissions that name none of the catalogue.
    pub fn of(roles: &[Arc<str>], permissions: &[Arc<str>]) -> Self {
        let mut out = Vec::new();
        let mut object = Object::new(&mut out);
        object.texts(key!("roles"), roles.iter().map(AsRef::as_ref));
        let granting = permissions.iter().filter(|name| !PermissionSet::from_claim(name).is_empty());
        object.texts(key!("permissions"), granting.map(AsRef::as_ref));
        object.end();
        Self(String::from_utf8(out).ok().filter(|text| text.len() <= MAX_HOLDS_BYTES).map(String::into_boxed_str))
    }
}

/// What was asked, as the request path has it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub holds: &'a Holds,
    pub user_suspended: bool,
    pub switch_context: bool,
    /// Only whether the user holds the permission at all was asked, before any tenant was looked at.
    pub caller_only: bool,
    /// The route's class.
    pub class: &'a str,
    /// The policies allowed it, whatever was refused after them.
    pub allowed: bool,
    /// `None`: no link, or each slice has its own.
    pub link: Option<&'a LinkFacts>,
}

/// The same, read back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// `None`: more than is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<Claims>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub user_suspended: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub switch_context: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub caller_only: bool,
    pub class: String,
    /// The policies allowed what was refused after them.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allowed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<RecordedLink>,
}

/// What a token grants, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub roles: Vec<String>,
    pub permissions: Vec<String>,
}

impl Claims {
    /// What they amount to under a role table.
    pub fn held(&self, roles: &RoleTable) -> PermissionSet {
        roles.holds(self.roles.iter().map(String::as_str), self.permissions.iter().map(String::as_str))
    }
}

/// A verdict beside the one in force: of the shadow set, or one that was not enforced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    /// The slice that it is about; `None`: the record as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_tenant_id: Option<String>,
    pub decision: Decision,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Arc<str>>,
}

/// What the shadow set said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadow {
    pub version: String,
    /// Only where it differs from the set in force; empty: it agreed in everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<Other>,
}

pub(super) fn write_asked(object: &mut Object<'_>, asked: &Asked<'_>, decision: Decision) {
    let mut inner = Object::new(object.key(key!("asked")));
    if let Some(holds) = &asked.holds.0 {
        inner.key(key!("holds")).extend_from_slice(holds.as_bytes());
    }
    for (name, value) in [
        (key!("user_suspended"), asked.user_suspended),
        (key!("switch_context"), asked.switch_context),
        (key!("caller_only"), asked.caller_only),
        (key!("allowed"), asked.allowed && decision == Decision::Deny),
    ] {
        if value {
            inner.flag(name, true);
        }
    }
    inner.text(key!("class"), asked.class);
    if let Some(link) = asked.link {
        write_link(inner.key(key!("link")), link);
    }
    inner.end();
}

/// The one writer of a link's facts, for records and slices.
pub(super) fn write_link(out: &mut Vec<u8>, facts: &LinkFacts) {
    let mut object = Object::new(out);
    write_terms(&mut object, &facts.link, facts.partner_active, facts.suspended);
    if &*facts.tenant_status != USUAL_STATUS {
        object.text(key!("tenant_status"), &facts.tenant_status);
    }
    if !facts.ancestors.is_empty() {
        let out = object.key(key!("parents"));
        for (at, parent) in facts.ancestors.iter().enumerate() {
            out.push(if at == 0 { b'[' } else { b',' });
            let mut one = Object::new(out);
            one.uuid(key!("id"), parent.link.id.0);
            one.uuid(key!("partner_id"), parent.link.partner_id.0);
            one.signed(key!("version"), parent.link.version.0);
            write_terms(&mut one, &parent.link, parent.partner_active, parent.suspended);
            one.end();
        }
        out.push(b']');
    }
    object.end();
}

const USUAL_STATUS: &str = "active";

fn write_terms(object: &mut Object<'_>, link: &Link, partner_active: bool, suspended: bool) {
    object.word(key!("role"), link.role.as_str());
    object.signed(key!("start_ms"), link.start.0);
    if let Some(end) = link.end {
        object.signed(key!("end_ms"), end.0);
    }
    for (name, set) in [(key!("granted"), link.granted), (key!("denied"), link.denied)] {
        if !set.is_empty() {
            write_set(object.key(name), set);
        }
    }
    if link.approval != Approval::Approved {
        object.word(key!("approval"), link.approval.as_str());
    }
    if !link.is_active {
        object.flag(key!("inactive"), true);
    }
    if link.require_mfa {
        object.flag(key!("require_mfa"), true);
    }
    if !link.allowed_cidrs.is_empty() {
        let out = object.key(key!("allowed_cidrs"));
        for (at, net) in link.allowed_cidrs.iter().enumerate() {
            out.push(if at == 0 { b'[' } else { b',' });
            string(out, &net.to_string());
        }
        out.push(b']');
    }
    if !partner_active {
        object.flag(key!("partner_inactive"), true);
    }
    if suspended {
        object.flag(key!("suspended"), true);
    }
}

/// Leaf by leaf, so that no later wildcard can mean more.
fn write_set(out: &mut Vec<u8>, set: PermissionSet) {
    for (at, permission) in set.iter().enumerate() {
        out.push(if at == 0 { b'[' } else { b',' });
        string(out, permission.name());
    }
    out.push(b']');
}

/// A link's facts in a record, ids aside: those the record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedLink(Arc<LinkFacts>);

impl From<Arc<LinkFacts>> for RecordedLink {
    fn from(facts: Arc<LinkFacts>) -> Self {
        Self(facts)
    }
}

impl RecordedLink {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        write_link(out, &self.0);
    }

    /// The facts under the ids that the record says beside them.
    pub fn facts(&self, id: LinkId, version: LinkVersion, partner_id: PartnerId, tenant_id: TenantId) -> LinkFacts {
        let mut facts = LinkFacts::clone(&self.0);
        for parent in &mut facts.ancestors {
            parent.link.tenant_id = tenant_id.clone();
        }
        facts.link = Link { id, version, partner_id, tenant_id, ..facts.link };
        facts
    }
}

impl Serialize for RecordedLink {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut out = Vec::new();
        write_link(&mut out, &self.0);
        let value: serde_json::Value = serde_json::from_slice(&out).map_err(serde::ser::Error::custom)?;
        value.serialize(to)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLink {
    id: Option<LinkId>,
    partner_id: Option<PartnerId>,
    version: Option<LinkVersion>,
    role: LinkRole,
    start_ms: i64,
    end_ms: Option<i64>,
    #[serde(default)]
    granted: Vec<String>,
    #[serde(default)]
    denied: Vec<String>,
    approval: Option<Approval>,
    #[serde(default)]
    inactive: bool,
    #[serde(default)]
    require_mfa: bool,
    #[serde(default)]
    allowed_cidrs: Vec<IpNet>,
    #[serde(default)]
    partner_inactive: bool,
    #[serde(default)]
    suspended: bool,
    tenant_status: Option<String>,
    #[serde(default)]
    parents: Vec<RawLink>,
}

impl RawLink {
    fn link(&self, tenant: &TenantId) -> Result<Link, String> {
        let nil = uuid::Uuid::nil();
        Ok(Link {
            id: self.id.unwrap_or(LinkId(nil)),
            partner_id: self.partner_id.unwrap_or(PartnerId(nil)),
            tenant_id: tenant.clone(),
            role: self.role,
            granted: set(&self.granted)?,
            denied: set(&self.denied)?,
            approval: self.approval.unwrap_or(Approval::Approved),
            is_active: !self.inactive,
            start: Millis(self.start_ms),
            end: self.end_ms.map(Millis),
            allowed_cidrs: self.allowed_cidrs.as_slice().into(),
            require_mfa: self.require_mfa,
            version: self.version.unwrap_or(LinkVersion(0)),
        })
    }
}

/// A name that this build does not know would change what is decided: the record then says nothing.
fn set(names: &[String]) -> Result<PermissionSet, String> {
    names.iter().try_fold(PermissionSet::EMPTY, |set, name| {
        PermissionSet::from_name(name).map(|more| set.union(more)).map_err(|error| error.to_string())
    })
}

impl<'de> Deserialize<'de> for RecordedLink {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = RawLink::deserialize(from)?;
        let failed = serde::de::Error::custom::<String>;
        let tenant = TenantId::new("-").map_err(serde::de::Error::custom)?;
        let parent = |parent: &RawLink| {
            let link = parent.link(&tenant)?;
            Ok(Ancestor { link, partner_active: !parent.partner_inactive, suspended: parent.suspended })
        };
        let ancestors: Result<Vec<_>, String> = raw.parents.iter().map(parent).collect();
        Ok(Self(Arc::new(LinkFacts {
            link: raw.link(&tenant).map_err(failed)?,
            partner_active: !raw.partner_inactive,
            suspended: raw.suspended,
            tenant_status: raw.tenant_status.as_deref().unwrap_or(USUAL_STATUS).into(),
            ancestors: ancestors.map_err(failed)?.into(),
        })))
    }
}

/// What another version wrote and this one cannot read counts as not recorded: the rest of the record stands.
pub(super) fn if_known<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    let raw = serde_json::Value::deserialize(from)?;
    Ok(serde_json::from_value(raw).ok())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
#[path = "asked_tests.rs"]
mod tests;
