//! The certificate that a client showed when its connection began, where TLS ends here, and whom it stands for.
//!
//! Verified then, and judged again for as long as the connection lives: it ends with its own time, and when the files of
//! roots and revocation lists change, or an authority's certificate or a list is past its time, it must be good by what
//! counts then. So it is for each request, and for each stream
//! that is open: the worker asks. Which user or proxy it stands for is told by the first rule of the configuration that
//! names it; without one it gives no identity.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use rustls::pki_types::CertificateDer;

use super::{respond::Failure, session::Session};
use crate::{
    config::settings::{CertificateGrant, CertificateName, ClientRule},
    domain::{ErrorCode, Millis},
    identity::{Caller, CertificateUser, certificate_id},
    tls::{CertificateNames, ServerTls},
};

/// The word for what a certificate that counts no more has ended.
pub const WORD: &str = "client_certificate";

/// What a request gets whose certificate counts no more.
pub fn counts_no_more() -> Failure {
    Failure::new(ErrorCode::Unauthorized, WORD)
        .saying("the client's certificate is past its time, revoked or not trusted any more: connect anew")
}

/// A verified certificate with the chain that led to a root.
#[derive(Debug)]
pub struct ClientCertificate {
    pub names: CertificateNames,
    /// By which a suspension names it.
    pub id: Arc<str>,
    grant: Option<CertificateGrant>,
    chain: Vec<CertificateDer<'static>>,
    /// The load of files by which it was found good last, and until when that holds, in seconds since 1970.
    good_by: Cell<(u64, i64)>,
    /// Of the connection, where the certificate is enough.
    session: RefCell<Option<Rc<Session>>>,
}

impl ClientCertificate {
    /// `None`: the names cannot be read without doubt, so nothing may rest on them.
    ///
    /// `good_by`: the load of files by which the handshake found it good, and until when that holds.
    pub fn new(chain: Vec<CertificateDer<'static>>, good_by: (u64, i64), rules: &[ClientRule]) -> Option<Self> {
        let leaf = chain.first()?;
        let names = CertificateNames::read(leaf)?;
        let id = certificate_id(leaf);
        let grant = rules.iter().find(|rule| fits(&names, &rule.name)).map(|rule| rule.grant.clone());
        Some(Self { names, id, grant, chain, good_by: Cell::new(good_by), session: RefCell::default() })
    }

    /// Whether it counts at this moment.
    pub fn is_good(&self, tls: &ServerTls, now: Millis) -> bool {
        if now >= self.ends() {
            return false;
        }
        let (generation, until) = self.good_by.get();
        let second = now.0.div_euclid(1000);
        if generation == tls.generation() && second < until {
            return true;
        }
        let loaded = tls.current();
        let good = loaded.still_trusts(&self.chain).is_ok();
        if good {
            self.good_by.set((loaded.generation, loaded.holds_until(&self.chain, second)));
        }
        good
    }

    /// The first instant at which it is past its time.
    fn ends(&self) -> Millis {
        Millis(self.names.not_after.saturating_add(1).saturating_mul(1000))
    }

    /// Whether its `X-Forwarded-*` are believed.
    pub fn is_trusted_proxy(&self) -> bool {
        matches!(self.grant, Some(CertificateGrant::TrustedProxy))
    }

    /// The user that it stands for.
    pub fn user(&self) -> Option<&CertificateUser> {
        match &self.grant {
            Some(CertificateGrant::User(user)) => Some(user),
            Some(CertificateGrant::TrustedProxy) | None => None,
        }
    }

    /// The caller, where no token is needed.
    pub fn caller(&self) -> Option<Arc<Caller>> {
        self.user()?.caller(self.chain.first()?, self.ends())
    }

    /// The session of before, whatever has changed since.
    pub(super) fn kept_session(&self) -> Option<Rc<Session>> {
        self.session.borrow().clone()
    }

    pub fn keep_session(&self, session: &Rc<Session>) {
        self.session.replace(Some(Rc::clone(session)));
    }
}

fn fits(names: &CertificateNames, rule: &CertificateName) -> bool {
    match rule {
        CertificateName::Spiffe(id) => names.spiffe.as_ref() == Some(id),
        CertificateName::Dns(name) => names.dns.contains(name),
        CertificateName::CommonName(name) => names.common_name.as_ref() == Some(name),
        CertificateName::Subject(subject) => names.subject.as_ref() == Some(subject),
    }
}
