//! How `access who` and `access what` are shown: as text for people, as two tables for auditors.

use std::{collections::BTreeMap, io::Write};

use super::{LinkRow, ParentRow, Report, UserRow};
use crate::{
    domain::{Millis, Permission, PermissionSet, permission::cover},
    ops::{
        access::{
            scene::{Source, State},
            table::{Table, cell, count, joined, names, yes},
        },
        plain,
    },
    policy::Answer,
    store::Known,
};

impl Report {
    pub fn text(&self) -> String {
        let live = self.links.iter().filter(|link| link.state == State::Live).count();
        let mut lines = vec![
            format!("{} at {}: {}, {live} live", plain(&self.of.name), self.at, count(self.links.len(), "link")),
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
                    "users' own permissions: of the last token that a request {} showed from {} on",
                    if self.of.tenant_id.is_some() { "to this tenant" } else { "of theirs" },
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

    pub fn permissions_csv(&self, out: impl Write) -> Result<(), csv::Error> {
        let mut table = Table::begin(
            out,
            &[
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
            ],
        )?;
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

    pub fn users_csv(&self, out: impl Write) -> Result<(), csv::Error> {
        let mut table = Table::begin(
            out,
            &[
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
            ],
        )?;
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
