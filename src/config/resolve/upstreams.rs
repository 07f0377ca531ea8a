//! Upstreams: where a service is, and what a cross-tenant request carries there.

use std::collections::{BTreeMap, HashMap};

use super::{DAY, FieldPath, Resolver, millis, secrets::SecretWays};
use crate::{
    config::{
        errors::nearest,
        raw::tls::RawHttp2,
        raw::upstream::{RawAssertion, RawCredential},
        raw::upstream::{RawReplacement, RawUpstream},
        scalar,
    },
    domain::{LinkRole, Permission, PermissionSet, TenantId},
    upstream::settings::{AssertionForm, Credential, Http2, Origin, Replacement, UpstreamSettings},
};

/// Shortest HMAC key for assertions and replacement tokens, in bytes.
const HMAC_MIN_BYTES: usize = 32;
/// The gateway's own tokens name it, whichever key signs them.
const NEEDS_SIGNING: &str = "needs the section `[signing]`, even where a secret of the upstream's signs: add its `issuer` (the gateway's own `iss`) and `keys` (a `kid` and a private key in a `file`)";

impl Resolver<'_> {
    pub(super) fn upstreams(
        &mut self,
        raw: &BTreeMap<String, RawUpstream>,
        has_signing: bool,
    ) -> Vec<UpstreamSettings> {
        let section = FieldPath::default().key("upstreams");
        raw.iter().map(|(name, one)| self.upstream(&section.key(name), name, one, has_signing)).collect()
    }

    fn upstream(&mut self, at: &FieldPath, name: &str, raw: &RawUpstream, has_signing: bool) -> UpstreamSettings {
        self.plain_name(at, name);
        let endpoints = self.endpoints(at, raw);
        if raw.audience.as_ref().is_some_and(String::is_empty) {
            self.fail(&at.key("audience"), "is empty");
        }
        UpstreamSettings {
            name: name.to_owned(),
            endpoints,
            tenants: self.tenant_origins(&at.key("tenants"), &raw.tenants),
            dns_refresh: self.duration(&at.key("dns_refresh"), &raw.dns_refresh, millis(100)..=DAY),
            connect_timeout: self.duration(&at.key("connect_timeout"), &raw.connect_timeout, millis(1)..=DAY),
            response_timeout: self.response_wait(&at.key("response_timeout"), &raw.response_timeout),
            pool_idle: usize::try_from(raw.pool_idle).unwrap_or(usize::MAX),
            pool_idle_timeout: self.duration(&at.key("pool_idle_timeout"), &raw.pool_idle_timeout, millis(1)..=DAY),
            max_in_flight: self.at_least_one(&at.key("max_in_flight"), raw.max_in_flight),
            tenant_max_in_flight: self.at_least_one(&at.key("tenant_max_in_flight"), raw.tenant_max_in_flight),
            organisation_max_in_flight: raw
                .organisation_max_in_flight
                .map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
            max_pending: usize::try_from(raw.max_pending).unwrap_or(usize::MAX),
            queue_timeout: self.duration(&at.key("queue_timeout"), &raw.queue_timeout, millis(1)..=DAY),
            outlier: self.outlier(&at.key("outlier_detection"), &raw.outlier_detection),
            budget: self.budget(&at.key("retry_budget"), &raw.retry_budget),
            health_check: raw.health_check.as_ref().and_then(|check| self.health_check(&at.key("health_check"), check)),
            tls: self.client_tls(&at.key("tls"), &raw.tls),
            http2: match raw.http2 {
                RawHttp2::Off => Http2::Off,
                RawHttp2::Auto => Http2::Auto,
                RawHttp2::Always => Http2::Always,
            },
            http2_streams: self.at_least_one(&at.key("http2_streams"), raw.http2_streams),
            credential: self.credential(at, raw, has_signing),
            assertion: self.assertion(at, raw, has_signing),
            audience: raw.audience.clone().unwrap_or_else(|| name.to_owned()),
        }
    }

    fn tenant_origins(&mut self, at: &FieldPath, raw: &BTreeMap<String, String>) -> HashMap<TenantId, Origin> {
        let mut found = HashMap::with_capacity(raw.len());
        for (tenant, text) in raw {
            let field = at.key(tenant);
            let id = self.ok(&field, TenantId::new(tenant).map_err(|error| error.to_string()));
            let origin = self.ok(&field, scalar::parse_origin(text));
            if let (Some(id), Some(origin)) = (id, origin) {
                found.insert(id, origin);
            }
        }
        found
    }

    fn credential(&mut self, at: &FieldPath, raw: &RawUpstream, has_signing: bool) -> Credential {
        let field = at.key("credential");
        let replacement = self.replacement(&at.key("replacement"), &raw.replacement);
        match raw.credential {
            RawCredential::Pass if !raw.takes_tenant_from_header => {
                self.fail(
                    &field,
                    "`pass` needs `takes_tenant_from_header = true`: the client's token names the home tenant, and an upstream that reads it would answer for that one",
                );
                Credential::Drop
            }
            RawCredential::Pass => Credential::Pass,
            RawCredential::Drop => Credential::Drop,
            RawCredential::Replace => {
                // Also where the upstream's own secret signs: by the section's issuer the gateway knows its tokens again
                // at the door, and refuses them.
                if !has_signing {
                    self.fail(&field, format!("`replace` {NEEDS_SIGNING}; or choose `drop` or `pass`"));
                }
                Credential::Replace(replacement)
            }
        }
    }

    fn replacement(&mut self, at: &FieldPath, raw: &RawReplacement) -> Replacement {
        let ways = SecretWays {
            table: at,
            name: "hs256_secret",
            file: raw.hs256_secret_file.as_ref(),
            env: raw.hs256_secret_env.as_ref(),
            inline: raw.hs256_secret.as_ref(),
        };
        let hs256 = self.secret(&ways, HMAC_MIN_BYTES);
        for name in raw.permission_names.keys() {
            self.permission(&at.key("permission_names").key(name), name);
        }
        for name in raw.role_names.keys() {
            if let Err(error) = name.parse::<LinkRole>() {
                self.fail(&at.key("role_names").key(name), error.to_string());
            }
        }
        Replacement {
            hs256,
            issuer: raw.issuer.clone(),
            permission_names: raw.permission_names.clone().into_iter().collect(),
            role_names: raw.role_names.clone().into_iter().collect(),
        }
    }

    fn assertion(&mut self, at: &FieldPath, raw: &RawUpstream, has_signing: bool) -> AssertionForm {
        let field = at.key("assertion");
        let ways = SecretWays {
            table: at,
            name: "assertion_hmac",
            file: raw.assertion_hmac_file.as_ref(),
            env: raw.assertion_hmac_env.as_ref(),
            inline: raw.assertion_hmac.as_ref(),
        };
        let hmac = self.secret(&ways, HMAC_MIN_BYTES);
        let names_hmac = ways.file.is_some() || ways.env.is_some() || ways.inline.is_some();
        if names_hmac && raw.assertion != RawAssertion::Request {
            self.fail(&field, "an HMAC key is named, but only `request` assertions use one");
        }
        match raw.assertion {
            RawAssertion::Off => AssertionForm::Off,
            RawAssertion::Session => {
                if !has_signing {
                    self.fail(&field, format!("`session` {NEEDS_SIGNING}; or choose `off`"));
                }
                AssertionForm::Session
            }
            RawAssertion::Request => {
                if !has_signing {
                    self.fail(&field, format!("`request` {NEEDS_SIGNING}; or choose `off`"));
                }
                AssertionForm::Request { hmac }
            }
        }
    }

    /// A full permission name; wildcards and scopes do not name one act.
    pub(super) fn permission(&mut self, field: &FieldPath, name: &str) -> Option<Permission> {
        let found = Permission::parse(name);
        if found.is_none() {
            let near = nearest(name, Permission::all().map(Permission::name));
            let message = match near {
                _ if PermissionSet::from_name(name).is_ok() => {
                    format!("`{name}` is no full name: here one act is named, such as `partner.billing.invoices.read`")
                }
                Some(near) => format!("unknown permission `{name}`; did you mean `{near}`?"),
                None => format!("unknown permission `{name}`"),
            };
            self.fail(field, message);
        }
        found
    }
}
