//! Revocation lists: what several of them say together, and how long that holds.
//!
//! The library asks one list for each certificate, the first that it is given of the issuer, and no other: with an old list
//! beside the new one, the order of files would decide. So it gets the newest first, and whoever stands on any of the lists
//! is refused beside what it finds.

use std::{cmp::Reverse, collections::HashSet, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer, revocation_list::CertificateRevocationList};

/// The lists of one listener, read.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// With the time of each, in seconds since 1970.
    lists: Vec<(i64, CertificateRevocationListDer<'static>)>,
    revoked: HashSet<Serial>,
    /// Names of roots of trust that stand on a list themselves, in DER. The library asks no list about a root, and an authority
    /// below another one may be one, too.
    authorities: HashSet<Vec<u8>>,
    /// When one of them is past its time, in seconds since 1970.
    ends: Vec<i64>,
}

/// A certificate as lists name it: its issuer and its serial number, in DER.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Serial(Vec<u8>, Vec<u8>);

/// It is no revocation list that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

impl Lists {
    pub(super) fn add(&mut self, der: CertificateRevocationListDer<'static>) -> Result<(), Unreadable> {
        let (rest, list) = CertificateRevocationList::from_der(&der).map_err(|_| Unreadable)?;
        if !rest.is_empty() {
            return Err(Unreadable);
        }
        let issuer = list.issuer().as_raw();
        let revoked = list.iter_revoked_certificates();
        self.revoked.extend(revoked.map(|one| Serial(issuer.to_owned(), one.raw_serial().to_owned())));
        self.ends.extend(list.next_update().map(|end| end.timestamp()));
        let time = list.last_update().timestamp();
        self.lists.push((time, der));
        Ok(())
    }

    /// Holds a root of trust against the lists, all of which were added.
    pub(super) fn judge_root(&mut self, der: &CertificateDer<'_>) -> Result<(), Unreadable> {
        let (_, root) = X509Certificate::from_der(der).map_err(|_| Unreadable)?;
        if self.revoked.contains(&serial(&root)) {
            self.authorities.insert(root.subject().as_raw().to_owned());
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// For the library: the newest first.
    pub(super) fn in_order(&self) -> Vec<CertificateRevocationListDer<'static>> {
        let mut lists: Vec<_> = self.lists.iter().collect();
        lists.sort_by_key(|(time, _)| Reverse(*time));
        lists.into_iter().map(|(_, der)| der.clone()).collect()
    }

    /// When one of them is past its time, in seconds since 1970.
    pub(super) fn ends(&self) -> &[i64] {
        &self.ends
    }

    /// Whether a list names it, or the root that signed it.
    fn name(&self, der: &CertificateDer<'_>) -> bool {
        match X509Certificate::from_der(der) {
            Ok((_, one)) => self.revoked.contains(&serial(&one)) || self.authorities.contains(one.issuer().as_raw()),
            // What cannot be read could stand on one.
            Err(_) => !self.is_empty(),
        }
    }
}

fn serial(of: &X509Certificate<'_>) -> Serial {
    Serial(of.issuer().as_raw().to_owned(), of.raw_serial().to_owned())
}

/// Refuses who stands on any of the lists, beside whom the library refuses.
#[derive(Debug)]
pub(super) struct Revoking {
    pub(super) inner: Arc<dyn ClientCertVerifier>,
    pub(super) lists: Arc<Lists>,
}

impl ClientCertVerifier for Revoking {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(leaf, others, now)?;
        if std::iter::once(leaf).chain(others).any(|one| self.lists.name(one)) {
            return Err(CertificateError::Revoked.into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.inner.requires_raw_public_keys()
    }
}
