//! A question that somebody makes up: the contract's own names as JSON, read strictly, turned into the facts of a decision.
//!
//! One line of `linkgate decide` is one, and so is every cell of a decision table (`suite`): there is one reader of them.
//! What a stored link could not be (an unknown override, a malformed network) is an error here; what it could be but
//! has no effect (an override set to true outside the role's own set) has none here either.

use std::{borrow::Cow, net::IpAddr};

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, de::IgnoredAny};

use super::bundle::Bundle;
use crate::domain::{
    Approval, Case, Facts, Link, LinkFacts, LinkId, LinkRole, LinkVersion, Millis, PartnerId, Permission,
    PermissionSet, TenantId, UserFacts,
    facts::Ancestor,
    permission::Kind,
    role::UnknownRole,
    strict_json::{Object, UniqueKeys},
};

/// A question that can be decided.
#[derive(Debug)]
pub struct WhatIf<'a> {
    user: UserFacts,
    link: Option<LinkFacts>,
    permission: Permission,
    now: Millis,
    ip: IpAddr,
    mfa: bool,
    proxied: bool,
    method: Cow<'a, str>,
    route_class: Cow<'a, str>,
}

impl<'a> WhatIf<'a> {
    /// The error is a message for the line's author.
    pub fn read(bundle: &Bundle, line: &'a [u8]) -> Result<Self, String> {
        let Object(question): Object<Question<'a>> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let permission = permission(&question.permission)?;
        let link = question.link.map(|Object(link)| link.facts(bundle)).transpose()?;
        Ok(Self {
            user: question.user.0.facts(bundle, link.as_ref()),
            link,
            permission,
            now: question.now.unwrap_or_else(Millis::now),
            ip: question.ip.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)),
            mfa: question.mfa.unwrap_or(false),
            proxied: question.proxied.unwrap_or(true),
            method: question.method.unwrap_or_default(),
            route_class: question.route_class.unwrap_or(Cow::Borrowed(match permission.kind() {
                Kind::Read | Kind::Context => "read",
                Kind::Write => "write",
                Kind::Export => "export",
            })),
        })
    }

    /// The same, for those who change a fact and ask again.
    pub fn into_case(self) -> Case {
        Case {
            user: self.user,
            link: self.link,
            permission: self.permission,
            switch_context: self.proxied,
            now: self.now,
            ip: self.ip,
            mfa: self.mfa,
            method: self.method.as_ref().into(),
            route_class: self.route_class.as_ref().into(),
        }
    }

    pub fn facts(&self) -> Facts<'_> {
        Facts {
            user: &self.user,
            link: self.link.as_ref(),
            permission: self.permission,
            switch_context: self.proxied,
            now: self.now,
            ip: self.ip,
            mfa: self.mfa,
            method: &self.method,
            route_class: &self.route_class,
        }
    }
}

/// Of the JSON that it is read from.
impl JsonSchema for WhatIf<'_> {
    fn schema_name() -> Cow<'static, str> {
        Question::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        Question::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Question::json_schema(generator)
    }
}

/// The names that a question may use, in three places: of the question itself, of its `user`, of its `link`.
pub(super) fn known_names() -> [&'static [&'static str]; 3] {
    [Names::of::<Question<'_>>(), Names::of::<User<'_>>(), Names::of::<GivenLink<'_>>()]
}

/// A deserializer that gives nothing and keeps the names that a struct asks for: the list cannot differ from the reader.
struct Names<'a>(&'a mut &'static [&'static str]);

impl Names<'_> {
    fn of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
        let mut names: &'static [&'static str] = &[];
        // The names have been kept by the time that it fails.
        let _ = T::deserialize(Names(&mut names));
        names
    }
}

impl<'de> serde::Deserializer<'de> for Names<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: serde::de::Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("no value"))
    }

    fn deserialize_struct<V: serde::de::Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn permission(name: &str) -> Result<Permission, String> {
    Permission::parse(name).ok_or_else(|| match PermissionSet::from_name(name) {
        Ok(_) => format!("`{name}` is a group: ask for a single permission"),
        Err(unknown) => unknown.to_string(),
    })
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "WhatIf")]
struct Question<'a> {
    #[serde(borrow, default)]
    #[schemars(with = "User<'a>")]
    user: Object<User<'a>>,
    #[serde(borrow, default)]
    #[schemars(with = "Option<GivenLink<'a>>")]
    link: Option<Object<GivenLink<'a>>>,
    #[serde(borrow)]
    permission: Cow<'a, str>,
    #[serde(default, deserialize_with = "Millis::written")]
    now: Option<Millis>,
    ip: Option<IpAddr>,
    mfa: Option<bool>,
    proxied: Option<bool>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    route_class: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "WhatIfUser")]
