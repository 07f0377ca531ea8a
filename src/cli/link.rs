//! `linkgate link`: what a partner may do in a managed tenant, and when.

use std::collections::BTreeMap;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value as Json};

use super::{
    outcome::Failure,
    store_context::{ActorArgs, PageArgs, StoreContext, word, yes},
    tenant::TenantArg,
};
use crate::{
    domain::{LinkId, LinkRole, PartnerId, link_rules::LinkInput},
    store::{
        LinkRecord,
        admin::{LinkFilter, Page},
    },
};

/// Grant, list, show, change and revoke links.
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
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one link
    Show {
        id: LinkId,
        /// Show every change instead: who, when, before and after
        #[arg(long)]
        history: bool,
    },
    /// Change the given fields
    ///
    /// `--override` adds to the overrides that are there (`--clear overrides` begins anew); `--cidr` replaces the whole
    /// address list.
    Update {
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

#[derive(Debug, Args)]
struct LinkFields {
    /// An override: name, wildcard or scope, `=true` or `=false` (repeatable)
    ///
    /// false denies, always; true is accepted inside the role's own set, or for role delegate.
    #[arg(long = "override", value_name = "NAME=BOOL", value_parser = parse_override)]
    overrides: Vec<(String, bool)>,
    /// msp_managed, enterprise_subsidiary, reseller_channel or audit_only [default: by role]
    #[arg(long, value_name = "TYPE")]
    relationship: Option<String>,
    /// From this time on, RFC 3339 or a date [default: now]
    #[arg(long, value_name = "TIME")]
    start: Option<String>,
    /// Until before this time [default: ongoing]
    #[arg(long, value_name = "TIME")]
    end: Option<String>,
    /// Only callers from this address range (repeatable)
    #[arg(long = "cidr", value_name = "CIDR")]
    cidrs: Vec<String>,
    /// Only tokens that show multi-factor authentication
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    require_mfa: Option<bool>,
    /// The link that this one is delegated from; its role is then delegate
    #[arg(long, value_name = "LINK")]
    parent: Option<LinkId>,
    /// pending, approved or rejected; only approved counts
    #[arg(long)]
    approval: Option<String>,
    /// Tell the partner of breached service levels
    #[arg(long, value_name = "BOOL")]
    notify_sla: Option<bool>,
    /// Tell the partner when the billing threshold is passed
    #[arg(long, value_name = "BOOL")]
    notify_billing: Option<bool>,
    /// Amount at which billing alerts begin
    #[arg(long, value_name = "AMOUNT")]
    billing_alert_threshold: Option<String>,
    /// Promised response time
    #[arg(long, value_name = "HOURS")]
    sla_response_hours: Option<i64>,
    /// Promised uptime in percent, such as 99.95
    #[arg(long, value_name = "PERCENT")]
    sla_uptime_target: Option<String>,
    /// For operators; never shown to partners
    #[arg(long)]
    notes: Option<String>,
    /// A JSON object for operators; never shown to partners
    #[arg(long, value_name = "JSON", value_parser = parse_object)]
    metadata: Option<Map<String, Json>>,
}

/// Fields that `--clear` can empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Clearable {
    End,
    Overrides,
    Cidrs,
    Parent,
    Notes,
    Metadata,
    BillingAlertThreshold,
    SlaResponseHours,
    SlaUptimeTarget,
}

fn parse_override(text: &str) -> Result<(String, bool), String> {
    let (name, allow) = text.split_once('=').ok_or("write NAME=true or NAME=false")?;
    let allow = allow.trim().parse().map_err(|_| format!("`{allow}` is neither true nor false"))?;
    Ok((name.trim().to_owned(), allow))
}

fn parse_object(text: &str) -> Result<Map<String, Json>, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}

impl LinkFields {
    fn input(self) -> LinkInput {
        LinkInput {
            custom_permissions: (!self.overrides.is_empty()).then(|| self.overrides.into_iter().collect()),
            relationship_type: self.relationship,
            start_date: self.start,
            end_date: self.end.map(Some),
            notify_on_sla_breach: self.notify_sla,
            notify_on_billing_threshold: self.notify_billing,
            billing_alert_threshold: self.billing_alert_threshold.map(|text| Some(Json::String(text))),
            sla_response_hours: self.sla_response_hours.map(Some),
            sla_uptime_target: self.sla_uptime_target.map(|text| Some(Json::String(text))),
            notes: self.notes.map(Some),
            metadata: self.metadata,
            approval: self.approval,
            allowed_cidrs: (!self.cidrs.is_empty()).then_some(self.cidrs),
            require_mfa: self.require_mfa,
            parent_link_id: self.parent.map(|id| Some(id.to_string())),
            ..LinkInput::default()
        }
    }
}

