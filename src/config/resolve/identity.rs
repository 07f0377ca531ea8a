//! Issuers and signing keys: who is believed, for what, and by which keys.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{DAY, FieldPath, Resolver, millis, seconds, secrets::SecretWays};
use crate::{
    config::{
        raw::RawConfig,
        raw::form::word,
        raw::identity::{RawAlgorithm, RawClaims, RawIssuer, RawSigning, RawTrust},
        settings::ListenSettings,
    },
    domain::TenantId,
    identity::{
        mint::DevKey,
        settings::{ClaimNames, IdentitySettings, IssuerSettings, KeySource, SigningKey, SigningSettings, Trusts},
    },
};

/// Shortest HS256 secret: as long as the hash, as RFC 7518 asks.
const HS256_MIN_BYTES: usize = 32;

impl Resolver<'_> {
    pub(super) fn identity(
        &mut self,
        raw: &RawConfig,
        listen: &ListenSettings,
        signing: Option<&SigningSettings>,
    ) -> IdentitySettings {
        let root = FieldPath::default();
        if let Some(name) = &raw.identity.cookie {
            self.cookie_name(&root.key("identity").key("cookie"), name);
        }
        let section = root.key("issuers");
        // Where tokens are taken. What is no address is told where it stands.
        let decision = raw.decision.address.as_ref().and_then(|text| text.parse().ok());
        let listeners: Vec<(&str, SocketAddr)> = std::iter::once(("listen.address", listen.address))
            .chain(decision.map(|address| ("decision.address", address)))
            .collect();
        let issuers: Vec<_> = raw
            .issuers
            .iter()
            .map(|(name, issuer)| self.issuer(&section.key(name), name, issuer, &listeners))
            .collect();
        self.one_legacy(&section, &raw.issuers);
        self.distinct_issuers(&section, &issuers, signing);
        IdentitySettings {
            issuers,
            cookie: raw.identity.cookie.clone(),
            cache_tokens: usize::try_from(raw.identity.cache_tokens).unwrap_or(usize::MAX),
        }
    }

    fn issuer(
        &mut self,
        at: &FieldPath,
        name: &str,
        raw: &RawIssuer,
        listeners: &[(&str, SocketAddr)],
    ) -> IssuerSettings {
        self.plain_name(at, name);
        match (&raw.issuer, raw.legacy) {
            (Some(_), true) => {
                self.fail(&at.key("issuer"), "a legacy issuer takes only tokens without `iss`: name none")
            }
            (None, false) => self.fail(
                &at.key("issuer"),
                "the expected `iss` is missing (or say `legacy = true`: only tokens without `iss`)",
            ),
            (Some(text), false) if text.is_empty() => self.fail(&at.key("issuer"), "is empty"),
            _ => {}
        }
        if raw.audiences.is_empty() && !raw.legacy {
            self.fail(&at.key("audiences"), "at least one accepted `aud` is needed");
        }
        let keys = self.key_source(at, raw);
        let algorithms = self.algorithms(at, raw);
        let development_key = self.development_key(at, raw, &algorithms, listeners);
        IssuerSettings {
            name: name.to_owned(),
            issuer: raw.issuer.clone(),
            audiences: raw.audiences.clone(),
            algorithms,
            keys,
            trusts: trusts(&raw.trusts),
            home_tenants: self.home_tenants(at, raw),
            max_token_age: self.optional_duration(
                &at.key("max_token_age"),
                raw.max_token_age.as_ref(),
                seconds(1)..=DAY,
            ),
            leeway: self.duration(&at.key("leeway"), &raw.leeway, seconds(0)..=seconds(60)),
            mfa_acr: raw.mfa_acr.clone(),
            claims: self.claims(&at.key("claims"), &raw.claims),
            development_key,
        }
    }

    fn key_source(&mut self, at: &FieldPath, raw: &RawIssuer) -> KeySource {
        let ways = hs256(at, raw);
        let has_secret = ways.file.is_some() || ways.env.is_some() || ways.inline.is_some();
        let sources =
            usize::from(raw.jwks_file.is_some()) + usize::from(raw.jwks_url.is_some()) + usize::from(has_secret);
        let cut_out = ["jwks_file", "jwks_url", "hs256_secret", "hs256_secret_file", "hs256_secret_env"];
        if sources == 0
            && let Some(text) = &raw.development_key
        {
            return KeySource::DevelopmentKey(self.base.join(text));
        }
        if sources != 1 && !cut_out.iter().any(|key| self.was_reported(&at.key(key))) {
            let hint = if sources == 0 { " (to try it on one machine: a `development_key` alone)" } else { "" };
            let message = "keys come from exactly one of `jwks_file`, `jwks_url` and an HS256 secret";
            self.fail(at, format!("{message}; {sources} are named{hint}"));
        }
        if has_secret {
            let secret = self.secret(&ways, HS256_MIN_BYTES);
            return KeySource::Hs256(secret.unwrap_or_else(|| crate::domain::Secret::new(Vec::new())));
        }
        if let Some(url) = &raw.jwks_url {
            self.jwks_url(&at.key("jwks_url"), url);
            let refresh = self.duration(&at.key("jwks_refresh"), &raw.jwks_refresh, seconds(1)..=DAY);
            let max_age = self.duration(&at.key("jwks_max_age"), &raw.jwks_max_age, seconds(1)..=DAY * 30);
            if max_age < refresh {
                self.fail(
                    &at.key("jwks_max_age"),
                    "is shorter than `jwks_refresh`: keys would lapse between two fetches",
                );
            }
            let min_refetch = self.duration(&at.key("jwks_min_refetch"), &raw.jwks_min_refetch, millis(100)..=DAY);
            return KeySource::JwksUrl { url: url.clone(), refresh, min_refetch, max_age };
        }
        let path = raw.jwks_file.as_ref().map(|text| self.readable(&at.key("jwks_file"), text));
        KeySource::JwksFile(path.unwrap_or_default())
    }

    fn jwks_url(&mut self, field: &FieldPath, url: &str) {
        if url.contains('@') {
            self.fail(field, "takes no user name or password");
            return;
        }
        let parsed: Option<http::Uri> = url.parse().ok();
        let Some((scheme, host)) = parsed.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.host()?))) else {
            self.fail(field, format!("`{url}` is no URL"));
            return;
        };
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        let is_loopback = host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
        if !(scheme == "https" || (scheme == "http" && is_loopback)) {
            self.fail(
                field,
                format!(
                    "`{url}` is neither https nor http on a loopback address: keys fetched in clear could be replaced"
                ),
            );
        }
    }

    fn algorithms(&mut self, at: &FieldPath, raw: &RawIssuer) -> Vec<String> {
        let field = at.key("algorithms");
        let ways = hs256(at, raw);
        let has_secret = ways.file.is_some() || ways.env.is_some() || ways.inline.is_some();
        if raw.algorithms.is_empty() {
            if !has_secret {
                self.fail(&field, "is missing: name the algorithms that this issuer signs with, such as [\"ES256\"]");
            }
            return vec![word(&RawAlgorithm::Hs256)];
        }
        let symmetric = raw.algorithms.contains(&RawAlgorithm::Hs256);
        if has_secret && raw.algorithms != [RawAlgorithm::Hs256] {
            self.fail(&field, "an HS256 secret goes with [\"HS256\"] and nothing else");
        } else if symmetric && !has_secret {
            self.fail(&field, "HS256 needs a secret (`hs256_secret_file` or `hs256_secret_env`), not a JWKS");
        }
        raw.algorithms.iter().map(word).collect()
    }

    fn home_tenants(&mut self, at: &FieldPath, raw: &RawIssuer) -> Option<Vec<TenantId>> {
        let field = at.key("home_tenants");
        let texts = raw.home_tenants.as_ref()?;
        let mut found = Vec::with_capacity(texts.len());
        for (place, text) in texts.iter().enumerate() {
            match TenantId::new(text) {
                Ok(id) => found.push(id),
                Err(error) => self.fail(&field.index(place), error.to_string()),
            }
        }
        Some(found)
    }

    fn claims(&mut self, at: &FieldPath, raw: &RawClaims) -> ClaimNames {
        let mut name = |key: &str, text: &String| {
            if text.is_empty() {
                self.fail(&at.key(key), "is empty: name a claim");
            }
            text.clone()
        };
        ClaimNames {
            tenant_id: name("tenant_id", &raw.tenant_id),
            partner_id: name("partner_id", &raw.partner_id),
            roles: name("roles", &raw.roles),
            permissions: name("permissions", &raw.permissions),
            session_id: name("session_id", &raw.session_id),
            is_platform_admin: name("is_platform_admin", &raw.is_platform_admin),
            username: name("username", &raw.username),
            email: name("email", &raw.email),
            token_type: name("token_type", &raw.token_type),
        }
    }

    fn development_key(
        &mut self,
        at: &FieldPath,
        raw: &RawIssuer,
        algorithms: &[String],
        listeners: &[(&str, SocketAddr)],
    ) -> Option<std::path::PathBuf> {
        let field = at.key("development_key");
        let text = raw.development_key.as_ref()?;
        for (name, address) in listeners.iter().filter(|(_, address)| !address.ip().to_canonical().is_loopback()) {
            let message = format!(
                "with a development key anyone on this machine may mint tokens, so `{name}` must be a loopback address, not `{address}`"
            );
            self.fail(&field, message);
        }
        let path = self.readable(&field, text);
        // A file that is missing or holds no such key is told where keys are loaded; that nothing is listed, above.
        let ways = hs256(at, raw);
        let has_secret = ways.file.is_some() || ways.env.is_some() || ways.inline.is_some();
        if (has_secret || !raw.algorithms.is_empty())
            && let Ok(key) = DevKey::read(&path)
            && !algorithms.iter().any(|listed| listed == key.algorithm())
        {
            let (signs, path, listed) = (key.algorithm(), path.display(), algorithms.join(", "));
            let message = format!(
                "`{path}` signs by {signs}, and `algorithms` lists {listed} only: every token that `linkgate token` makes would be refused; list \"{signs}\" too, or name another key"
            );
            self.fail(&field, message);
        }
        Some(path)
    }

    fn one_legacy(&mut self, section: &FieldPath, issuers: &BTreeMap<String, RawIssuer>) {
        let mut legacy = issuers.iter().filter(|(_, issuer)| issuer.legacy).map(|(name, _)| name);
        if let Some(first) = legacy.next() {
            for other in legacy {
                let message = format!(
                    "`{first}` is a legacy issuer already, and there can be only one: nothing would tell their tokens apart"
                );
                self.fail(&section.key(other).key("legacy"), message);
            }
        }
    }

    fn distinct_issuers(&mut self, section: &FieldPath, issuers: &[IssuerSettings], signing: Option<&SigningSettings>) {
        for (at, one) in issuers.iter().enumerate() {
            let Some(text) = &one.issuer else { continue };
            let field = section.key(&one.name).key("issuer");
            if let Some(other) = issuers.iter().take(at).find(|other| other.issuer.as_ref() == Some(text)) {
                self.fail(&field, format!("`{text}` is the issuer of `{}` too", other.name));
            }
            if signing.is_some_and(|signing| signing.issuer == *text) {
                self.fail(
                    &field,
                    format!(
                        "`{text}` is the gateway's own issuer (`signing.issuer`), whose tokens are refused at the door"
                    ),
                );
            }
        }
    }

    pub(super) fn signing(&mut self, raw: Option<&RawSigning>) -> Option<SigningSettings> {
        let raw = raw?;
        let at = FieldPath::default().key("signing");
        if raw.issuer.is_empty() {
            self.fail(&at.key("issuer"), "is missing: name the gateway's own `iss`, such as `https://gateway.example`");
        }
        if raw.keys.is_empty() {
            self.fail(&at.key("keys"), "at least one key is needed");
        }
        let mut keys: Vec<SigningKey> = Vec::with_capacity(raw.keys.len());
        for (place, key) in raw.keys.iter().enumerate() {
            let field = at.key("keys").index(place);
            if key.kid.is_empty() {
                self.fail(&field.key("kid"), "is missing");
            } else if keys.iter().any(|earlier| earlier.kid == key.kid) {
                self.fail(&field.key("kid"), format!("`{}` stands twice", key.kid));
            }
            keys.push(SigningKey { kid: key.kid.clone(), path: self.readable(&field.key("file"), &key.file) });
        }
        Some(SigningSettings { issuer: raw.issuer.clone(), keys })
    }

    /// Names of issuers and upstreams stand in logs, metrics and environment variables.
    pub(super) fn plain_name(&mut self, at: &FieldPath, name: &str) {
        let fits = name.len() <= 64
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
            && !name.contains("__");
        if !fits {
            self.fail(
                at,
                format!("`{name}` is no name: begin with a-z and use a-z, 0-9, `-` and `_`, at most 64 characters"),
            );
        }
    }
}

fn hs256<'a>(at: &'a FieldPath, raw: &'a RawIssuer) -> SecretWays<'a> {
    SecretWays {
        table: at,
        name: "hs256_secret",
        file: raw.hs256_secret_file.as_ref(),
        env: raw.hs256_secret_env.as_ref(),
        inline: raw.hs256_secret.as_ref(),
    }
}

fn trusts(raw: &[RawTrust]) -> Trusts {
    Trusts {
        partner_id: raw.contains(&RawTrust::PartnerId),
        roles: raw.contains(&RawTrust::Roles),
        permissions: raw.contains(&RawTrust::Permissions),
        is_platform_admin: raw.contains(&RawTrust::IsPlatformAdmin),
    }
}
