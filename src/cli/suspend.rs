//! `linkgate suspend`, `restore`, `suspensions`: the emergency overlay (contract, section 5).
//!
//! One command each, for somebody who is in a hurry: it says what it will cover, asks, does it in one transaction, and
//! says from when on it is in force and how to lift it. It needs the configuration and the database; a policy set that
//! does not load is no obstacle. It never touches the rows that it covers, so `restore` brings back what was there before.

use clap::{Args, Subcommand};
use serde::Serialize;
use uuid::Uuid;

use super::{
    outcome::Failure,
    store_context::{ActorArgs, PageArgs, StoreContext},
    tenant::TenantArg,
};
use crate::{
    domain::{LinkId, Millis, PartnerId},
    store::{
        SuspensionRecord, SuspensionScope,
        admin::{Page, Reach, SuspensionInput},
    },
};

/// Stop a user, session, token, partner, tenant, link or everything at once.
///
/// In force on every replica within a second, open streams included, until `linkgate restore ID`. Home requests go on,
/// but for a suspended user, session or token, whose requests are all refused.
#[derive(Debug, Args)]
pub struct SuspendArgs {
    #[command(flatten)]
    actor: ActorArgs,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A user, by the `sub` of their tokens: all their requests are refused, at home too
    ///
    /// Example: linkgate suspend user 4711 --issuer https://login.example --reason "laptop stolen"
    User {
        sub: String,
        /// Only tokens of this issuer; empty for the legacy one [default: any issuer]
        #[arg(long, value_name = "ISSUER")]
        issuer: Option<String>,
        #[command(flatten)]
        reason: Reason,
    },
    /// One session, by the `session_id` of its tokens: all its requests are refused, at home too
    Session {
        id: String,
        #[command(flatten)]
        reason: Reason,
    },
    /// One token, by its `jti`: all its requests are refused, at home too
    Token {
        jti: String,
        #[command(flatten)]
        reason: Reason,
    },
    /// A partner: its links, and all that were delegated onward from them
    Partner {
        /// Its id, as `partner list` shows it
        id: PartnerId,
        #[command(flatten)]
        reason: Reason,
    },
    /// A tenant: nobody from outside works in it
    Tenant {
        /// Its id, as `tenant list` shows it
        id: TenantArg,
        #[command(flatten)]
        reason: Reason,
    },
    /// One link, and all that were delegated onward from it
    Link {
        /// Its id, as `link list` shows it
        id: LinkId,
        #[command(flatten)]
        reason: Reason,
    },
    /// All partner access to all tenants
    Everything {
        #[command(flatten)]
        reason: Reason,
    },
}

#[derive(Debug, Args)]
struct Reason {
    /// Why, for those who will ask: kept in the audit record
    #[arg(long = "reason", value_name = "TEXT")]
    text: String,
}

/// Lift one suspension, and nothing else.
///
/// What else covers the same subject, and what was revoked meanwhile, stays as it is.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    actor: ActorArgs,
    /// Its id, as `suspend` and `suspensions` print it
    id: Uuid,
}

/// List what is suspended: by whom, why, since when.
#[derive(Debug, Args)]
pub struct SuspensionsArgs {
    /// Those that were lifted too
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    page: PageArgs,
}

/// What to type before everything is suspended.
const EVERYTHING: &str = "everything";

impl What {
    fn input(self) -> SuspensionInput {
        let (scope, issuer, subject, reason) = match self {
            Self::User { sub, issuer, reason } => (SuspensionScope::User, issuer, sub, reason),
            Self::Session { id, reason } => (SuspensionScope::Session, None, id, reason),
            Self::Token { jti, reason } => (SuspensionScope::Jti, None, jti, reason),
            Self::Partner { id, reason } => (SuspensionScope::Partner, None, id.to_string(), reason),
            Self::Tenant { id, reason } => (SuspensionScope::Tenant, None, id.0.to_string(), reason),
            Self::Link { id, reason } => (SuspensionScope::Link, None, id.to_string(), reason),
            Self::Everything { reason } => (SuspensionScope::All, None, String::new(), reason),
        };
        SuspensionInput { scope, issuer, subject, reason: reason.text }
    }
}

/// What was suspended, in words.
fn named(scope: SuspensionScope, issuer: Option<&str>, subject: &str) -> String {
    match (scope, issuer) {
        (SuspensionScope::All, _) => "all partner access".to_owned(),
        (SuspensionScope::User, Some(issuer)) => format!("user {subject} of issuer `{issuer}`"),
        (SuspensionScope::User, None) => format!("user {subject}, whatever the issuer"),
        (SuspensionScope::Session, _) => format!("session {subject}"),
        (SuspensionScope::Jti, _) => format!("token {subject}"),
        (SuspensionScope::Partner, _) => format!("partner {subject}"),
        (SuspensionScope::Tenant, _) => format!("tenant {subject}"),
        (SuspensionScope::Link, _) => format!("link {subject}"),
    }
}

/// What it covers at this moment, in words.
fn covered(scope: SuspensionScope, reach: Reach) -> String {
    let count = |number: i64, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
    match (scope, reach.users) {
        (SuspensionScope::Session | SuspensionScope::Jti, _) => {
            "every request that shows it, home requests too".to_owned()
        }
        (_, Some(users)) => {
            let known =
                if users == 0 { "no partner user is known".to_owned() } else { count(users, "known partner user") };
            format!("every request of theirs, home requests too; {known} by this subject")
        }
        (_, None) => format!(
            "{} of {} to {}; home requests go on",
            count(reach.live_links, "live link"),
            count(reach.partners, "partner"),
            count(reach.tenants, "tenant")
        ),
    }
}

