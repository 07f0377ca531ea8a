//! TLS: which files, which versions, who shows a certificate. What stands in the files is judged when they are loaded.

use std::collections::BTreeMap;

use super::{FieldPath, Resolver, millis, seconds};
use crate::{
    config::{
        raw::identity::RawIssuer,
        raw::tls::{RawCertificate, RawClientAuth, RawClientRule, RawClientTls, RawTls, RawTlsVersion},
        settings::{CertificateGrant, CertificateName, ClientRule},
    },
    domain::TenantId,
    identity::{CertificateClaims, CertificateUser},
    tls::{
        is_subject,
        settings::{CertificateFiles, ClientAuth, ClientSettings, ServerSettings},
    },
};

impl Resolver<'_> {
    pub(super) fn server_tls(&mut self, at: &FieldPath, raw: &RawTls) -> ServerSettings {
        let listed = at.key("certificates");
        if raw.certificates.is_empty() {
            self.fail(&listed, "at least one pair is needed, such as `{ cert = \"tls.pem\", key_file = \"tls.key\" }`");
        }
        let pairs = raw.certificates.iter().enumerate();
        let certificates = pairs.map(|(place, pair)| self.certificate(&listed.index(place), pair)).collect();
        let client_auth = match raw.client_auth {
            RawClientAuth::None => ClientAuth::None,
            RawClientAuth::Optional => ClientAuth::Optional,
            RawClientAuth::Required => ClientAuth::Required,
        };
        let asks = client_auth != ClientAuth::None;
        if asks && raw.client_ca.is_empty() {
            self.fail(&at.key("client_ca"), "is missing: name the roots that client certificates must lead to");
        }
        let judges = !raw.client_ca.is_empty() || !raw.client_crl.is_empty();
        if judges && !asks {
            self.fail(
                &at.key("client_auth"),
                "is `none`, so roots and revocation lists of clients have no use: say `optional` or `required`",
            );
        }
        ServerSettings {
            certificates,
            tls13_only: raw.min_version == RawTlsVersion::V13,
            strict_sni: raw.strict_sni,
            handshake_timeout: self.duration(
                &at.key("handshake_timeout"),
                &raw.handshake_timeout,
                millis(100)..=seconds(300),
            ),
            max_handshakes: self.at_least_one(&at.key("max_handshakes"), raw.max_handshakes),
            client_auth,
            client_ca: self.readable_list(&at.key("client_ca"), &raw.client_ca),
            client_crl: self.readable_list(&at.key("client_crl"), &raw.client_crl),
        }
    }

    pub(super) fn client_rules(
        &mut self,
        at: &FieldPath,
        raw: &RawTls,
        issuers: &BTreeMap<String, RawIssuer>,
    ) -> Vec<ClientRule> {
        if !raw.clients.is_empty() && raw.client_auth == RawClientAuth::None {
            self.fail(at, "have no use while `client_auth` is `none`: say `optional` or `required`");
        }
        let mut found: Vec<ClientRule> = Vec::with_capacity(raw.clients.len());
        for (place, rule) in raw.clients.iter().enumerate() {
            let field = at.index(place);
            let name = self.certificate_name(&field, rule);
            let grant = self.certificate_grant(&field, rule, issuers);
            let (Some(name), Some(grant)) = (name, grant) else { continue };
            if found.iter().any(|earlier| earlier.name == name) {
                self.fail(&field, "names the same certificate as an earlier rule, which always comes first");
            }
            found.push(ClientRule { name, grant });
        }
        found
    }

    fn certificate_name(&mut self, at: &FieldPath, raw: &RawClientRule) -> Option<CertificateName> {
        let named = [
            raw.spiffe.clone().map(CertificateName::Spiffe),
            raw.dns.as_ref().map(|name| CertificateName::Dns(name.to_ascii_lowercase())),
            raw.common_name.clone().map(CertificateName::CommonName),
            raw.subject.clone().map(CertificateName::Subject),
        ];
        let mut named = named.into_iter().flatten();
        let (Some(name), None) = (named.next(), named.next()) else {
            self.fail(at, "name the certificate in one way: `spiffe`, `dns`, `common_name` or `subject`");
            return None;
        };
        match &name {
            CertificateName::Spiffe(id) if !id.starts_with("spiffe://") => {
                self.fail(
                    &at.key("spiffe"),
                    format!("`{id}` is no SPIFFE id: write for example `spiffe://example.org/robot`"),
                );
            }
            CertificateName::Dns(text) | CertificateName::CommonName(text) | CertificateName::Subject(text)
                if text.is_empty() =>
            {
                self.fail(at, "the certificate's name is empty");
            }
            CertificateName::Subject(text) if !is_subject(text) => {
                self.fail(
                    &at.key("subject"),
                    format!(
                        "`{text}` is no subject: write for example `O=Example, CN=robot`, and within a name `\\,` for a \
                         comma, `\\+` for a plus sign and `\\\\` for a backslash (in single quotes)"
                    ),
                );
            }
            _ => {}
        }
        Some(name)
    }

    fn certificate_grant(
        &mut self,
        at: &FieldPath,
        raw: &RawClientRule,
        issuers: &BTreeMap<String, RawIssuer>,
    ) -> Option<CertificateGrant> {
        let claims = raw.tenant_id.is_some() || !raw.roles.is_empty() || !raw.permissions.is_empty();
        if claims && !raw.sufficient {
            self.fail(
                at,
                "`tenant_id`, `roles` and `permissions` count only with `sufficient = true`: else the token says them",
            );
        }
        let (name, sub) = match (raw.trusted_proxy, &raw.issuer, &raw.sub) {
            (true, None, None) if !raw.sufficient => return Some(CertificateGrant::TrustedProxy),
            (false, Some(issuer), Some(sub)) if !sub.is_empty() => (issuer, sub),
            _ => {
                self.fail(at, "say either `trusted_proxy = true`, or `issuer` and `sub` of a user");
                return None;
            }
        };
        let Some(issuer) = issuers.get(name) else {
            self.fail(&at.key("issuer"), format!("there is no issuer `{name}` under `issuers`"));
            return None;
        };
        let alone = if raw.sufficient { Some(self.certificate_claims(at, raw)?) } else { None };
        Some(CertificateGrant::User(CertificateUser {
            issuer_name: name.as_str().into(),
            issuer: issuer.issuer.as_deref().unwrap_or_default().into(),
            sub: sub.as_str().into(),
            alone,
        }))
    }

    fn certificate_claims(&mut self, at: &FieldPath, raw: &RawClientRule) -> Option<CertificateClaims> {
        let field = at.key("tenant_id");
        let Some(text) = &raw.tenant_id else {
            self.fail(&field, "is missing: where no token names the user's home tenant, it stands here");
            return None;
        };
        let texts = |list: &[String]| list.iter().map(|text| text.as_str().into()).collect();
        Some(CertificateClaims {
            home_tenant: self.ok(&field, TenantId::new(text).map_err(|error| error.to_string()))?,
            roles: texts(&raw.roles),
            permissions: texts(&raw.permissions),
        })
    }

    pub(super) fn client_tls(&mut self, at: &FieldPath, raw: &RawClientTls) -> ClientSettings {
        if let Some(name) = &raw.server_name
            && rustls::pki_types::ServerName::try_from(name.as_str()).is_err()
        {
            self.fail(&at.key("server_name"), format!("`{name}` is neither a host name nor an address"));
        }
        let pair = raw.client_certificate.as_ref();
        ClientSettings {
            ca: self.readable_list(&at.key("ca"), &raw.ca),
            certificate: pair.map(|pair| self.certificate(&at.key("client_certificate"), pair)),
            server_name: raw.server_name.clone(),
            tls13_only: raw.min_version == RawTlsVersion::V13,
        }
    }

    pub(super) fn certificate(&mut self, at: &FieldPath, raw: &RawCertificate) -> CertificateFiles {
        CertificateFiles {
            chain: self.readable(&at.key("cert"), &raw.cert),
            key: self.readable(&at.key("key_file"), &raw.key_file),
        }
    }

    pub(super) fn readable_list(&mut self, at: &FieldPath, raw: &[String]) -> Vec<std::path::PathBuf> {
        raw.iter().enumerate().map(|(place, text)| self.readable(&at.index(place), text)).collect()
    }
}
