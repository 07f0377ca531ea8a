//! `access who` and `access what`: every link of a tenant, or of a partner, as it stood at a time, with what it let whose
//! users do and by whose approval.
//!
//! What is history and what is only known as of now is said field by field (`known`) and in words: links, approvals and
//! suspensions are history; a row of a tenant, partner or user that was written since is known as it is now; policies and
//! roles are those of today; a user's own permissions come from tokens, which nothing but the record of a request keeps.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Rows, WhenArgs, not_ahead,
    scene::{Desk, Head, Recorded, Set, Source, State, days_before, with},
    table::{Table, cell, joined, names, yes},
};
use crate::{
    audit::{sweep::Wanted, usage},
    cli::{
        audit::plain,
        context::Context,
        outcome::{Exit, Failure},
    },
    domain::{LinkId, LinkRole, Millis, PartnerId, Permission, PermissionSet, TenantId, permission::cover},
    policy::{Answer, Effective, effective, granted},
    store::{AccessAt, Known, LinkThen, Side, UserRecord},
};

/// Whose links are shown.
#[derive(Clone, Debug)]
pub(super) enum Subject {
    Tenant(TenantId),
    Partner(PartnerId),
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    at: Millis,
    #[serde(flatten)]
    of: Head,
    /// The set that `permissions` are by: always today's.
    policies: String,
    policy_version: String,
    /// Where users' tokens were looked for, and from when on that knows.
    tokens: Tokens,
    links: Vec<LinkRow>,
}

#[derive(Debug, Serialize)]
struct Tokens {
    source: Source,
    since: Option<Millis>,
    knows_from: Option<Millis>,
}

#[derive(Debug, Serialize)]
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

#[derive(Debug, Serialize)]
struct ParentRow {
    link_id: LinkId,
    partner_id: PartnerId,
    version: i64,
}

#[derive(Debug, Serialize)]
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

#[derive(Debug, Serialize)]
struct TokenRow {
    seen_at: Millis,
    roles: Vec<String>,
    permissions: Vec<String>,
    /// What that amounts to by the roles of today.
    holds: PermissionSet,
}

pub(super) fn run(subject: &Subject, args: &WhenArgs, context: &Context) -> Result<(), Failure> {
    let at = not_ahead(args.at)?;
    let set = Set::load(&args.set, context)?;
    let report = with(context, &set, async |desk| report(subject, args, at, &set, desk).await)?;
    match args.csv.filter(|_| !context.console.json) {
        Some(Rows::Permissions) => report.permissions_csv(),
        Some(Rows::Users) => report.users_csv(),
        None => context.console.show(&report, report.text()),
    }
}

async fn report(subject: &Subject, args: &WhenArgs, at: Millis, set: &Set, desk: &Desk) -> Result<Report, Failure> {
    let of = head(subject, at, desk).await?;
    let access = desk.admin.access_at(&Side::from(subject), at).await?;
    let since = (args.token_days > 0).then(|| days_before(at, args.token_days));
    let recorded = match since {
        Some(_) => {
            let (partner_id, tenant) = match subject {
                Subject::Tenant(id) => (None, Some(id.to_string())),
                Subject::Partner(id) => (Some(*id), None),
            };
            // Up to the very millisecond.
            desk.recorded(&Wanted { since, until: Some(Millis(at.0.saturating_add(1))), partner_id, tenant }).await?
        }
        None => Recorded::not_asked(),
    };
    let links = access.links.iter().map(|link| row(link, &access, &recorded, set)).collect::<Result<_, _>>()?;
    Ok(Report {
        at,
        of,
        policies: set.name.clone(),
        policy_version: set.bundle.version().to_owned(),
        tokens: Tokens { source: recorded.source, since, knows_from: recorded.knows_from },
        links,
    })
}

/// The subject itself; before it was made known there is nothing to tell of it.
async fn head(subject: &Subject, at: Millis, desk: &Desk) -> Result<Head, Failure> {
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
        return Err(Failure::new(
            Exit::Invalid,
            format_args!(
                "nothing is known of {at}: history begins at {known_since}, when this one was made known here"
            ),
        ));
    }
    Ok(head)
}

