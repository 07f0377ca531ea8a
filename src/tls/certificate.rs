//! Whom a certificate names, and how long it counts.
//!
//! Read only from certificates that rustls verified, or from files of our own. A name that could be read in two ways is
//! none: two common names, or two URIs beside a SPIFFE id (a SPIFFE certificate has exactly one).

use std::fmt::Write;

use x509_parser::{
    asn1_rs::Tag,
    extensions::GeneralName,
    objects::{oid_registry, oid2abbrev},
    prelude::{AttributeTypeAndValue, FromDer, X509Certificate, X509Name},
};

/// The names of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateNames {
    /// The subject as it stands in the certificate, such as `C=DE, O=Example, CN=robot`; see [`subject`].
    pub subject: Option<String>,
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
        let name = whole(parsed.subject());
        let mut common = name.iter().flat_map(|name| name.iter_common_name());
        let common_name = match (common.next(), common.next()) {
            (Some(only), None) => text_of(only),
            _ => None,
        };
        let spiffe = match uris.as_slice() {
            [only] if only.starts_with("spiffe://") => Some(only.clone()),
            _ => None,
        };
        Some(Self {
            subject: name.and_then(subject),
            common_name,
            dns,
            spiffe,
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }
}

/// The last second of a certificate's time, since 1970; `None`: it is none.
pub(super) fn last_second(der: &[u8]) -> Option<i64> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

/// A subject as one text. Commas, plus signs and backslashes of a name are written with a backslash before them (RFC 4514),
/// so that nobody's name reads like several parts of another's. `None`: there is none, or a part of it is no usual text.
fn subject(name: &X509Name<'_>) -> Option<String> {
    let mut text = String::new();
    for part in name.iter_rdn() {
        for (at, attribute) in part.iter().enumerate() {
            if !text.is_empty() {
                text.push_str(if at == 0 { ", " } else { " + " });
            }
            // Writing to a string cannot fail.
            let kind = attribute.attr_type();
            let _ = match oid2abbrev(kind, oid_registry()) {
                Ok(short) => write!(text, "{short}="),
                Err(_) => write!(text, "{kind}="),
            };
            for character in text_of(attribute)?.chars() {
                if matches!(character, ',' | '+' | '\\') {
                    text.push('\\');
                }
                text.push(character);
            }
        }
    }
    Some(text).filter(|text| !text.is_empty())
}

