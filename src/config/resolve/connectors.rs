//! The section `connectors`: who is asked about which tenant, and by what credential. Their tables: `resources`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use http::HeaderName;

use super::{FieldPath, Resolver, secrets::SecretWays};
use crate::{
    config::{
        errors::nearest,
        raw::connectors::{RawConnector, RawConnectorCredential, RawCredentialKind, RawKind},
        raw::upstream::RawUpstream,
    },
    connector::{ConnectorSettings, ResourceKind, settings::Credential},
    domain::TenantId,
};

/// Longest answer that may be asked for.
const MAX_ANSWER: u64 = 1 << 30;

impl RawKind {
    pub(super) fn as_str(self) -> &'static str {
        kind(self).as_str()
    }
}

pub(super) fn kind(raw: RawKind) -> ResourceKind {
    match raw {
        RawKind::Tenant => ResourceKind::Tenant,
        RawKind::Metrics => ResourceKind::Metrics,
        RawKind::Invoices => ResourceKind::Invoices,
        RawKind::Tickets => ResourceKind::Tickets,
        RawKind::Ticket => ResourceKind::Ticket,
        RawKind::CreateTicket => ResourceKind::CreateTicket,
        RawKind::UpdateTicket => ResourceKind::UpdateTicket,
        RawKind::Comment => ResourceKind::Comment,
        RawKind::Usage => ResourceKind::Usage,
        RawKind::Uptime => ResourceKind::Uptime,
        RawKind::Breaches => ResourceKind::Breaches,
    }
}

/// The connector that is being read.
pub(super) struct Reading<'a> {
    pub(super) at: &'a FieldPath,
    pub(super) raw: &'a RawConnector,
    pub(super) upstreams: &'a BTreeMap<String, RawUpstream>,
}