fn row(link: &LinkThen, access: &AccessAt, recorded: &Recorded, set: &Set) -> Result<LinkRow, Failure> {
    let (terms, facts, at) = (&link.terms, &link.facts, access.at);
    let missing = || Failure::failed(format_args!("link `{}` names a tenant or partner that is not there", terms.id));
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

impl Report {
    fn text(&self) -> String {
        let live = self.links.iter().filter(|link| link.state == State::Live).count();
        let mut lines = vec![
            format!("{} at {}: {} links, {live} of them live", plain(&self.of.name), self.at, self.links.len()),
            format!(
                "then: links, approvals, suspensions; today: policies and roles ({}, version {}){}",
                self.policies,
                self.policy_version.get(..12).unwrap_or_default(),
                if self.is_known_now() { ", and what is marked `as of now`" } else { "" }
            ),
            match (self.tokens.source, self.tokens.since, self.tokens.knows_from) {
                (Source::NotAsked, ..) | (_, None, _) => "users' own permissions: not looked for".to_owned(),
                (_, Some(since), None) => format!("users' own permissions: no request is recorded since {since}"),
                (_, Some(since), Some(from)) => format!(
                    "users' own permissions: of the last token that a request showed from {} on",
                    since.max(from)
                ),
            },
        ];
        for link in &self.links {
            lines.extend(link.lines());
        }
        lines.join("\n")
    }

    fn is_known_now(&self) -> bool {
        self.links.iter().any(|link| {
            link.tenant_known == Known::Now
                || link.partner_known == Known::Now
                || link.users.iter().any(|user| user.known == Known::Now)
        })
    }

    fn permissions_csv(&self) -> Result<(), Failure> {
        let mut table = Table::begin(&[
            "at",
            "tenant_id",
            "tenant_name",
            "tenant_status",
            "partner_id",
            "partner_name",
            "link_id",
            "link_version",
            "state",
            "access_role",
            "permission",
            "answer",
            "depends_on",
            "closed_gate",
            "rules",
            "effective_from",
            "effective_until",
            "require_mfa",
            "allowed_cidrs",
            "parent_link_ids",
            "created_by",
            "created_at",
            "approved_by",
            "approved_at",
            "widened_by",
            "users_who_could",
            "policy_version",
        ])?;
        for link in &self.links {
            let fixed = link.fixed(self.at);
            for row in &link.permissions {
                let could =
                    link.users.iter().filter(|user| user.permissions.is_some_and(|set| set.contains(row.permission)));
                let rest = [
                    row.permission.name().to_owned(),
                    answer(row.answer).to_owned(),
                    joined(&row.on),
                    cell(row.gate),
                    joined(&row.rules),
                    link.effective_from.to_string(),
                    cell(link.effective_until),
                    yes(link.require_mfa).to_owned(),
                    joined(&link.allowed_cidrs),
                    joined(link.parents.iter().map(|parent| parent.link_id)),
                    link.created_by.clone(),
                    link.created_at.to_string(),
                    cell(link.approved_by.as_ref()),
                    cell(link.approved_at),
                    link.widened_by.as_ref().map(joined).unwrap_or_default(),
                    could.map(|user| user.sub.as_str()).collect::<Vec<_>>().join("; "),
                    self.policy_version.clone(),
                ];
                table.row(fixed.iter().chain(&rest).map(String::as_str))?;
            }
        }
        table.end()
    }

    fn users_csv(&self) -> Result<(), Failure> {
        let mut table = Table::begin(&[
            "at",
            "tenant_id",
            "tenant_name",
            "tenant_status",
            "partner_id",
            "partner_name",
            "link_id",
            "link_version",
            "state",
            "access_role",
            "user_issuer",
            "user_sub",
            "username",
            "registered",
            "is_active",
            "is_active_known",
            "suspended",
            "token_seen_at",
            "token_roles",
            "token_permissions",
            "permissions_known",
            "permissions",
        ])?;
        for link in &self.links {
            let fixed = link.fixed(self.at);
            for user in &link.users {
                let token = user.token.as_ref();
                let rest = [
                    user.issuer.clone(),
                    user.sub.clone(),
                    cell(user.username.as_ref()),
                    yes(user.registered).to_owned(),
                    yes(user.is_active).to_owned(),
                    match user.known {
                        Known::Then => "then",
                        Known::Now => "now",
                    }
                    .to_owned(),
                    yes(user.suspended).to_owned(),
                    cell(token.map(|token| token.seen_at)),
                    token.map(|token| joined(&token.roles)).unwrap_or_default(),
                    token.map(|token| joined(&token.permissions)).unwrap_or_default(),
                    yes(user.permissions.is_some()).to_owned(),
                    names(user.permissions.unwrap_or_default().iter()),
                ];
                table.row(fixed.iter().chain(&rest).map(String::as_str))?;
            }
        }
        table.end()
    }
}

fn answer(answer: Answer) -> &'static str {
    match answer {
        Answer::Yes => "yes",
        Answer::No => "no",
        Answer::Depends => "depends",
    }
}

/// A set by its widest names.
fn wide(set: PermissionSet) -> String {
    if set.is_empty() { "nothing".to_owned() } else { cover(set, set).join(", ") }
}

fn as_of_now(known: Known) -> &'static str {
    match known {
        Known::Then => "",
        Known::Now => " (as of now)",
    }
}

