//! The raw mirror of the section `connectors`; see `raw`.

use std::{borrow::Cow, collections::BTreeMap};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::form::raw;
use crate::config::scalar::SizeText;

raw! {
    /// How a service is asked about a tenant, for the consolidated API.
    struct RawConnector {
        /// A shipped connector to begin with; what stands beside it wins.
        preset: Option<RawPreset> = None,
        /// Name of the upstream, where a table of its own does not name another.
        upstream: Option<String> = None,
        /// Tenants whose data comes through it. Not set: all that no other connector names.
        tenants: Option<Vec<String>> = None,
        /// Kinds of data that these tenants have no source for.
        without: Vec<RawKind> = Vec::new(),
        /// Header that carries the tenant's id.
        tenant_header: String = "X-Tenant-ID".to_owned(),
        /// By what the service knows the gateway.
        credential: RawConnectorCredential = RawConnectorCredential::default(),
        /// Longest answer.
        max_answer: SizeText = SizeText::of("8MiB"),
        /// The registry's row of a tenant.
        tenant: Option<RawResource> = None,
        /// Figures of a tenant as of now.
        metrics: Option<RawResource> = None,
        /// The list of invoices.
        invoices: Option<RawResource> = None,
        /// The list of tickets.
        tickets: Option<RawResource> = None,
        /// One ticket. Looked up before it is changed or commented on.
        ticket: Option<RawResource> = None,
        /// Opens a ticket.
        create_ticket: Option<RawResource> = None,
        /// Changes a ticket.
        update_ticket: Option<RawResource> = None,
        /// Comments on a ticket.
        comment: Option<RawResource> = None,
        /// Traffic in a period.
        usage: Option<RawResource> = None,
        /// Availability by day.
        uptime: Option<RawResource> = None,
        /// Breaches of the service level.
        breaches: Option<RawResource> = None,
    }

    /// By what the service knows the gateway.
    struct RawConnectorCredential {
        /// A token for the tenant (where the upstream's own `credential` is `replace`), a header with a secret, or none.
        kind: RawCredentialKind = RawCredentialKind::Token,
        /// `sub` of the token.
        subject: String = "linkgate".to_owned(),
        /// Roles of the token. Not set: the link's role in the upstream's words.
        roles: Option<Vec<String>> = None,
        /// Permissions of the token. Not set: the link's in the upstream's words.
        permissions: Option<Vec<String>> = None,
        /// Name of the header.
        header: String = "X-API-Key".to_owned(),
        /// File with the secret for all tenants.
        secret_file: Option<String> = None,
        /// Environment variable with the secret for all tenants.
        secret_env: Option<String> = None,
        /// The secret itself: only as an environment override, never in the file.
        secret: Option<String> = None,
        /// Secrets of single tenants, by tenant id; they win.
        tenants: BTreeMap<String, RawTenantSecret> = BTreeMap::new(),
    }

    /// The secret of one tenant.
    struct RawTenantSecret {
        /// File with the secret.
        secret_file: Option<String> = None,
        /// Environment variable with the secret.
        secret_env: Option<String> = None,
        /// The secret itself: only as an environment override, never in the file.
        secret: Option<String> = None,
    }

    /// One endpoint of a service.
    struct RawResource {
        /// Name of the upstream. Not set: the connector's.
        upstream: Option<String> = None,
        /// Not set: GET, POST to create and comment, PATCH to update.
        method: Option<RawMethod> = None,
        /// Path with `{tenant_id}` and `{id}`, exactly as the service has it.
        path: Option<String> = None,
        /// Query parameters: plain text or one placeholder. Without a value a parameter is left out.
        query: BTreeMap<String, String> = BTreeMap::new(),
        /// The JSON body; text that is one placeholder becomes its value.
        body: BTreeMap<String, RawTemplate> = BTreeMap::new(),
        /// Our status words in the service's, where they are sent.
        send_status: BTreeMap<String, String> = BTreeMap::new(),
        /// Our priority words in the service's, where they are sent.
        send_priority: BTreeMap<String, String> = BTreeMap::new(),
        /// JSON pointer to the list of rows, or to the one row. Empty: the answer itself.
        rows: String = String::new(),
        /// Rows asked for at once, as `{limit}`.
        page_size: u32 = 100,
        /// Pointer to a flag that is true while there are further pages.
        more: Option<String> = None,
        /// Pointer to the number of rows on all pages. Leave it out where it is the size of the page.
        total: Option<String> = None,
        /// Most days in one question; longer periods are asked for in parts.
        max_days: Option<u32> = None,
        /// Pointer, in each row, to the tenant's id: it must be the tenant that was asked about.
        tenant: Option<String> = None,
        /// How money is written, where a field does not say.
        unit: RawUnit = RawUnit::Major,
        /// Begin with the fields of another table of this connector.
        fields_of: Option<RawKind> = None,
        /// Our fields: a JSON pointer each, or a table. Empty text: no source.
        fields: BTreeMap<String, RawField> = BTreeMap::new(),
        /// Lines of an invoice.
        line_items: Option<RawLineItems> = None,
        /// What is answered with 200 and is a failure all the same.
        failed_when: Vec<RawFailureRule> = Vec::new(),
    }

    /// Lines of an invoice.
    struct RawLineItems {
        /// Pointer to the list, in a row.
        rows: String = String::new(),
        /// Our fields, as in the row.
        fields: BTreeMap<String, RawField> = BTreeMap::new(),
    }

    /// One field with more than a pointer.
    struct RawFieldTable {
        /// JSON pointer in the row.
        pointer: String = String::new(),
        /// The value is this less.
        minus: Option<String> = None,
        /// The value is divided by this.
        divide: Option<i64> = None,
        /// How the number is written.
        unit: Option<RawUnit> = None,
        /// The service's words and ours.
        words: Option<BTreeMap<String, String>> = None,
        /// Our word for words that are not listed. Not set: they are an error.
        otherwise: Option<String> = None,
        /// May be absent. Not set: only null is nothing.
        optional: bool = false,
    }

    /// What is answered with 200 and is a failure all the same.
    struct RawFailureRule {
        /// Pointers into the first page's answer: all of them lead to zero, an empty value or nothing.
        zero: Vec<String> = Vec::new(),
        /// Pointers into the same answer, one of which leads to something.
        nonzero: Vec<String> = Vec::new(),
        /// Another endpoint that is asked then, and knows better.
        witness: Option<RawWitness> = None,
    }

    /// An endpoint that is asked only where an answer is suspicious.
    struct RawWitness {
        /// Name of the upstream. Not set: that of the table.
        upstream: Option<String> = None,
        /// Its path.
        path: String = String::new(),
        /// Its query parameters.
        query: BTreeMap<String, String> = BTreeMap::new(),
        /// Pointers, one of which leads to something.
        nonzero: Vec<String> = Vec::new(),
    }
}

