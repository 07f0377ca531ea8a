//! Reads PEM files and judges them: what is expired, damaged or of another pair is refused here, in words.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use jiff::Timestamp;
use rustls::{
    Error, InconsistentKeys, RootCertStore,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use super::{
    CertificateNames, InUse, TlsError, provider,
    revocation::{Lists, Unreadable},
    settings::CertificateFiles,
};

/// Reads files and remembers a digest of all that was read, by which an unchanged set is known again.
pub(super) struct Reader {
    seen: digest::Context,
}

/// A certificate with its key, ready to be shown.
pub(super) struct Pair {
    pub(super) key: CertifiedKey,
    pub(super) names: CertificateNames,
    pub(super) in_use: InUse,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self { seen: digest::Context::new(&digest::SHA256) }
    }

    /// Of everything that was read so far.
    pub(super) fn digest(self) -> Vec<u8> {
        self.seen.finish().as_ref().to_vec()
    }

    fn read(&mut self, path: &Path) -> Result<Vec<u8>, TlsError> {
        let bytes = std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
        self.seen.update(&(bytes.len() as u64).to_be_bytes());
        self.seen.update(&bytes);
        Ok(bytes)
    }

    fn certificates(&mut self, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let what = "certificate";
        let bytes = self.read(path)?;
        let found: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
            .collect::<Result<_, _>>()
            .map_err(|_| TlsError::Malformed { path: path.to_owned(), what })?;
        if found.is_empty() {
            return Err(TlsError::Missing { path: path.to_owned(), what });
        }
        Ok(found)
    }

    /// A certificate that counts now, and the key that belongs to it.
    pub(super) fn pair(&mut self, files: &CertificateFiles) -> Result<Pair, TlsError> {
        let CertificateFiles { chain, key } = files;
        let certificates = self.certificates(chain)?;
        let names = certificates
            .first()
            .and_then(|leaf| CertificateNames::read(leaf))
            .ok_or_else(|| TlsError::Malformed { path: chain.clone(), what: "certificate" })?;
        let now = Timestamp::now().as_second();
        let at =
            |seconds: i64| Timestamp::from_second(seconds).map_or_else(|_| "a far day".to_owned(), |at| at.to_string());
        if now > names.not_after {
            return Err(TlsError::Expired { path: chain.clone(), at: at(names.not_after) });
        }
        if now < names.not_before {
            return Err(TlsError::NotYetValid { path: chain.clone(), at: at(names.not_before) });
        }
        let bytes = self.read(key)?;
        let private = PrivateKeyDer::from_pem_slice(&bytes)
            .map_err(|_| TlsError::Missing { path: key.clone(), what: "private key" })?;
        let certified = CertifiedKey::from_der(certificates, private, &provider()).map_err(|source| match source {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Mismatch { key: key.clone(), chain: chain.clone() }
            }
            source => TlsError::Unusable { key: key.clone(), chain: chain.clone(), source },
        })?;
        let in_use = InUse { file: chain.clone(), not_after: names.not_after };
        Ok(Pair { key: certified, names, in_use })
    }

    /// Roots of trust, each held against the lists.
    pub(super) fn roots(&mut self, paths: &[PathBuf], lists: &mut Lists) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for path in paths {
            for certificate in self.certificates(path)? {
                let malformed = |Unreadable| TlsError::Malformed { path: path.clone(), what: "certificate" };
                lists.judge_root(&certificate).map_err(malformed)?;
                roots.add(certificate).map_err(|source| TlsError::NoRoot { path: path.clone(), source })?;
            }
        }
        Ok(roots)
    }

    pub(super) fn revocation_lists(&mut self, paths: &[PathBuf]) -> Result<Lists, TlsError> {
        let what = "revocation list";
        let mut lists = Lists::default();
        for path in paths {
            let malformed = || TlsError::Malformed { path: path.clone(), what };
            let bytes = self.read(path)?;
            let found: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&bytes)
                .collect::<Result<_, _>>()
                .map_err(|_| malformed())?;
            if found.is_empty() {
                return Err(TlsError::Missing { path: path.clone(), what });
            }
            for list in found {
                lists.add(list).map_err(|Unreadable| malformed())?;
            }
        }
        Ok(lists)
    }
}
