//! What partners can be told of by webhook, and what a link must still grant when it is sent.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::link::UnknownWord;

/// One kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum EventType {
    #[serde(rename = "partner.tenant.sla_breach")]
    SlaBreach,
    #[serde(rename = "partner.tenant.billing_threshold")]
    BillingThreshold,
    #[serde(rename = "partner.tenant.ticket_created")]
    TicketCreated,
    /// A tenant's own status, or the approval or activity of a link, changed.
    #[serde(rename = "partner.tenant.status_changed")]
    StatusChanged,
    #[serde(rename = "partner.tenant.link_expiring")]
    LinkExpiring,
    #[serde(rename = "partner.tenant.link_revoked")]
    LinkRevoked,
}

/// Whether an event tells of the tenant or of the link to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    Tenant,
    Link,
}

impl About {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Link => "link",
        }
    }
}

const KNOWN: &str = "partner.tenant.sla_breach, partner.tenant.billing_threshold, partner.tenant.ticket_created, \
     partner.tenant.status_changed, partner.tenant.link_expiring, partner.tenant.link_revoked";

impl EventType {
    pub const ALL: [Self; 6] = [
        Self::SlaBreach,
        Self::BillingThreshold,
        Self::TicketCreated,
        Self::StatusChanged,
        Self::LinkExpiring,
        Self::LinkRevoked,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::SlaBreach => "partner.tenant.sla_breach",
            Self::BillingThreshold => "partner.tenant.billing_threshold",
            Self::TicketCreated => "partner.tenant.ticket_created",
            Self::StatusChanged => "partner.tenant.status_changed",
            Self::LinkExpiring => "partner.tenant.link_expiring",
            Self::LinkRevoked => "partner.tenant.link_revoked",
        }
    }

    /// What the link must still grant when the event is sent: the permission that its data is read with. `None`: that a
    /// link was revoked is told always.
    pub fn permission(self) -> Option<&'static str> {
        match self {
            Self::SlaBreach => Some("partner.alerts.sla.read"),
            Self::BillingThreshold => Some("partner.alerts.billing.read"),
            Self::TicketCreated => Some("partner.support.tickets.read"),
            Self::StatusChanged | Self::LinkExpiring => Some("partner.tenants.list"),
            Self::LinkRevoked => None,
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventType {
    type Err = UnknownWord;

    /// Takes the whole name, or its last part.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let last = |name: &'static str| name.strip_prefix("partner.tenant.").unwrap_or(name);
        Self::ALL
            .into_iter()
            .find(|event| event.as_str() == text || last(event.as_str()) == text)
            .ok_or_else(|| UnknownWord { what: "event type", text: text.to_owned(), known: KNOWN })
    }
}
