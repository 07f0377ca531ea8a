//! What an operator writes about a link, and how it becomes terms: the one parser behind API, command line and import.
//!
//! A raw mirror of the contract's fields; every fault of every field is told at once. Whether the terms are allowed
//! where they are to stand is the question of `link_rules`.

use std::collections::BTreeMap;

use ipnet::IpNet;
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::{
    LinkId, LinkRole, Millis,
    link_rules::{Faults, LinkTerms, MAX_ENTRIES, Refusal, check_alone},
    plain,
};

/// What an operator writes, unchecked. A field left out keeps its value (or takes its default in a new link);
/// `null` clears a field that may be empty.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LinkInput {
    pub partner_id: Option<String>,
    pub managed_tenant_id: Option<String>,
    pub access_role: Option<String>,
    pub custom_permissions: Option<BTreeMap<String, bool>>,
    pub relationship_type: Option<String>,
    pub start_date: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub end_date: Option<Option<String>>,
    pub is_active: Option<bool>,
    pub notify_on_sla_breach: Option<bool>,
    pub notify_on_billing_threshold: Option<bool>,
    /// A number or its text.
    #[serde(deserialize_with = "nullable")]
    pub billing_alert_threshold: Option<Option<Value>>,
    #[serde(deserialize_with = "nullable")]
    pub sla_response_hours: Option<Option<i64>>,
    #[serde(deserialize_with = "nullable")]
    pub sla_uptime_target: Option<Option<Value>>,
    #[serde(deserialize_with = "nullable")]
    pub notes: Option<Option<String>>,
    pub metadata: Option<Map<String, Value>>,
    pub approval: Option<String>,
    pub allowed_cidrs: Option<Vec<String>>,
    pub require_mfa: Option<bool>,
    #[serde(deserialize_with = "nullable")]
    pub parent_link_id: Option<Option<String>>,
}

/// Tells `null` (clear) from absent (keep).
fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(from).map(Some)
}

impl LinkInput {
    /// The terms of a new link.
    pub fn new_terms(&self, now: Millis) -> Result<LinkTerms, Refusal> {
        let role = match self.access_role.as_deref().map(str::parse::<LinkRole>) {
            Some(Ok(role)) => role,
            // A role that does not parse is told below, with all other faults.
            Some(Err(_)) => LinkRole::Auditor,
            None => return Err(Refusal::field("link", "access_role", "is required")),
        };
        self.terms_over(LinkTerms::new(role, now))
    }

    /// `base` with every given field put in place of its own.
    pub fn terms_over(&self, base: LinkTerms) -> Result<LinkTerms, Refusal> {
        let mut terms = base;
        let mut faults = Faults::default();
        faults.set("access_role", &mut terms.access_role, self.access_role.as_deref().map(str::parse));
        faults.set(
            "relationship_type",
            &mut terms.relationship_type,
            self.relationship_type.as_deref().map(str::parse),
        );
        faults.set("approval", &mut terms.approval, self.approval.as_deref().map(str::parse));
        faults.set("start_date", &mut terms.start_date, self.start_date.as_deref().map(time));
        faults.set("end_date", &mut terms.end_date, maybe(&self.end_date, |text| time(text)));
        faults.set("parent_link_id", &mut terms.parent_link_id, maybe(&self.parent_link_id, |text| link_id(text)));
        faults.set(
            "billing_alert_threshold",
            &mut terms.billing_alert_threshold,
            maybe(&self.billing_alert_threshold, |value| hundredths(value, "9999999999999.99")),
        );
        faults.set(
            "sla_uptime_target",
            &mut terms.sla_uptime_target,
            maybe(&self.sla_uptime_target, |value| hundredths(value, "100.00")),
        );
        if let Some(hours) = self.sla_response_hours {
            terms.sla_response_hours = hours;
        }
        if let Some(notes) = &self.notes {
            terms.notes.clone_from(notes);
            if let Some(fault) = notes.as_deref().and_then(plain::fault_of_lines) {
                faults.add("notes", fault);
            }
        }
        if let Some(metadata) = &self.metadata {
            terms.metadata.clone_from(metadata);
        }
        if let Some(overrides) = &self.custom_permissions {
            terms.custom_permissions.clone_from(overrides);
        }
        if let Some(cidrs) = &self.allowed_cidrs {
            terms.allowed_cidrs = networks(cidrs, &mut faults);
        }
        for (given, target) in [
            (self.is_active, &mut terms.is_active),
            (self.notify_on_sla_breach, &mut terms.notify_on_sla_breach),
            (self.notify_on_billing_threshold, &mut terms.notify_on_billing_threshold),
            (self.require_mfa, &mut terms.require_mfa),
        ] {
            if let Some(given) = given {
                *target = given;
            }
        }
        check_alone(&terms, &mut faults);
        faults.into_result().map(|()| terms)
    }
}

