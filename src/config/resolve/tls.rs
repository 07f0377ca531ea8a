//! TLS: which files, which versions, who shows a certificate. What stands in the files is judged when they are loaded.

use super::{FieldPath, Resolver, millis, seconds};
use crate::{
    config::raw_tls::{RawCertificate, RawClientAuth, RawTls, RawTlsVersion},
    tls::settings::{CertificateFiles, ClientAuth, ServerSettings},
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
        if !asks && !(raw.client_ca.is_empty() && raw.client_crl.is_empty()) {
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