impl LinkRow {
    /// The first columns of both tables.
    fn fixed(&self, at: Millis) -> [String; 10] {
        [
            at.to_string(),
            self.tenant_id.to_string(),
            self.tenant_name.clone(),
            self.tenant_status.clone(),
            self.partner_id.to_string(),
            self.partner_name.clone(),
            self.link_id.to_string(),
            self.version.to_string(),
            self.state.as_str().to_owned(),
            self.access_role.to_string(),
        ]
    }

    fn of(&self, answer: Answer) -> PermissionSet {
        self.permissions.iter().filter(|row| row.answer == answer).map(|row| row.permission).collect()
    }

    fn lines(&self) -> Vec<String> {
        let state = match (self.closed_by, self.suspended_by) {
            (Some(parent), _) => format!("{} (by link {parent} above it)", self.state.as_str()),
            (None, Some(suspension)) => format!("{} ({suspension})", self.state.as_str()),
            (None, None) => self.state.as_str().to_owned(),
        };
        let until = self.effective_until.map_or_else(|| "on".to_owned(), |end| format!("until {end}"));
        let mut lines = vec![
            String::new(),
            format!("{} in {}: {state}, {}", plain(&self.partner_name), plain(&self.tenant_name), self.access_role),
            format!("  link      {} version {} of {}", self.link_id, self.version, self.version_now),
            format!("  window    from {} {until}", self.effective_from),
            format!("  created   by {} at {}", plain(&self.created_by), self.created_at),
            match (&self.approved_by, self.approved_at) {
                (Some(by), Some(when)) => format!("  approved  by {} at {when}", plain(by)),
                _ => "  approved  by nobody that is recorded".to_owned(),
            },
        ];
        if let Some(names) = self.widened_by.as_ref().filter(|names| !names.is_empty()) {
            lines.push(format!("  asked by  {}", plain(&names.join(", "))));
        }
        if !self.partner_is_active || self.partner_known == Known::Now {
            let active = if self.partner_is_active { "active" } else { "inactive" };
            let then = if self.partner_known == Known::Now { "; not known of then: counted as active" } else { "" };
            lines.push(format!("  partner   {active}{}{then}", as_of_now(self.partner_known)));
        }
        if self.tenant_status != "active" {
            let known = as_of_now(self.tenant_known);
            lines.push(format!("  tenant    {}{known}; that alone ends no access", plain(&self.tenant_status)));
        }
        let mut limits: Vec<String> = self.allowed_cidrs.clone();
        limits.extend(self.require_mfa.then(|| "MFA".to_owned()));
        if !limits.is_empty() {
            lines.push(format!("  limits    {}", limits.join(" ")));
        }
        if !self.custom_permissions.is_empty() {
            let words = self.custom_permissions.iter().map(|(name, allow)| format!("{name}={allow}"));
            lines.push(format!("  override  {}", words.collect::<Vec<_>>().join(", ")));
        }
        for parent in &self.parents {
            let ParentRow { link_id, partner_id, version } = parent;
            lines.push(format!("  below     link {link_id} of partner {partner_id}, version {version}"));
        }
        lines.push(format!("  could     {}", wide(self.of(Answer::Yes))));
        let mut reasons: BTreeMap<String, Vec<Permission>> = BTreeMap::new();
        for row in self.permissions.iter().filter(|row| row.answer == Answer::Depends) {
            let on: Vec<&str> = row.on.iter().copied().chain(row.rules.iter().map(String::as_str)).collect();
            reasons.entry(on.join(", ")).or_default().push(row.permission);
        }
        for (on, some) in reasons {
            lines.push(format!("  depends   {} (on {on})", wide(some.into_iter().collect())));
        }
        lines.extend(self.users.iter().map(UserRow::line));
        if self.users.is_empty() {
            lines.push("  users     none is known".to_owned());
        }
        lines
    }
}

impl UserRow {
    fn line(&self) -> String {
        let name = self.username.as_deref().unwrap_or(&self.sub);
        let mut parts = Vec::new();
        if !self.is_active {
            parts.push(format!("inactive{}", as_of_now(self.known)));
        }
        if self.is_active && self.known == Known::Now {
            parts.push("active (as of now)".to_owned());
        }
        if self.suspended {
            parts.push("suspended".to_owned());
        }
        if !self.registered {
            parts.push("named by a token only".to_owned());
        }
        parts.push(match (&self.permissions, &self.token) {
            (None, _) => "own permissions not known".to_owned(),
            (Some(set), Some(token)) => format!("{}, by the token of {}", wide(*set), token.seen_at),
            (Some(set), None) => wide(*set),
        });
        format!("  user      {}: {}", plain(name), plain(&parts.join("; ")))
    }
}
