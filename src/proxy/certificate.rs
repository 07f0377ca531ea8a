//! The certificate that a client showed when its connection began, where TLS ends here.
//!
//! Verified then, and judged again for as long as the connection lives: it ends with its own time, and when the files of
//! roots and revocation lists change, it must be good by the new ones too.

use std::cell::Cell;

use rustls::pki_types::CertificateDer;

use crate::{
    domain::Millis,
    tls::{CertificateNames, ServerTls},
};

/// A verified certificate with the chain that led to a root.
#[derive(Debug)]
pub struct ClientCertificate {
    pub names: CertificateNames,
    chain: Vec<CertificateDer<'static>>,
    /// The load of files by which it was found good last.
    good_by: Cell<u64>,
}

impl ClientCertificate {
    /// `None`: the names cannot be read without doubt, so nothing may rest on them.
    pub fn new(chain: Vec<CertificateDer<'static>>, generation: u64) -> Option<Self> {
        let names = CertificateNames::read(chain.first()?)?;
        Some(Self { names, chain, good_by: Cell::new(generation) })
    }

    /// Whether it counts at this moment.
    pub fn is_good(&self, tls: &ServerTls, now: Millis) -> bool {
        if now.0 >= self.ends().0 {
            return false;
        }
        if self.good_by.get() == tls.generation() {
            return true;
        }
        let loaded = tls.current();
        let good = loaded.still_trusts(&self.chain).is_ok();
        if good {
            self.good_by.set(loaded.generation);
        }
        good
    }

    /// The first instant at which it is past its time.
    pub fn ends(&self) -> Millis {
        Millis(self.names.not_after.saturating_add(1).saturating_mul(1000))
    }
}