/// Applies a parser inside "absent, cleared or given".
fn maybe<T, U, E>(given: &Option<Option<T>>, parse: impl Fn(&T) -> Result<U, E>) -> Option<Result<Option<U>, E>> {
    given.as_ref().map(|inner| inner.as_ref().map(parse).transpose())
}

/// Milliseconds, of a year that can be written down again.
fn time(text: &str) -> Result<Millis, String> {
    Millis::parse(text.trim()).map_err(|error| error.to_string())
}

fn link_id(text: &str) -> Result<LinkId, String> {
    text.trim().parse().map_err(|_| format!("`{text}` is not the id of a link (a uuid)"))
}

/// A decimal of two places from zero to `most`, which must parse.
fn hundredths(value: &Value, most: &str) -> Result<Decimal, String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return Err("write a number".to_owned()),
    };
    let parsed = Decimal::from_str_exact(&text).map_err(|_| format!("`{text}` is not a decimal number"))?;
    let most = Decimal::from_str_exact(most).unwrap_or_default();
    let parsed = parsed.normalize();
    if parsed.scale() > 2 {
        return Err(format!("`{text}` has more than two decimal places"));
    }
    if parsed.is_sign_negative() && !parsed.is_zero() || parsed > most {
        return Err(format!("`{text}` is out of range: 0 to {most}"));
    }
    let mut parsed = parsed.abs();
    parsed.rescale(2);
    Ok(parsed)
}

/// Ranges as they are compared: no host bits, no IPv4 in IPv6 clothes, none twice.
fn networks(texts: &[String], faults: &mut Faults) -> Vec<IpNet> {
    let mut nets = Vec::with_capacity(texts.len().min(MAX_ENTRIES));
    for text in texts.iter().take(MAX_ENTRIES + 1) {
        match network(text) {
            Ok(net) if nets.contains(&net) => {}
            Ok(net) => nets.push(net),
            Err(message) => faults.add("allowed_cidrs", message),
        }
    }
    if texts.len() > MAX_ENTRIES {
        faults.add("allowed_cidrs", format_args!("at most {MAX_ENTRIES} ranges"));
    }
    nets
}

/// One range, or one address, as a link may hold it.
pub fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let net: IpNet =
        match text.parse() {
            Ok(net) => net,
            Err(_) => IpNet::from(text.parse::<std::net::IpAddr>().map_err(|_| {
                format!("`{text}` is no address range: write 192.0.2.0/24, 2001:db8::/32 or one address")
            })?),
        };
    if net.trunc() != net {
        return Err(format!("`{net}` has host bits set: write `{}` or one address", net.trunc()));
    }
    if let IpNet::V6(v6) = net
        && v6.network().to_ipv4_mapped().is_some()
        && v6.prefix_len() >= 96
    {
        return Err(format!("`{net}` is IPv4 in IPv6 form: write the IPv4 range"));
    }
    Ok(net)
}