/// What `suspend` prints.
#[derive(Serialize)]
struct Suspended {
    #[serde(flatten)]
    record: SuspensionRecord,
    covers: Reach,
    /// From then on no replica allows it, whatever became of its connection to the database.
    in_force_by: Millis,
}

pub fn suspend(args: SuspendArgs, context: &StoreContext<'_>) -> Result<(), Failure> {
    let actor = args.actor.actor();
    let input = args.what.input();
    let asked = input.clone();
    let reach = context.with(|admin| async move { Ok(admin.reach(&asked).await?) })?;
    let (scope, name) = (input.scope, named(input.scope, input.issuer.as_deref(), &input.subject));
    let question = format!("suspends {name}: {}", covered(scope, reach));
    match scope {
        SuspensionScope::All => context.console.confirm_typed(&question, EVERYTHING)?,
        _ => context.console.confirm(&question)?,
    }
    let record = context.with(|admin| async move { Ok(admin.suspend(&actor, &input).await?.value) })?;
    let staleness = context.links.max_staleness;
    let bound = i64::try_from(staleness.as_millis()).unwrap_or(i64::MAX);
    let in_force_by = Millis(Millis::now().0.saturating_add(bound));
    let text = format!(
        "{name} is suspended\n\
         covers    {}\n\
         in force  on every replica by {in_force_by} (links.max_staleness, {staleness:?}): requests are refused with \
         access_suspended, open streams are cut within a second{}\n\
         id        {}\n\
         lift it   linkgate restore {}",
        covered(scope, reach),
        stale_note(scope),
        record.id,
        record.id
    );
    context.console.show(&Suspended { record, covers: reach, in_force_by }, text)
}

/// Home requests are answered without the database too, so a replica that lost it learns of these when it is back.
fn stale_note(scope: SuspensionScope) -> &'static str {
    match scope {
        SuspensionScope::User | SuspensionScope::Session | SuspensionScope::Jti => {
            ";\n          a replica that cannot reach the database refuses partner access meanwhile, and lets home \
             requests go on until it can"
        }
        _ => "",
    }
}

pub fn restore(args: &RestoreArgs, context: &StoreContext<'_>) -> Result<(), Failure> {
    let (actor, id) = (args.actor.actor(), args.id);
    let standing = context.with(|admin| async move { Ok(admin.suspension(id).await?) })?;
    let name = named(standing.scope, standing.issuer.as_deref(), &standing.subject);
    let SuspensionRecord { by, at, reason, .. } = &standing;
    context.console.confirm(&format!("lifts the suspension of {name} (by {by} at {at}: {reason})"))?;
    let (lifted, left) = context.with(|admin| async move {
        let lifted = admin.restore(&actor, id).await?.value;
        Ok((lifted, admin.suspensions(Page { limit: 10_000, offset: 0 }).await?.len()))
    })?;
    let others = match left {
        0 => "nothing else is suspended".to_owned(),
        _ => format!("still in force: {left}, see `linkgate suspensions`"),
    };
    context
        .console
        .show(&lifted, format_args!("the suspension of {name} is lifted, within a second everywhere\n{others}"))
}

pub fn list(args: &SuspensionsArgs, context: &StoreContext<'_>) -> Result<(), Failure> {
    let (all, page) = (args.all, args.page.page());
    let found = context.with(|admin| async move {
        Ok(if all { admin.all_suspensions(page).await? } else { admin.suspensions(page).await? })
    })?;
    let now = Millis::now();
    context.console.list(&found, &["id", "suspended", "by", "since", "for", "reason", "lifted"], |one| {
        let lifted = one.lifted_at.map(|at| format!("{at} by {}", one.lifted_by.as_deref().unwrap_or("-")));
        vec![
            one.id.to_string(),
            named(one.scope, one.issuer.as_deref(), &one.subject),
            one.by.clone(),
            one.at.to_string(),
            age(one.lifted_at.unwrap_or(now).0 - one.at.0),
            one.reason.clone(),
            lifted.unwrap_or_else(|| "-".to_owned()),
        ]
    })
}

/// The two largest units that matter.
fn age(ms: i64) -> String {
    let minutes = ms.max(0) / 60_000;
    match (minutes / 1_440, minutes / 60 % 24, minutes % 60) {
        (0, 0, 0) => format!("{} s", ms.max(0) / 1_000),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_units_at_most() {
        let ages = [-5, 9_000, 61_000, 3_660_000, 90_000_000].map(age);
        assert_eq!(ages, ["0 s", "9 s", "1 min", "1 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn what_is_covered_is_said_in_words() {
        let reach = Reach { live_links: 1, partners: 1, tenants: 2, users: None };
        assert_eq!(covered(SuspensionScope::Link, reach), "1 live link of 1 partner to 2 tenants; home requests go on");
        let nobody = Reach { users: Some(0), ..Reach::default() };
        assert!(covered(SuspensionScope::User, nobody).contains("no partner user is known by this subject"));
    }
}
