//! Turns the facts of a decision into Cedar's request and entities, complete: Cedar alone, without the native gates,
//! must come to the same answer.
//!
//! Only the entities of this one question are built (adding to a large prebuilt store is slower than a small new one).
//! This is the cold path; the memo stands before it.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    net::{IpAddr, Ipv6Addr},
};

use cedar_policy::{Context, Entities, Entity, EntityUid, Request, RestrictedExpression, Schema};

use super::schema::{Vocabulary, uid};
use crate::domain::{Approval, Facts, LinkFacts, Millis, Permission, PermissionSet, RoleTable};

/// One question to Cedar, for one or two actions over the same entities.
pub(super) struct Question {
    pub(super) entities: Entities,
    context: Context,
    principal: EntityUid,
    resource: EntityUid,
}

/// The facts could not be put into Cedar's terms: a fault of ours or of an edited schema, so the answer is a refusal.
#[derive(Debug, thiserror::Error)]
#[error("the facts do not fit the policies' schema: {0}")]
pub(super) struct Unfit(String);

impl Unfit {
    fn of(error: &dyn std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl Question {
    /// With `check`, request and entities are held against the schema (at load and in tests).
    pub(super) fn new(
        words: &Vocabulary,
        roles: &RoleTable,
        facts: &Facts<'_>,
        check: Option<&Schema>,
    ) -> Result<Self, Unfit> {
        let partner = uid(&words.partner_type, &facts.user.partner_id.to_string());
        let principal = uid(&words.user_type, &principal_id(&facts.user.issuer, &facts.user.sub));
        let mut entities = vec![user_entity(words, facts, &principal, &partner)?];
        let mut partners = HashSet::from([partner]);
        let resource = match facts.link {
            Some(link) => {
                let (tenant, resource, owner) = link_entities(words, roles, link, &mut entities)?;
                partners.insert(owner);
                entities.push(tenant);
                resource
            }
            // No link: the resource is the bare tenant, and nothing permits anything on it.
            None => {
                let tenant = uid(&words.tenant_type, "");
                entities.push(tenant_entity(&tenant, "")?);
                tenant
            }
        };
        entities.extend(partners.into_iter().map(Entity::with_uid));
        // With a schema the action entities are added by Cedar itself.
        if check.is_none() {
            entities.extend(asked(facts).iter().filter_map(|one| words.action(one)).cloned());
        }
        let entities = Entities::from_entities(entities, check).map_err(|error| Unfit::of(&error))?;
        let context = context(facts)?;
        Ok(Self { entities, context, principal, resource })
    }

    pub(super) fn request(
        &self,
        words: &Vocabulary,
        permission: Permission,
        check: Option<&Schema>,
    ) -> Result<Request, Unfit> {
        let action = words.action(permission).ok_or_else(|| Unfit(format!("no action `{permission}`")))?.uid();
        Request::new(self.principal.clone(), action, self.resource.clone(), self.context.clone(), check)
            .map_err(|error| Unfit::of(&error))
    }
}

/// The permissions that have to be allowed, each an action of its own.
pub(super) fn asked(facts: &Facts<'_>) -> PermissionSet {
    let permission = PermissionSet::of(facts.permission);
    if facts.switch_context { permission.union(PermissionSet::of(Permission::SWITCH_CONTEXT)) } else { permission }
}

/// `issuer|sub`, the issuer's own bars escaped, so that no two users share an id.
fn principal_id(issuer: &str, sub: &str) -> String {
    format!("{}|{sub}", issuer.replace('%', "%25").replace('|', "%7C"))
}

type Attributes = HashMap<String, RestrictedExpression>;

fn attributes<const N: usize>(pairs: [(&str, RestrictedExpression); N]) -> Attributes {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn user_entity(
    words: &Vocabulary,
    facts: &Facts<'_>,
    principal: &EntityUid,
    partner: &EntityUid,
) -> Result<Entity, Unfit> {
    let user = facts.user;
    let attributes = attributes([
        ("partner", RestrictedExpression::new_entity_uid(partner.clone())),
        ("issuer", RestrictedExpression::new_string(user.issuer.to_string())),
        ("sub", RestrictedExpression::new_string(user.sub.to_string())),
        ("holds", words.set(user.holds)),
        ("suspended", RestrictedExpression::new_bool(user.suspended)),
    ]);
    Entity::new(principal.clone(), attributes, HashSet::from([partner.clone()])).map_err(|error| Unfit::of(&error))
}

fn tenant_entity(tenant: &EntityUid, status: &str) -> Result<Entity, Unfit> {
    let attributes = attributes([("status", RestrictedExpression::new_string(status.to_owned()))]);
    Entity::new(tenant.clone(), attributes, HashSet::new()).map_err(|error| Unfit::of(&error))
}

/// The tenant, the uid of the link (pushed onto `into`), and the link's partner.
fn link_entities(
    words: &Vocabulary,
    roles: &RoleTable,
    facts: &LinkFacts,
    into: &mut Vec<Entity>,
) -> Result<(Entity, EntityUid, EntityUid), Unfit> {
    let link = &facts.link;
    let chain = || std::iter::once(link).chain(facts.ancestors.iter().map(|parent| &parent.link));
    let owner = uid(&words.partner_type, &link.partner_id.to_string());
    let tenant = uid(&words.tenant_type, link.tenant_id.as_str());
    let resource = uid(&words.link_type, &link.id.to_string());
    let role = words.role(link.role).ok_or_else(|| Unfit(format!("no role `{}`", link.role)))?;
    let (starts, ends) = facts.window();
    let suspended = facts.is_suspended();
    let partner_active = facts.partners_active();
    let mut attributes = attributes([
        ("partner", RestrictedExpression::new_entity_uid(owner.clone())),
        ("tenant", RestrictedExpression::new_entity_uid(tenant.clone())),
        ("role", role.clone()),
        ("suspended", RestrictedExpression::new_bool(suspended)),
        ("partner_active", RestrictedExpression::new_bool(partner_active)),
        ("approved", RestrictedExpression::new_bool(chain().all(|one| one.approval == Approval::Approved))),
        ("active", RestrictedExpression::new_bool(chain().all(|one| one.is_active))),
        ("starts", datetime(starts)),
        ("require_mfa", RestrictedExpression::new_bool(facts.requires_mfa())),
        ("granted", words.set(link.granted)),
        ("denied", words.set(link.denied)),
        ("ceiling", words.set(facts.ceiling(roles))),
    ]);
    if let Some(ends) = ends {
        attributes.insert("ends".to_owned(), datetime(ends));
    }
    let entity = Entity::new(resource.clone(), attributes, HashSet::from([tenant.clone()]))
        .map_err(|error| Unfit::of(&error))?;
    into.push(entity);
    Ok((tenant_entity(&tenant, &facts.tenant_status)?, resource, owner))
}

fn context(facts: &Facts<'_>) -> Result<Context, Unfit> {
    let address_allowed = facts.link.is_some_and(|link| link.admits(facts.ip));
    let pairs = [
        ("now", datetime(facts.now)),
        ("ip", address(facts.ip)),
        ("mfa", RestrictedExpression::new_bool(facts.mfa)),
        ("address_allowed", RestrictedExpression::new_bool(address_allowed)),
        ("method", RestrictedExpression::new_string(facts.method.to_owned())),
        ("route_class", RestrictedExpression::new_string(facts.route_class.to_owned())),
    ];
    Context::from_pairs(pairs.map(|(name, value)| (name.to_owned(), value))).map_err(|error| Unfit::of(&error))
}

/// First instant that Cedar's `datetime` literal can name (the year 0000), and the last one that `Millis` can print.
pub(super) const FIRST: i64 = -62_167_219_200_000;
pub(super) const LAST: i64 = 253_402_207_200_000;

fn datetime(at: Millis) -> RestrictedExpression {
    RestrictedExpression::new_datetime(clamp(at).to_string())
}

/// The nearest instant that a policy can be told of.
pub(super) fn clamp(at: Millis) -> Millis {
    Millis(at.0.clamp(FIRST, LAST))
}

/// Mapped IPv4 as IPv4; IPv6 spelt out, because Cedar refuses the forms with an embedded IPv4 address.
fn address(ip: IpAddr) -> RestrictedExpression {
    match ip.to_canonical() {
        IpAddr::V4(v4) => RestrictedExpression::new_ip(v4.to_string()),
        IpAddr::V6(v6) => RestrictedExpression::new_ip(spelt(v6)),
    }
}

/// An IPv6 address with all its segments.
pub(super) fn spelt(v6: Ipv6Addr) -> String {
    let mut text = String::with_capacity(39);
    for (at, segment) in v6.segments().into_iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}{segment:x}", if at == 0 { "" } else { ":" });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_users_share_an_id() {
        let pairs = [("a|b", "c"), ("a", "b|c"), ("a%7Cb", "c"), ("a", "c"), ("", "a|c")];
        let ids: HashSet<_> = pairs.iter().map(|(issuer, sub)| principal_id(issuer, sub)).collect();
        assert_eq!(ids.len(), pairs.len(), "{ids:?}");
    }

    #[test]
    fn every_instant_and_address_has_a_form_that_cedar_takes() {
        for at in [i64::MIN, FIRST, -1, 0, 1_790_000_000_123, LAST, i64::MAX] {
            let made = Context::from_pairs([("at".to_owned(), datetime(Millis(at)))]);
            assert!(made.is_ok(), "{at}: {}", Millis(at.clamp(FIRST, LAST)));
        }
        for ip in ["10.1.2.3", "::ffff:10.1.2.3", "::10.1.2.3", "::", "2001:db8::1"] {
            Context::from_pairs([("ip".to_owned(), address(ip.parse().unwrap()))]).unwrap();
        }
    }
}
