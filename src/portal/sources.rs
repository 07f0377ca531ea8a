//! Asking the services behind the gateway about one tenant: connectors, credentials, sockets.
//!
//! Every call names a [`Site`], which is made from a granted slice, carries the gateway's own credential for that tenant,
//! and ends at its deadline. Nothing is cached here and nothing is merged.

mod client;
mod credential;
mod list;
mod read;
mod table;
mod write;

use std::sync::Arc;

use jiff::Timestamp;

use super::{Granted, Problem, query::Period, standing::Leave};
use crate::{
    config::settings::PortalSettings,
    connector::{
        ConnectorSettings, ResourceKind,
        rows::{InvoiceStatus, Priority, TicketStatus},
    },
    domain::{LinkFacts, TenantId, Trace},
    identity::Keyring,
    policy::Policies,
    spans::Spans,
    upstream::Upstream,
};

/// One tenant, by the link that lets us ask about it.
#[derive(Clone, Debug)]
pub struct Site {
    link: Arc<LinkFacts>,
    trace: Arc<Trace>,
    /// What is asked before each request to it.
    leave: Option<Leave>,
}

impl From<&Granted> for Site {
    fn from(granted: &Granted) -> Self {
        Self { link: Arc::clone(granted.link()), trace: Arc::clone(granted.trace()), leave: None }
    }
}

impl Site {
    pub fn tenant(&self) -> &TenantId {
        &self.link.link.tenant_id
    }

    pub fn link(&self) -> &Arc<LinkFacts> {
        &self.link
    }

    /// The same site, to which nothing is sent without asking again.
    pub(super) fn asking(self, leave: Leave) -> Self {
        Self { leave: Some(leave), ..self }
    }

    /// Whether something may be sent to it now.
    pub(super) async fn still_open(&self) -> Result<(), SourceError> {
        match &self.leave {
            Some(leave) => {
                leave.for_tenant(self.tenant()).await.map_err(|problem| SourceError::Barred(Box::new(problem)))
            }
            None => Ok(()),
        }
    }

    /// Of the request or job that asks. Where equal questions share one answer, the first of them is named.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }
}

/// Why a source did not answer, or not well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// No answer before the deadline.
    #[error("no answer in time")]
    Timeout,
    /// No connector is configured for this tenant and this kind of data.
    #[error("no connector is configured for {0}")]
    NoConnector(&'static str),
    /// The address cannot be reached, the answer breaks off, or its breaker is open.
    #[error("the service is not available: {0}")]
    Unavailable(String),
    /// Not asked, or not in good time, for a reason of ours: too many calls are under way, nothing to sign with.
    #[error("the service is not available: {0}")]
    Unasked(String),
    /// Not asked: it may not be any more.
    #[error("access ended before it was asked")]
    Barred(Box<Problem>),
    /// The service judged the question: it is there, and answered that it takes no such question (422) or that there is
    /// no such thing (404). No failure of the service. Says what `Answer` says.
    #[error("{0}")]
    Refused(String),
    /// An answer that is none: a status, a redirect, no JSON, a pointer that leads nowhere. Names tenant and pointer,
    /// and holds nothing of the answer's content.
    #[error("{0}")]
    Answer(String),
}

impl SourceError {
    /// As metrics and spans have it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unavailable(_) | Self::Unasked(_) => "unavailable",
            Self::Barred(_) => "barred",
            Self::Refused(_) => "refused",
            Self::Answer(_) => "wrong_answer",
            Self::NoConnector(_) => "no_connector",
        }
    }
}

/// Why a write cannot be said to have been done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Certainly not done: never sent.
    #[error(transparent)]
    NotSent(SourceError),
    /// The service refused it with this status, and said so.
    #[error("the service refused it with status {0}")]
    Refused(u16),
    #[error("not found")]
    NotFound,
    /// It may have been received: never sent again.
    #[error("whether it was done is not known: {0}")]
    Unknown(SourceError),
}

/// What is asked of an invoice list. A connector narrows what the service can narrow; the caller tests every row again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct InvoiceFilter {
    /// By `invoice_date`; `None`: whatever the date.
    pub period: Option<Period>,
    /// Only these; empty: all. `overdue` is computed by the caller, so a connector asks for more than it.
    pub status: Vec<InvoiceStatus>,
    pub line_items: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TicketFilter {
    pub status: Vec<TicketStatus>,
    pub priority: Vec<Priority>,
}

/// How a list was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// The source holds more rows than `max_rows_per_source`.
    pub truncated: bool,
}

/// A ticket to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTicket {
    pub subject: String,
    pub description: String,
    pub priority: Priority,
    pub category: Option<String>,
    pub customer_id: Option<String>,
    pub tags: Vec<String>,
    pub notify_customer: Option<bool>,
    /// Who asks, for the service's own history.
    pub partner_id: String,
    pub user_id: String,
}

/// `None`: stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TicketChange {
    pub status: Option<TicketStatus>,
    pub priority: Option<Priority>,
    pub assigned_to: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    pub content: String,
    pub is_internal: bool,
    pub notify_customer: Option<bool>,
}

/// A comment as the service stored it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredComment {
    pub comment_id: Option<String>,
    pub updated_at: Option<Timestamp>,
}

/// Rows as they come. Called for each row of a page; pages come in the service's own order, and no row comes twice.
///
/// Where the call ends with an error, the rows handed out before it count for nothing.
pub type Each<'a, R> = &'a mut (dyn FnMut(R) + Send);

/// All services, by their connectors.
#[derive(Debug)]
pub struct Sources {
    table: table::Table,
    client: client::Client,
    /// Most rows of one list.
    max_rows: u64,
}

impl Sources {
    pub fn new(
        connectors: &[ConnectorSettings],
        upstreams: &[Arc<Upstream>],
        keyring: Option<&Arc<Keyring>>,
        policies: &Arc<Policies>,
        settings: &PortalSettings,
        spans: Option<&Arc<Spans>>,
    ) -> Self {
        Self {
            table: table::Table::new(connectors, upstreams),
            client: client::Client::new(keyring, policies, spans),
            max_rows: settings.max_rows_per_source,
        }
    }

    /// The name of the upstream that answers for the tenant and this kind of data; `None`: no connector does.
    pub fn upstream_of(&self, tenant: &TenantId, kind: ResourceKind) -> Option<&Arc<str>> {
        self.table.route(tenant, kind).ok().map(|route| &route.upstream.name)
    }
}