struct User<'a> {
    #[serde(borrow)]
    roles: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow)]
    permissions: Option<Vec<Cow<'a, str>>>,
    suspended: Option<bool>,
    #[serde(borrow)]
    issuer: Option<Cow<'a, str>>,
    #[serde(borrow)]
    sub: Option<Cow<'a, str>>,
    partner_id: Option<PartnerId>,
}

impl User<'_> {
    /// A user without a partner of their own is one of the link's.
    fn facts(self, bundle: &Bundle, link: Option<&LinkFacts>) -> UserFacts {
        let nobody = PartnerId(uuid::Uuid::nil());
        let (roles, permissions) = (self.roles.unwrap_or_default(), self.permissions.unwrap_or_default());
        UserFacts {
            issuer: self.issuer.unwrap_or_default().into(),
            sub: self.sub.unwrap_or_default().into(),
            partner_id: self.partner_id.or(link.map(|link| link.link.partner_id)).unwrap_or(nobody),
            holds: bundle.roles().holds(roles.iter().map(|role| &**role), permissions.iter().map(|name| &**name)),
            suspended: self.suspended.unwrap_or(false),
        }
    }
}

/// The names of the contract's section 5; those that no decision reads are taken and let go.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "WhatIfLink")]
struct GivenLink<'a> {
    id: Option<LinkId>,
    partner_id: Option<PartnerId>,
    managed_tenant_id: Option<TenantId>,
    #[serde(borrow)]
    access_role: Cow<'a, str>,
    #[schemars(with = "Option<std::collections::BTreeMap<String, bool>>")]
    custom_permissions: Option<UniqueKeys<bool>>,
    #[serde(default, deserialize_with = "Millis::written")]
    start_date: Option<Millis>,
    #[serde(default, deserialize_with = "Millis::written")]
    end_date: Option<Millis>,
    is_active: Option<bool>,
    approval: Option<Approval>,
    #[serde(borrow)]
    allowed_cidrs: Option<Vec<Cow<'a, str>>>,
    require_mfa: Option<bool>,
    parent_link_id: Option<LinkId>,
    #[schemars(with = "Option<i64>")]
    version: Option<LinkVersion>,
    partner_active: Option<bool>,
    suspended: Option<bool>,
    #[serde(borrow)]
    tenant_status: Option<Cow<'a, str>>,
    #[serde(borrow)]
    #[schemars(with = "Option<Vec<GivenLink<'a>>>")]
    parents: Option<Vec<Object<GivenLink<'a>>>>,
    #[serde(rename = "partner_tenant_id")]
    #[schemars(with = "Option<serde_json::Value>")]
    _partner_tenant_id: Option<IgnoredAny>,
    #[serde(rename = "relationship_type")]
    #[schemars(with = "Option<serde_json::Value>")]
    _relationship_type: Option<IgnoredAny>,
    #[serde(rename = "notify_on_sla_breach")]
    #[schemars(with = "Option<serde_json::Value>")]
    _notify_on_sla_breach: Option<IgnoredAny>,
    #[serde(rename = "notify_on_billing_threshold")]
    #[schemars(with = "Option<serde_json::Value>")]
    _notify_on_billing_threshold: Option<IgnoredAny>,
    #[serde(rename = "billing_alert_threshold")]
    #[schemars(with = "Option<serde_json::Value>")]
    _billing_alert_threshold: Option<IgnoredAny>,
    #[serde(rename = "sla_response_hours")]
    #[schemars(with = "Option<serde_json::Value>")]
    _sla_response_hours: Option<IgnoredAny>,
    #[serde(rename = "sla_uptime_target")]
    #[schemars(with = "Option<serde_json::Value>")]
    _sla_uptime_target: Option<IgnoredAny>,
    #[serde(rename = "notes")]
    #[schemars(with = "Option<serde_json::Value>")]
    _notes: Option<IgnoredAny>,
    #[serde(rename = "metadata")]
    #[schemars(with = "Option<serde_json::Value>")]
    _metadata: Option<IgnoredAny>,
    #[serde(rename = "created_at")]
    #[schemars(with = "Option<serde_json::Value>")]
    _created_at: Option<IgnoredAny>,
    #[serde(rename = "updated_at")]
    #[schemars(with = "Option<serde_json::Value>")]
    _updated_at: Option<IgnoredAny>,
    #[serde(rename = "created_by")]
    #[schemars(with = "Option<serde_json::Value>")]
    _created_by: Option<IgnoredAny>,
    #[serde(rename = "updated_by")]
    #[schemars(with = "Option<serde_json::Value>")]
    _updated_by: Option<IgnoredAny>,
    #[serde(rename = "approved_by")]
    #[schemars(with = "Option<serde_json::Value>")]
    _approved_by: Option<IgnoredAny>,
    #[serde(rename = "approved_at")]
    #[schemars(with = "Option<serde_json::Value>")]
    _approved_at: Option<IgnoredAny>,
    #[serde(rename = "widened_by")]
    #[schemars(with = "Option<serde_json::Value>")]
    _widened_by: Option<IgnoredAny>,
}