impl Resolver<'_> {
    pub(super) fn connectors(
        &mut self,
        raw: &BTreeMap<String, RawConnector>,
        upstreams: &BTreeMap<String, RawUpstream>,
    ) -> Vec<ConnectorSettings> {
        let section = FieldPath::default().key("connectors");
        let connectors: Vec<ConnectorSettings> = raw
            .iter()
            .map(|(name, one)| {
                let at = section.key(name);
                self.connector(name, &Reading { at: &at, raw: one, upstreams })
            })
            .collect();
        self.overlaps(&section, &connectors);
        connectors
    }

    fn connector(&mut self, name: &str, reading: &Reading<'_>) -> ConnectorSettings {
        let Reading { at, raw, .. } = reading;
        self.plain_name(at, name);
        if let Some(upstream) = &raw.upstream {
            self.known_upstream(&at.key("upstream"), upstream, reading.upstreams);
        }
        let present = RawKind::ALL.into_iter().filter_map(|one| Some((one, raw.resource(one)?)));
        let without: BTreeSet<ResourceKind> = raw.without.iter().copied().map(kind).collect();
        let mut resources = Vec::new();
        for (one, resource) in present {
            if !without.contains(&kind(one))
                && let Some(resource) = self.resource(reading, one, resource)
            {
                resources.push(Arc::new(resource));
            }
        }
        if RawKind::ALL.into_iter().all(|one| raw.resource(one).is_none()) && raw.without.is_empty() {
            self.fail(at, "maps nothing: name a `preset`, or write a table such as `invoices`");
        }
        let tenants = raw.tenants.as_ref().map(|list| {
            let field = at.key("tenants");
            let ids = list.iter().enumerate().filter_map(|(index, text)| {
                self.ok(&field.index(index), TenantId::new(text).map_err(|error| error.to_string()))
            });
            ids.collect()
        });
        let header = raw.tenant_header.parse().map_err(|_| format!("`{}` is no header name", raw.tenant_header));
        let max_answer = self.size(&at.key("max_answer"), &raw.max_answer, 1_024..=MAX_ANSWER);
        ConnectorSettings {
            name: name.to_owned(),
            tenants,
            without,
            tenant_header: self.ok(&at.key("tenant_header"), header).unwrap_or(HeaderName::from_static("x-tenant-id")),
            credential: self.connector_credential(&at.key("credential"), &raw.credential),
            max_answer_bytes: usize::try_from(max_answer).unwrap_or(usize::MAX),
            resources,
        }
    }

    fn connector_credential(&mut self, at: &FieldPath, raw: &RawConnectorCredential) -> Credential {
        let shared = self.secret(
            &SecretWays {
                table: at,
                name: "secret",
                file: raw.secret_file.as_ref(),
                env: raw.secret_env.as_ref(),
                inline: raw.secret.as_ref(),
            },
            1,
        );
        let mut tenants = HashMap::new();
        for (tenant, one) in &raw.tenants {
            let table = at.key("tenants").key(tenant);
            let id = self.ok(&table, TenantId::new(tenant).map_err(|error| error.to_string()));
            let ways = SecretWays {
                table: &table,
                name: "secret",
                file: one.secret_file.as_ref(),
                env: one.secret_env.as_ref(),
                inline: one.secret.as_ref(),
            };
            let secret = self.secret(&ways, 1);
            if ways.file.is_none() && ways.env.is_none() && ways.inline.is_none() {
                self.fail(&table, "names no secret: use `secret_file` or `secret_env`");
            }
            tenants.extend(id.zip(secret));
        }
        let names_secret = raw.secret_file.is_some() || raw.secret_env.is_some() || raw.secret.is_some();
        if raw.kind != RawCredentialKind::Header && (names_secret || !raw.tenants.is_empty()) {
            self.fail(&at.key("kind"), "a secret is named, but only `header` sends one");
        }
        match raw.kind {
            RawCredentialKind::Token => Credential::Token {
                subject: raw.subject.clone(),
                roles: raw.roles.clone(),
                permissions: raw.permissions.clone(),
            },
            RawCredentialKind::Header => {
                if !names_secret && raw.tenants.is_empty() {
                    self.fail(&at.key("secret_file"), "is missing: name the secret that the header carries");
                }
                let name = raw.header.parse().map_err(|_| format!("`{}` is no header name", raw.header));
                let name = self.ok(&at.key("header"), name).unwrap_or(HeaderName::from_static("x-api-key"));
                Credential::Header { name, shared, tenants }
            }
            RawCredentialKind::None => Credential::None,
        }
    }

    pub(super) fn known_upstream(&mut self, field: &FieldPath, name: &str, upstreams: &BTreeMap<String, RawUpstream>) {
        if upstreams.contains_key(name) {
            return;
        }
        let known = || upstreams.keys().map(String::as_str);
        let message = match nearest(name, known()) {
            Some(near) => format!("there is no upstream `{name}`; did you mean `{near}`?"),
            None => format!("there is no upstream `{name}` (known: {})", known().collect::<Vec<_>>().join(", ")),
        };
        self.fail(field, message);
    }

    /// One kind of data of one tenant comes through one connector.
    fn overlaps(&mut self, section: &FieldPath, connectors: &[ConnectorSettings]) {
        for (at, one) in connectors.iter().enumerate() {
            for other in connectors.iter().take(at) {
                let both = one
                    .resources
                    .iter()
                    .find(|resource| other.resources.iter().any(|known| known.kind == resource.kind));
                let Some(both) = both else { continue };
                let field = section.key(&one.name);
                match (&one.tenants, &other.tenants) {
                    (None, None) => self.fail(
                        &field,
                        format!(
                            "`{}` comes through `{}` too: name the `tenants` of one of them",
                            both.kind.as_str(),
                            other.name
                        ),
                    ),
                    (Some(these), Some(those)) => {
                        if let Some(tenant) = these.intersection(those).next() {
                            let message = format!(
                                "`{}` of the tenant `{tenant}` comes through `{}` too",
                                both.kind.as_str(),
                                other.name
                            );
                            self.fail(&field.key("tenants"), message);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}
