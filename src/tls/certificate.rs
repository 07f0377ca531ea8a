//! Whom a certificate names, and how long it counts.
//!
//! Read only from certificates that rustls verified, or from files of our own. A name that could be read in two ways is
//! none: two common names, or two URIs beside a SPIFFE id (a SPIFFE certificate has exactly one).

use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

/// The names of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateNames {
    /// The subject as it stands in the certificate, such as `C=DE, O=Example, CN=robot`.
    pub subject: String,
    /// The subject's only common name.
    pub common_name: Option<String>,
    /// DNS names, lower case.
    pub dns: Vec<String>,
    /// The certificate's only URI, where it is a SPIFFE id.
    pub spiffe: Option<String>,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
}

impl CertificateNames {
    /// `None`: this is no certificate, or one whose names cannot be read without doubt.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (rest, parsed) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let mut dns = Vec::new();
        let mut uris = Vec::new();
        // Twice the same extension is an error here, and so no certificate of ours.
        if let Some(names) = parsed.subject_alternative_name().ok()? {
            for name in &names.value.general_names {
                match name {
                    GeneralName::DNSName(name) => dns.push(name.to_ascii_lowercase()),
                    GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                    _ => {}
                }
            }
        }
        let mut common = parsed.subject().iter_common_name();
        let common_name = match (common.next(), common.next()) {
            (Some(only), None) => only.as_str().ok().map(str::to_owned),
            _ => None,
        };
        let spiffe = match uris.as_slice() {
            [only] if only.starts_with("spiffe://") => Some(only.clone()),
            _ => None,
        };
        Some(Self {
            subject: parsed.subject().to_string(),
            common_name,
            dns,
            spiffe,
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }
}