/// A name of which every part was read: the parser leaves out what stands behind the first that it cannot read.
fn whole<'n, 'a>(name: &'n X509Name<'a>) -> Option<&'n X509Name<'a>> {
    fn rest_of(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
        let (found, rest) = der.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (length, rest) = match first & 0x7f {
            short if first & 0x80 == 0 => (usize::from(short), rest),
            bytes @ 1..=4 => {
                let (length, rest) = rest.split_at_checked(usize::from(bytes))?;
                (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        (*found == tag).then_some(())?;
        rest.split_at_checked(length)
    }
    let (mut parts, behind) = rest_of(0x30, name.as_raw())?;
    let mut attributes = 0;
    while !parts.is_empty() {
        let (mut part, others) = rest_of(0x31, parts)?;
        while !part.is_empty() {
            (_, part) = rest_of(0x30, part)?;
            attributes += 1;
        }
        parts = others;
    }
    (behind.is_empty() && attributes == name.iter_attributes().count()).then_some(name)
}

/// The text of an attribute; `None`: it is none, or not in one of the usual encodings.
fn text_of(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let value = attribute.attr_value();
    match value.tag() {
        Tag::Utf8String
        | Tag::PrintableString
        | Tag::Ia5String
        | Tag::NumericString
        | Tag::VisibleString
        | Tag::GeneralString
        | Tag::T61String => std::str::from_utf8(value.data).ok().map(str::to_owned),
        Tag::BmpString => {
            let (pairs, rest) = value.data.as_chunks::<2>();
            let units: Vec<u16> = pairs.iter().copied().map(u16::from_be_bytes).collect();
            rest.is_empty().then(|| String::from_utf16(&units).ok()).flatten()
        }
        _ => None,
    }
}

/// Whether a text can be a subject at all: kinds and names, as [`CertificateNames::subject`] has them.
pub fn is_subject(text: &str) -> bool {
    let mut unescaped = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            unescaped.push(character);
        } else if matches!(characters.next(), Some(',' | '+' | '\\')) {
            unescaped.push('_');
        } else {
            return false;
        }
    }
    unescaped.split(", ").flat_map(|part| part.split(" + ")).all(|part| {
        part.split_once('=').is_some_and(|(kind, name)| {
            !kind.is_empty() && !kind.contains([' ', ',', '+', '(']) && !name.contains([',', '+'])
        })
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    fn subject_of(parts: &[(DnType, &str)]) -> Option<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, name) in parts {
            params.distinguished_name.push(kind.clone(), DnValue::Utf8String((*name).to_owned()));
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        CertificateNames::read(certificate.der()).unwrap().subject
    }

    #[test]
    fn no_name_reads_like_the_parts_of_another() {
        let (organization, unit, common) =
            (DnType::OrganizationName, DnType::OrganizationalUnitName, DnType::CommonName);
        let real = [(organization.clone(), "Example"), (unit.clone(), "prod"), (common.clone(), "batch")];
        assert_eq!(subject_of(&real).unwrap(), "O=Example, OU=prod, CN=batch");
        for (forged, read) in [
            (&[(organization.clone(), "Example, OU=prod, CN=batch")][..], r"O=Example\, OU=prod\, CN=batch"),
            (&[(organization.clone(), "Example"), (unit, "prod, CN=batch")], r"O=Example, OU=prod\, CN=batch"),
            (&[(organization.clone(), "Example + CN=batch")], r"O=Example \+ CN=batch"),
            (&[(organization, r"Example\")], r"O=Example\\"),
            (&[(common, "a=b")], "CN=a=b"),
        ] {
            assert_eq!(subject_of(forged).unwrap(), read);
            assert!(is_subject(read), "{read}");
        }
        assert_eq!(subject_of(&[]), None);
        assert_eq!(subject_of(&[(DnType::CustomDnType(vec![1, 2, 3, 4]), "x")]).unwrap(), "1.2.3.4=x");
    }

    #[test]
    fn a_name_that_is_not_read_to_its_end_is_none() {
        let attribute = [&[0x30, 8, 6, 3, 0x55, 4, 3, 0x0c, 1][..], b"a"].concat();
        let read = |parts: &[&[u8]]| {
            let parts: Vec<u8> = parts.iter().flat_map(|part| [&[0x31, part.len() as u8][..], part].concat()).collect();
            let der = [&[0x30, parts.len() as u8][..], &parts].concat();
            let (_, name) = X509Name::from_der(&der).unwrap();
            whole(&name).and_then(subject)
        };
        assert_eq!(read(&[&attribute, &attribute]).unwrap(), "CN=a, CN=a");
        assert_eq!(read(&[&attribute, &[], &attribute]), None, "an empty part hides what is behind it");
        assert_eq!(read(&[&attribute, b"\x30\x01\x05", &attribute]), None);
        assert_eq!(read(&[&[&attribute[..], b"\x30\x01\x05"].concat()]), None);
        let wide = [&[0x30, 9, 6, 3, 0x55, 4, 3, 0x1e, 2, 0][..], b"a"].concat();
        assert_eq!(read(&[&wide]).unwrap(), "CN=a");
    }

    #[test]
    fn what_cannot_be_a_subject_is_known() {
        for good in ["CN=robot", "O=Example, CN=robot", "O=Example + OU=a, CN=robot", r"O=Example\, Inc., CN=robot"] {
            assert!(is_subject(good), "{good}");
        }
        for bad in
            ["", "robot", "O=Example,CN=robot", "O=Example, Inc., CN=robot", "O=A+B", r"O=Example\x", r"O=A\", "=a"]
        {
            assert!(!is_subject(bad), "{bad}");
        }
    }
}
