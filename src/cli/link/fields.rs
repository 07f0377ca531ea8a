//! The fields of a link as flags of `link create`, `link delegate` and `link update`.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value as Json};

use super::super::outcome::{Exit, Failure};
use crate::domain::{LinkId, PermissionSet, link_rules::LinkInput, strict_json::StrictJson};

#[derive(Debug, Args)]
pub(super) struct LinkFields {
    /// An override: name, wildcard or scope, `=true` or `=false` (repeatable)
    ///
    /// false denies, always; true is accepted inside the role's own set, or for role delegate.
    #[arg(long = "override", value_name = "NAME=BOOL", value_parser = parse_override)]
    overrides: Vec<(String, bool)>,
    /// msp_managed, enterprise_subsidiary, reseller_channel or audit_only [create without it: by role]
    #[arg(long, value_name = "TYPE")]
    relationship: Option<String>,
    /// From this time on, RFC 3339 or a date [create without it: now]
    #[arg(long, value_name = "TIME")]
    start: Option<String>,
    /// Until before this time [create without it: ongoing]
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
pub(super) enum Clearable {
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
    match serde_json::from_str(text) {
        Ok(StrictJson(Json::Object(fields))) => Ok(fields),
        Ok(_) => Err("not a JSON object".to_owned()),
        Err(error) => Err(format!("not a JSON object: {error}")),
    }
}

impl LinkFields {
    pub(super) fn input(self) -> Result<LinkInput, Failure> {
        if let Some((one, other)) = named_twice(&self.overrides) {
            let message = format!("`--override` names one permission twice: `{one}` and `{other}`; give it once");
            return Err(Failure::new(Exit::Invalid, message));
        }
        Ok(LinkInput {
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
        })
    }
}

/// Two overrides of the very same permissions, in whatever spelling: the first and the last are both somebody's reading.
fn named_twice(overrides: &[(String, bool)]) -> Option<(&str, &str)> {
    overrides.iter().enumerate().find_map(|(at, (name, _))| {
        let set = PermissionSet::from_name(name).ok();
        let same = |other: &str| other == name || set.is_some() && set == PermissionSet::from_name(other).ok();
        let (before, _) = overrides.iter().take(at).find(|(other, _)| same(other))?;
        Some((before.as_str(), name.as_str()))
    })
}

/// What is cleared stays so unless it was given anew beside it.
pub(super) fn clear(input: &mut LinkInput, fields: &[Clearable]) {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn an_override_names_its_answer() {
        assert_eq!(parse_override("billing.write=false"), Ok(("billing.write".to_owned(), false)));
        assert!(parse_override("billing.write").is_err());
        assert!(parse_override("billing.write=no").is_err());
    }

    #[test]
    fn a_permission_is_overridden_once() {
        let given = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), true)).collect::<Vec<_>>();
        let twice = given(&["reports.sla", "support.create_ticket", "partner.support.tickets.create"]);
        assert_eq!(named_twice(&twice), Some(("support.create_ticket", "partner.support.tickets.create")));
        assert_eq!(named_twice(&given(&["nonsense", "nonsense"])), Some(("nonsense", "nonsense")));
        // A group beside one of its own is how an exception is written: false beats true, in either order.
        assert_eq!(named_twice(&given(&["billing.*", "billing.read", "odd", "even"])), None);
    }

    #[test]
    fn metadata_repeats_no_key() {
        assert!(parse_object(r#"{"a": {"b": 1, "b": 2}}"#).is_err());
        assert!(parse_object("[]").is_err());
        assert_eq!(parse_object(r#"{"a": 1}"#).unwrap()["a"], 1);
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
}