/// What is cleared stays so unless it was given anew beside it.
fn clear(input: &mut LinkInput, fields: &[Clearable]) {
    for field in fields {
        match field {
            Clearable::End => drop(input.end_date.get_or_insert(None)),
            Clearable::Overrides => drop(input.custom_permissions.get_or_insert_default()),
            Clearable::Cidrs => drop(input.allowed_cidrs.get_or_insert_default()),
            Clearable::Parent => drop(input.parent_link_id.get_or_insert(None)),
            Clearable::Notes => drop(input.notes.get_or_insert(None)),
            Clearable::Metadata => drop(input.metadata.get_or_insert_default()),
            Clearable::BillingAlertThreshold => drop(input.billing_alert_threshold.get_or_insert(None)),
            Clearable::SlaResponseHours => drop(input.sla_response_hours.get_or_insert(None)),
            Clearable::SlaUptimeTarget => drop(input.sla_uptime_target.get_or_insert(None)),
        }
    }
}

pub fn run(args: LinkArgs, context: &StoreContext<'_>) -> Result<(), Failure> {
    let actor = args.actor.actor();
    match args.command {
        LinkCommand::Create { partner, tenant, role, fields } => {
            let input = LinkInput {
                partner_id: Some(partner.to_string()),
                managed_tenant_id: Some(tenant.0.to_string()),
                access_role: Some(role.to_string()),
                ..fields.input()
            };
            let granted = context.with(|admin| async move { Ok(admin.create_link(&actor, &input).await?) })?;
            context.show(&granted.value)
        }
        LinkCommand::List { partner, tenant, active, page } => {
            let filter = LinkFilter { partner, tenant: tenant.map(|tenant| tenant.0), active };
            let found = context.with(|admin| async move { Ok(admin.links(&filter, page.page()).await?) })?;
            context.console.list(&found, &LIST_HEADER, list_row)
        }
        LinkCommand::Show { id, history: false } => {
            context.show(&context.with(|admin| async move { Ok(admin.link(id).await?) })?)
        }
        LinkCommand::Show { id, history: true } => show_history(id, context),
        LinkCommand::Update { id, role, fields, active, clear: cleared, expect_version } => {
            let mut input =
                LinkInput { access_role: role.map(|role| role.to_string()), is_active: active, ..fields.input() };
            let keeps_overrides = input.custom_permissions.is_some() && !cleared.contains(&Clearable::Overrides);
            clear(&mut input, &cleared);
            let written = context.with(|admin| async move {
                let mut expected = expect_version;
                if keeps_overrides {
                    // What is there is read first, so nobody may change it in between.
                    let standing = admin.link(id).await?;
                    expected = expected.or(Some(standing.stamps.version));
                    input.custom_permissions = Some(merged(standing, input.custom_permissions.take()));
                }
                Ok(admin.update_link(&actor, id, expected, &input).await?)
            })?;
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
            context.console.show(&summary, format_args!("{} links of partner {partner} were revoked", revoked.len()))
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
    fn an_override_names_its_answer() {
        assert_eq!(parse_override("billing.write=false"), Ok(("billing.write".to_owned(), false)));
        assert!(parse_override("billing.write").is_err());
        assert!(parse_override("billing.write=no").is_err());
    }

    #[test]
    fn clearing_empties_a_field_unless_it_is_given_anew() {
        let mut input = LinkInput { notes: Some(Some("new".into())), ..LinkInput::default() };
        clear(&mut input, &[Clearable::End, Clearable::Notes, Clearable::Cidrs, Clearable::Overrides]);
        assert_eq!(input.end_date, Some(None));
        assert_eq!(input.notes, Some(Some("new".into())));
        assert_eq!(input.allowed_cidrs, Some(Vec::new()));
        assert_eq!(input.custom_permissions, Some(BTreeMap::new()));
        assert!(input.metadata.is_none());
    }

    #[test]
    fn a_history_line_names_what_changed() {
        let before = serde_json::json!({"a": 1, "b": null, "version": 1, "updated_by": "x"});
        let after = serde_json::json!({"a": 1, "b": true, "version": 2, "updated_by": "y"});
        assert_eq!(differences(Some(&before), &after), "b: - -> yes");
    }
}