impl GivenLink<'_> {
    fn facts(mut self, bundle: &Bundle) -> Result<LinkFacts, String> {
        let parents = self.parents.take().unwrap_or_default();
        if self.parent_link_id.is_some() && parents.is_empty() {
            return Err("the link names a parent: give it (and those above it) in `parents`".to_owned());
        }
        if !parents.is_empty() && self.access_role != LinkRole::Delegate.as_str() {
            return Err(format!(
                "a link with `parents` is delegated onward, and such a link is always of role `delegate`, not `{}`",
                self.access_role
            ));
        }
        let mut ancestors = Vec::with_capacity(parents.len());
        for Object(mut parent) in parents {
            if parent.parents.take().is_some_and(|more| !more.is_empty()) {
                return Err("a parent takes no `parents` of its own: list all of them in the link's".to_owned());
            }
            let (partner_active, suspended) = parent.flags();
            ancestors.push(Ancestor { partner_active, suspended, link: parent.link(bundle)? });
        }
        let (partner_active, suspended) = self.flags();
        let tenant_status = self.tenant_status.take().unwrap_or_default().into();
        Ok(LinkFacts {
            partner_active,
            suspended,
            tenant_status,
            ancestors: ancestors.into(),
            link: self.link(bundle)?,
        })
    }

    fn flags(&self) -> (bool, bool) {
        (self.partner_active.unwrap_or(true), self.suspended.unwrap_or(false))
    }

    fn link(self, bundle: &Bundle) -> Result<Link, String> {
        let nil = uuid::Uuid::nil();
        let role: LinkRole = self.access_role.parse().map_err(|error: UnknownRole| error.to_string())?;
        let (mut granted, mut denied) = (PermissionSet::EMPTY, PermissionSet::EMPTY);
        for (name, value) in self.custom_permissions.map(|map| map.0).unwrap_or_default() {
            let set = PermissionSet::from_name(&name).map_err(|error| error.to_string())?;
            let into = if value { &mut granted } else { &mut denied };
            *into = into.union(set);
        }
        if role != LinkRole::Delegate {
            granted = granted.intersection(bundle.roles().link_role(role));
        }
        let tenant_id = match self.managed_tenant_id {
            Some(id) => id,
            None => TenantId::new("tenant").map_err(|error| error.to_string())?,
        };
        let cidrs = self.allowed_cidrs.unwrap_or_default();
        Ok(Link {
            id: self.id.unwrap_or(LinkId(nil)),
            partner_id: self.partner_id.unwrap_or(PartnerId(nil)),
            tenant_id,
            role,
            granted,
            denied,
            approval: self.approval.unwrap_or(Approval::Approved),
            is_active: self.is_active.unwrap_or(true),
            start: self.start_date.unwrap_or(Millis(i64::MIN)),
            end: self.end_date,
            allowed_cidrs: cidrs.iter().map(|text| network(text)).collect::<Result<_, _>>()?,
            require_mfa: self.require_mfa.unwrap_or(false),
            version: self.version.unwrap_or(LinkVersion(1)),
        })
    }
}

/// A network, or a single address. What `link create` would ask to have written otherwise is taken as it stands here:
/// bits beyond the prefix mean nothing, and an IPv4 network in IPv6 form holds no address, because callers' are unmapped.
fn network(text: &str) -> Result<IpNet, String> {
    text.parse()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| format!("`{text}` is no network: write an address and a prefix length, such as 192.0.2.0/24"))
}