macro_rules! raw_words {
    ($($(#[$doc:meta])* $name:ident { $($variant:ident $text:literal),+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub(in crate::config) enum $name { $(#[serde(rename = $text)] $variant),+ }
    )+};
}

raw_words! {
    /// A shipped connector.
    RawPreset { Gen1 "gen1", Gen2 "gen2" }
    /// One kind of data, or one act.
    RawKind {
        Tenant "tenant", Metrics "metrics", Invoices "invoices", Tickets "tickets", Ticket "ticket",
        CreateTicket "create_ticket", UpdateTicket "update_ticket", Comment "comment", Usage "usage",
        Uptime "uptime", Breaches "breaches"
    }
    /// By what a service knows the gateway.
    RawCredentialKind { Token "token", Header "header", None "none" }
    /// A method.
    RawMethod { Get "GET", Post "POST", Put "PUT", Patch "PATCH" }
    /// How a number is written.
    RawUnit { Major "major", Minor "minor", Float "float", Text "text", Length "length" }
}

/// A JSON pointer, or a table with more.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(in crate::config) enum RawField {
    Pointer(String),
    Table(RawFieldTable),
}

impl JsonSchema for RawField {
    fn schema_name() -> Cow<'static, str> {
        "RawField".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = RawFieldTable::json_schema(generator);
        schema.insert("type".to_owned(), serde_json::json!(["string", "object"]));
        schema
    }
}

/// Any value that JSON knows, with placeholders in its texts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::config) struct RawTemplate(pub(in crate::config) Value);

impl JsonSchema for RawTemplate {
    fn schema_name() -> Cow<'static, str> {
        "RawTemplate".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let below = generator.subschema_for::<Self>();
        json_schema!({
            "type": ["string", "integer", "number", "boolean", "array", "object"],
            "items": below.clone(),
            "additionalProperties": below,
        })
    }
}

impl RawConnector {
    pub(in crate::config) fn resource(&self, kind: RawKind) -> Option<&RawResource> {
        match kind {
            RawKind::Tenant => self.tenant.as_ref(),
            RawKind::Metrics => self.metrics.as_ref(),
            RawKind::Invoices => self.invoices.as_ref(),
            RawKind::Tickets => self.tickets.as_ref(),
            RawKind::Ticket => self.ticket.as_ref(),
            RawKind::CreateTicket => self.create_ticket.as_ref(),
            RawKind::UpdateTicket => self.update_ticket.as_ref(),
            RawKind::Comment => self.comment.as_ref(),
            RawKind::Usage => self.usage.as_ref(),
            RawKind::Uptime => self.uptime.as_ref(),
            RawKind::Breaches => self.breaches.as_ref(),
        }
    }
}

impl RawKind {
    pub(in crate::config) const ALL: [Self; 11] = [
        Self::Tenant,
        Self::Metrics,
        Self::Invoices,
        Self::Tickets,
        Self::Ticket,
        Self::CreateTicket,
        Self::UpdateTicket,
        Self::Comment,
        Self::Usage,
        Self::Uptime,
        Self::Breaches,
    ];
}
