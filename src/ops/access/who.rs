//! `access who` and `access what`: every link of a tenant, or of a partner, as it stood at a time, with what it let whose
//! users do and by whose approval.
//!
//! What is history and what is only known as of now is said field by field (`known`) and in words: links, approvals and
//! suspensions are history; a row of a tenant, partner or user that was written since is known as it is now; policies and
//! roles are those of today; a user's own permissions come from tokens, which nothing but the record of a request keeps.

mod show;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::scene::{Desk, Head, Recorded, Set, Source, State, days_before};
use crate::{
    audit::{sweep::Wanted, usage},
    domain::{LinkId, LinkRole, Millis, PartnerId, PermissionSet, TenantId},
    ops::{Trouble, Window, aside},
    policy::{Effective, effective, granted},
    store::{AccessAt, Known, LinkThen, Side, UserRecord},
};

/// Whose links are shown.
#[derive(Clone, Debug)]
pub enum Subject {
    Tenant(TenantId),
    Partner(PartnerId),
}

impl From<&Subject> for Side {
    fn from(subject: &Subject) -> Self {
        match subject {
            Subject::Tenant(id) => Self::Tenant(id.clone()),
            Subject::Partner(id) => Self::Partner(*id),
        }
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    pub at: Millis,
    /// So many days before then users' tokens are looked for; 0: not at all.
    pub token_days: u32,
    pub window: Window,
    /// Users that are told at most, each once for every link: a partner may have many of both.
    pub most_users: usize,
}

/// Who could do what at a time.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AccessReview")]
pub struct Report {
    at: Millis,
    #[serde(flatten)]
    of: Head,
    /// The set that `permissions` are by: always today's.
    policies: String,
    policy_version: String,
    /// Where users' tokens were looked for, and from when on that knows.
    tokens: Tokens,
    links: Vec<LinkRow>,
    /// Of the subject; `links` may be a part of them.
    #[serde(skip)]
    pub total: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ReviewedTokens")]
struct Tokens {
    source: Source,
    since: Option<Millis>,
    knows_from: Option<Millis>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ReviewedLink")]
struct LinkRow {
    link_id: LinkId,
    tenant_id: TenantId,
    tenant_name: String,
    /// Does not by itself end access.
    tenant_status: String,
    tenant_known: Known,
    partner_id: PartnerId,
    partner_name: String,
    partner_is_active: bool,
    partner_known: Known,
    state: State,
    /// The link above that closed it, where it was not the link itself.
    closed_by: Option<LinkId>,
    suspended_by: Option<uuid::Uuid>,
    /// In force then, and now.
    version: i64,
    version_now: i64,
    access_role: LinkRole,
    relationship_type: &'static str,
    custom_permissions: BTreeMap<String, bool>,
    start_date: Millis,
    end_date: Option<Millis>,
    /// With the links above it.
    effective_from: Millis,
    effective_until: Option<Millis>,
    require_mfa: bool,
    allowed_cidrs: Vec<String>,
    parents: Vec<ParentRow>,
    created_by: String,
    created_at: Millis,
    approved_by: Option<String>,
    approved_at: Option<Millis>,
    widened_by: Option<Vec<String>>,
    changed_by: String,
    changed_at: Millis,
    permissions: Vec<Effective>,
    users: Vec<UserRow>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ReviewedParent")]
struct ParentRow {
    link_id: LinkId,
    partner_id: PartnerId,
    version: i64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ReviewedUser")]
struct UserRow {
    issuer: String,
    sub: String,
    username: Option<String>,
    /// Among the partner's users; otherwise only a token of a trusted issuer named the partner.
    registered: bool,
    is_active: bool,
    known: Known,
    suspended: bool,
    /// The last one that is recorded; `null`: none, so what the user may do at most is not known.
    token: Option<TokenRow>,
    /// What link and token allow together; `null` where the token is not known.
    permissions: Option<PermissionSet>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ReviewedToken")]
struct TokenRow {
    seen_at: Millis,
    roles: Vec<String>,
    permissions: Vec<String>,
    /// What that amounts to by the roles of today.
    holds: PermissionSet,
}

pub async fn report(subject: &Subject, asked: Question, set: &Set, desk: &Desk) -> Result<Report, Trouble> {
    let Question { at, token_days, window, most_users } = asked;
    let of = head(subject, at, desk).await?;
    let mut access = desk.admin.access_at(&Side::from(subject), at).await?;
    let users = window.of(&access.links).map(|link| access.users.get(&link.terms.partner_id).map_or(0, Vec::len));
    if users.sum::<usize>() > most_users {
        return Err(Trouble::Invalid(format!(
            "these links have more than {most_users} users, each told for every link: ask for fewer links at once (`limit`), \
             or at the command line"
        )));
    }
    let since = (token_days > 0).then(|| days_before(at, token_days));
    let recorded = match since {
        Some(_) => {
            let (partner_id, tenant) = match subject {
                Subject::Tenant(id) => (None, Some(id.to_string())),
                Subject::Partner(id) => (Some(*id), None),
            };
            // Up to the very millisecond.
            desk.recorded(Wanted { since, until: Some(Millis(at.0.saturating_add(1))), partner_id, tenant }).await?
        }
        None => Recorded::not_asked(),
    };
    let (set, total) = (set.clone(), access.links.len());
    // For each link the policies are asked of every permission.
    aside(move || {
        let shown: Vec<LinkThen> = std::mem::take(&mut access.links);
        let links = window.of(&shown).map(|link| row(link, &access, &recorded, &set)).collect::<Result<_, _>>()?;
        Ok(Report {
            at,
            of,
            policies: set.name.clone(),
            policy_version: set.bundle.version().to_owned(),
            tokens: Tokens { source: recorded.source, since, knows_from: recorded.knows_from },
            links,
            total,
        })
    })
    .await
}

/// The subject itself; before it was made known there is nothing to tell of it.
async fn head(subject: &Subject, at: Millis, desk: &Desk) -> Result<Head, Trouble> {
    let now = Millis::now();
    if at > now {
        return Err(Trouble::Invalid(format!(
            "{at} lies ahead (it is {now}): what will be is not known; `link list --expiring` tells of ends"
        )));
    }
    let (head, known_since) = match subject {
        Subject::Tenant(id) => {
            let tenant = desk.admin.tenant(id).await?;
            (Head { tenant_id: Some(id.clone()), partner_id: None, name: tenant.name }, tenant.stamps.created_at)
        }
        Subject::Partner(id) => {
            let partner = desk.admin.partner(*id).await?;
            (Head { tenant_id: None, partner_id: Some(*id), name: partner.name }, partner.stamps.created_at)
        }
    };
    if at < known_since {
        return Err(Trouble::Invalid(format!(
            "nothing is known of {at}: history begins at {known_since}, when this one was made known here"
        )));
    }
    Ok(head)
}

fn row(link: &LinkThen, access: &AccessAt, recorded: &Recorded, set: &Set) -> Result<LinkRow, Trouble> {
    let (terms, facts, at) = (&link.terms, &link.facts, access.at);
    let missing = || Trouble::Internal(format!("link `{}` names a tenant or partner that is not there", terms.id));
    let tenant = access.tenants.get(&terms.managed_tenant_id).ok_or_else(missing)?;
    let partner = access.partners.get(&terms.partner_id).ok_or_else(missing)?;
    let (state, closed_by) = State::of(facts, at);
    let permissions = effective(&set.bundle, facts, at);
    let allowed: PermissionSet = granted(&permissions).collect();
    let (effective_from, effective_until) = facts.window();
    let parents = facts.ancestors.iter().map(|parent| ParentRow {
        link_id: parent.link.id,
        partner_id: parent.link.partner_id,
        version: parent.link.version.0,
    });
    Ok(LinkRow {
        link_id: terms.id,
        tenant_id: terms.managed_tenant_id.clone(),
        tenant_name: tenant.name.clone(),
        tenant_status: tenant.status.clone(),
        tenant_known: Known::of(&tenant.stamps, at),
        partner_id: terms.partner_id,
        partner_name: partner.name.clone(),
        partner_is_active: partner.is_active,
        partner_known: Known::of(&partner.stamps, at),
        state,
        closed_by,
        suspended_by: link.suspended_by,
        version: terms.version,
        version_now: link.version_now,
        access_role: terms.access_role,
        relationship_type: terms.relationship_type.as_str(),
        custom_permissions: terms.custom_permissions.clone(),
        start_date: terms.start_date,
        end_date: terms.end_date,
        effective_from,
        effective_until,
        require_mfa: facts.requires_mfa(),
        allowed_cidrs: terms.allowed_cidrs.iter().map(ToString::to_string).collect(),
        parents: parents.collect(),
        created_by: terms.created_by.clone(),
        created_at: terms.created_at,
        approved_by: terms.approved_by.clone(),
        approved_at: terms.approved_at,
        widened_by: terms.widened_by.clone(),
        changed_by: terms.updated_by.clone(),
        changed_at: terms.updated_at,
        permissions,
        users: users(terms.partner_id, access, recorded, set, allowed),
    })
}

/// The partner's users of then, and those whom only a token named as such.
fn users(
    partner: PartnerId,
    access: &AccessAt,
    recorded: &Recorded,
    set: &Set,
    allowed: PermissionSet,
) -> Vec<UserRow> {
    let known: &[UserRecord] = access.users.get(&partner).map_or(&[], Vec::as_slice);
    let token = |issuer: &str, sub: &str| {
        let subject = usage::Subject { partner_id: partner, issuer: issuer.to_owned(), sub: sub.to_owned() };
        recorded.usage.claims.get(&subject).map(|(seen_at, claims)| TokenRow {
            seen_at: *seen_at,
            roles: claims.roles.clone(),
            permissions: claims.permissions.clone(),
            holds: claims.held(set.bundle.roles()),
        })
    };
    let may = |open: bool, token: &Option<TokenRow>| match open {
        true => token.as_ref().map(|token| token.holds.intersection(allowed)),
        false => Some(PermissionSet::EMPTY),
    };
    let mut rows: Vec<UserRow> = known
        .iter()
        .map(|user| {
            let (suspended, token) = (access.user_suspended(user), token(&user.issuer, &user.sub));
            UserRow {
                issuer: user.issuer.clone(),
                sub: user.sub.clone(),
                username: user.username.clone(),
                registered: true,
                is_active: user.is_active,
                known: Known::of(&user.stamps, access.at),
                suspended,
                // Who may have been active then counts as active.
                permissions: may(
                    (user.is_active || Known::of(&user.stamps, access.at) == Known::Now) && !suspended,
                    &token,
                ),
                token,
            }
        })
        .collect();
    let mut others: Vec<&usage::Subject> = recorded
        .usage
        .claims
        .keys()
        .filter(|one| one.partner_id == partner)
        .filter(|one| !known.iter().any(|user| user.issuer == one.issuer && user.sub == one.sub))
        .collect();
    others.sort_unstable();
    rows.extend(others.into_iter().map(|one| {
        let token = token(&one.issuer, &one.sub);
        let suspended = access.subject_suspended(&one.issuer, &one.sub);
        UserRow {
            issuer: one.issuer.clone(),
            sub: one.sub.clone(),
            username: None,
            registered: false,
            is_active: true,
            known: Known::Then,
            suspended,
            permissions: may(!suspended, &token),
            token,
        }
    }));
    rows
}
