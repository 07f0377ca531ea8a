//! `linkgate link`: what a partner may do in a managed tenant, and when.

mod approve;
mod closing;
mod expiring;
mod fields;
mod standing;

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::Value as Json;

use self::fields::{Clearable, LinkFields, clear};
use super::{
    outcome::{Failure, count},
    store_context::{ActorArgs, PageArgs, StoreContext, nothing_to_change, word, yes},
    tenant::TenantArg,
};
use crate::{
    domain::{Approval, LinkId, LinkRole, PartnerId, link_rules::LinkInput},
    store::{
        LinkRecord,
        admin::{LinkFilter, Page},
    },
};

/// Grant, delegate, approve, list, show, change and revoke links.
#[derive(Debug, Args)]
pub struct LinkArgs {
    #[command(flatten)]
    actor: ActorArgs,
    #[command(subcommand)]
    command: LinkCommand,
}

#[derive(Debug, Subcommand)]
enum LinkCommand {
    /// Grant a link
    ///
    /// A pair whose link was revoked or has ended gets the same link again, with these terms.
    ///
    /// Example: linkgate link create --partner <UUID> --tenant isp-north --role msp_billing --override billing.write=false
    Create {
        #[arg(long, value_name = "UUID")]
        partner: PartnerId,
        /// The managed tenant
        #[arg(long, value_name = "ID")]
        tenant: TenantArg,
        /// msp_full, msp_billing, msp_support, enterprise_hq, auditor, reseller or delegate
        #[arg(long)]
        role: LinkRole,
        #[command(flatten)]
        fields: Box<LinkFields>,
    },
    /// Delegate a tenant onward: another partner gets at most what the parent link may do
    ///
    /// Every gate of every parent binds it: approval, active, window, partner, suspension, addresses, MFA. At most 3
    /// links may stand above one. Revoking a parent closes all below.
    ///
    /// Example: linkgate link delegate --parent <LINK> --partner <UUID> --grant support.read
    Delegate {
        /// The link that is delegated; it names the tenant
        #[arg(long, value_name = "LINK")]
        parent: LinkId,
        /// Who gets it
        #[arg(long, value_name = "UUID")]
        partner: PartnerId,
        /// What it may do: a permission, wildcard or scope that the parent has (repeatable)
        #[arg(long = "grant", value_name = "NAME", required = true)]
        grants: Vec<String>,
        /// From this time on, RFC 3339 or a date [default: now]
        #[arg(long, value_name = "TIME")]
        start: Option<String>,
        /// Until before this time [default: as long as the parent]
        #[arg(long, value_name = "TIME")]
        end: Option<String>,
        /// Only callers from this address range, beside the parent's (repeatable)
        #[arg(long = "cidr", value_name = "CIDR")]
        cidrs: Vec<String>,
        /// Only tokens that show multi-factor authentication
        #[arg(long)]
        require_mfa: bool,
        /// For operators; never shown to partners
        #[arg(long)]
        notes: Option<String>,
    },
    /// Approve a link that waits, as it is shown in the question
    Approve {
        /// Its id, as `link list` shows it
        id: LinkId,
        /// Refuse if it is not at this version [default: the one that the question shows]
        #[arg(long, value_name = "VERSION")]
        expect_version: Option<i64>,
    },
    /// Reject a link: it gives no access until it is approved
    Reject {
        /// Its id, as `link list` shows it
        id: LinkId,
        /// Refuse if it is not at this version [default: the one that the question shows]
        #[arg(long, value_name = "VERSION")]
        expect_version: Option<i64>,
    },
    /// List links in the order of their ids
    List {
        /// Only of this partner
        #[arg(long, value_name = "UUID")]
        partner: Option<PartnerId>,
        /// Only to this tenant
        #[arg(long, value_name = "ID")]
        tenant: Option<TenantArg>,
        /// Only active links (true), or only revoked ones (false)
        #[arg(long, value_name = "BOOL")]
        active: Option<bool>,
        /// Only pending, approved or rejected ones
        #[arg(long)]
        approval: Option<Approval>,
        /// Only links that end within so many days, such as 30d, by their own end or a parent's; the next to end first
        #[arg(long, value_name = "DAYS", value_parser = expiring::parse_days, conflicts_with_all = ["active", "approval"])]
        expiring: Option<u32>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one link, what it amounts to now, and the links above it
    Show {
        /// Its id, as `link list` shows it
        id: LinkId,
        /// Show every change instead: who, when, before and after
        #[arg(long)]
        history: bool,
    },
    /// Change the given fields; the others stay as they are
    ///
    /// `--override` adds to the overrides that
    /// are there (`--clear overrides` begins anew); `--cidr` replaces the whole address list. What closes the link asks.
    Update {
        /// Its id, as `link list` shows it
        id: LinkId,
        #[arg(long)]
        role: Option<LinkRole>,
        #[command(flatten)]
        fields: Box<LinkFields>,
        /// `true` re-activates a revoked link; to end one use `link revoke`
        #[arg(long, value_name = "BOOL")]
        active: Option<bool>,
        /// Empty a field (repeatable)
        #[arg(long, value_enum, value_name = "FIELD")]
        clear: Vec<Clearable>,
        /// Refuse if it is not at this version
        #[arg(long, value_name = "VERSION")]
        expect_version: Option<i64>,
    },
    /// Revoke a link: the next request is refused
    Revoke {
        /// Its id, as `link list` shows it
        id: LinkId,
        /// Refuse if it is not at this version
        #[arg(long, value_name = "VERSION")]
        expect_version: Option<i64>,
    },
    /// Revoke every active link of a partner, in one transaction
    RevokeAll {
        #[arg(long, value_name = "UUID")]
        partner: PartnerId,
    },
}

pub fn run(args: LinkArgs, context: &StoreContext<'_>) -> Result<(), Failure> {
    let actor = args.actor.actor();
    match args.command {
        LinkCommand::Create { partner, tenant, role, fields } => {
            let input = LinkInput {
                partner_id: Some(partner.to_string()),
                managed_tenant_id: Some(tenant.0.to_string()),
                access_role: Some(role.to_string()),
                ..fields.input()?
            };
            let granted = context.with(|admin| async move { Ok(admin.create_link(&actor, &input).await?) })?;
            context.show(&granted.value)
        }
        LinkCommand::Delegate { parent, partner, grants, start, end, cidrs, require_mfa, notes } => {
            let input = LinkInput {
                partner_id: Some(partner.to_string()),
                access_role: Some(LinkRole::Delegate.to_string()),
                custom_permissions: Some(grants.into_iter().map(|name| (name, true)).collect()),
                parent_link_id: Some(Some(parent.to_string())),
                start_date: start,
                end_date: end.map(Some),
                allowed_cidrs: (!cidrs.is_empty()).then_some(cidrs),
                require_mfa: Some(require_mfa),
                notes: notes.map(Some),
                ..LinkInput::default()
            };
            let made = context.with(|admin| async move {
                let managed_tenant_id = Some(admin.link(parent).await?.managed_tenant_id.to_string());
                Ok(admin.create_link(&actor, &LinkInput { managed_tenant_id, ..input }).await?)
            })?;
            standing::show(made.value.id, context)
        }
        LinkCommand::Approve { id, expect_version } => {
            approve::decide(id, Approval::Approved, expect_version, actor, context)
        }
        LinkCommand::Reject { id, expect_version } => {
            approve::decide(id, Approval::Rejected, expect_version, actor, context)
        }
        LinkCommand::List { partner, tenant, expiring: Some(days), page, .. } => {
            expiring::list(days, partner, tenant.map(|tenant| tenant.0), page.page(), context)
        }
        LinkCommand::List { partner, tenant, active, approval, expiring: None, page } => {
            let filter = LinkFilter { partner, tenant: tenant.map(|tenant| tenant.0), active, approval };
            let found = context.with(|admin| async move { Ok(admin.links(&filter, page.page()).await?) })?;
            context.console.list(&found, &LIST_HEADER, list_row)
        }
        LinkCommand::Show { id, history: false } => standing::show(id, context),
        LinkCommand::Show { id, history: true } => show_history(id, context),
        LinkCommand::Update { id, role, fields, active, clear: cleared, expect_version } => {
            let mut input =
                LinkInput { access_role: role.map(|role| role.to_string()), is_active: active, ..fields.input()? };
            let keeps_overrides = input.custom_permissions.is_some() && !cleared.contains(&Clearable::Overrides);
            clear(&mut input, &cleared);
            if input == LinkInput::default() {
                return Err(nothing_to_change("link"));
            }
            let standing = context.with(|admin| async move { Ok(admin.link(id).await?) })?;
            let version = standing.stamps.version;
            let closes = closing::what_closes(&standing.terms, &input, context);
            // What was looked at is what is written over: nobody may change it in between.
            let judged = keeps_overrides || closes.is_some() || closing::touches_gates(&input);
            let expected = expect_version.or_else(|| judged.then_some(version));
            if let Some(what) = closes {
                context.console.confirm(&format!("closes link {id} (version {version}): {what}"))?;
            }
            if keeps_overrides {
                input.custom_permissions = Some(merged(standing, input.custom_permissions.take()));
            }
            let written =
                context.with(|admin| async move { Ok(admin.update_link(&actor, id, expected, &input).await?) })?;
            context.show(&written.value)
        }
        LinkCommand::Revoke { id, expect_version } => {
            context.console.confirm(&format!("revokes link {id}: its partner loses the tenant at once"))?;
            let revoked =
                context.with(|admin| async move { Ok(admin.revoke_link(&actor, id, expect_version).await?) })?;
            context.show(&revoked.value)
        }
        LinkCommand::RevokeAll { partner } => {
            context.console.confirm(&format!("revokes every link of partner {partner}"))?;
            let revoked = context.with(|admin| async move { Ok(admin.revoke_all(&actor, partner).await?.value) })?;
            let summary = serde_json::json!({"partner_id": partner, "revoked": revoked.len(),
                "link_ids": revoked.iter().map(|link| link.id).collect::<Vec<_>>()});
            context
                .console
                .show(&summary, format_args!("{} of partner {partner} revoked", count(revoked.len(), "link")))
        }
    }
}

fn merged(standing: LinkRecord, given: Option<BTreeMap<String, bool>>) -> BTreeMap<String, bool> {
    let mut overrides = standing.terms.custom_permissions;
    overrides.extend(given.unwrap_or_default());
    overrides
}

const LIST_HEADER: [&str; 8] = ["link", "partner", "tenant", "role", "from", "until", "active", "approval"];

fn list_row(link: &LinkRecord) -> Vec<String> {
    vec![
        link.id.to_string(),
        link.partner_id.to_string(),
        link.managed_tenant_id.to_string(),
        link.terms.access_role.to_string(),
        link.terms.start_date.to_string(),
        link.terms.end_date.map_or_else(|| "-".to_owned(), |end| end.to_string()),
        yes(link.terms.is_active),
        link.terms.approval.as_str().to_owned(),
    ]
}

fn show_history(id: LinkId, context: &StoreContext<'_>) -> Result<(), Failure> {
    let history = context.with(|admin| async move {
        admin.link(id).await?;
        Ok(admin.history(id, Page { limit: 10_000, offset: 0 }).await?)
    })?;
    context.console.list(&history, &["version", "when", "who", "what", "changed"], |change| {
        vec![
            change.version.to_string(),
            change.changed_at.to_string(),
            change.changed_by.clone(),
            change.change.clone(),
            differences(change.before.as_ref(), &change.after),
        ]
    })
}

/// The fields in which two states differ, one a line; stamps aside.
fn differences(before: Option<&Json>, after: &Json) -> String {
    const STAMPS: [&str; 3] = ["version", "updated_at", "updated_by"];
    let (Some(Json::Object(before)), Json::Object(after)) = (before, after) else { return String::new() };
    let changed: Vec<String> = after
        .iter()
        .filter(|(name, value)| !STAMPS.contains(&name.as_str()) && before.get(*name) != Some(*value))
        .map(|(name, value)| format!("{name}: {} -> {}", before.get(name).map(word).unwrap_or_default(), word(value)))
        .collect();
    changed.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_line_names_what_changed() {
        let before = serde_json::json!({"a": 1, "b": null, "version": 1, "updated_by": "x"});
        let after = serde_json::json!({"a": 1, "b": true, "version": 2, "updated_by": "y"});
        assert_eq!(differences(Some(&before), &after), "b: - -> yes");
    }
}
