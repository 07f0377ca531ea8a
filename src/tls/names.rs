//! Which certificate a client gets: by the host that it names.
//!
//! A certificate's exact names come before wildcards, and a wildcard stands for exactly one label (RFC 9525). Of several for
//! one name, the first that the client can verify: so an ECDSA and an RSA certificate may stand beside each other. Who
//! names no host, or one that no certificate is for, gets the first certificate and judges it by itself; with `strict_sni`
//! nobody.

use std::sync::Arc;

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

#[derive(Debug)]
struct Served {
    key: Arc<CertifiedKey>,
    exact: Vec<String>,
    /// `.example.com` for `*.example.com`.
    wildcard: Vec<String>,
}

/// The certificates of one listener.
#[derive(Debug)]
pub(super) struct ByName {
    served: Vec<Served>,
    strict: bool,
}

impl ByName {
    pub(super) fn new(strict: bool) -> Self {
        Self { served: Vec::new(), strict }
    }

    /// `names`: DNS names in lower case.
    pub(super) fn add(&mut self, key: CertifiedKey, names: &[String]) {
        let (wild, exact): (Vec<&String>, Vec<&String>) = names.iter().partition(|name| name.starts_with("*."));
        self.served.push(Served {
            key: Arc::new(key),
            exact: exact.into_iter().cloned().collect(),
            wildcard: wild.into_iter().filter_map(|name| name.strip_prefix('*')).map(str::to_owned).collect(),
        });
    }

    /// Places in order of preference: exact, wildcard, then (unless strict) all, the first first.
    fn candidates(&self, name: Option<&str>) -> Vec<&Served> {
        let name = name.map(str::to_ascii_lowercase);
        let mut found: Vec<&Served> = Vec::new();
        if let Some(name) = &name {
            found.extend(self.served.iter().filter(|served| served.exact.contains(name)));
            let parent = name.find('.').filter(|at| *at > 0).and_then(|at| name.get(at..));
            if let Some(parent) = parent {
                let covers = |served: &&Served| served.wildcard.iter().any(|known| known == parent);
                found.extend(self.served.iter().filter(covers));
            }
        }
        if found.is_empty() && !self.strict {
            found.extend(&self.served);
        }
        found
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let found = self.candidates(hello.server_name());
        let fits = |served: &&&Served| served.key.key.choose_scheme(schemes).is_some();
        found.iter().find(fits).map(|served| Arc::clone(&served.key))
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::*;

    fn served(strict: bool) -> ByName {
        let mut all = ByName::new(strict);
        for names in [&["a.example", "*.b.example"][..], &["*.a.example", "x.b.example"], &["b.example"]] {
            let pair = rcgen::generate_simple_self_signed(names.iter().map(ToString::to_string).collect::<Vec<_>>());
            let pair = pair.unwrap();
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.signing_key.serialize_der()));
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let key = CertifiedKey::from_der(vec![pair.cert.der().clone()], key, &super::super::provider()).unwrap();
            all.add(key, &names);
        }
        all
    }

    fn place(all: &ByName, name: Option<&str>) -> Option<usize> {
        let first = *all.candidates(name).first()?;
        all.served.iter().position(|served| std::ptr::eq(served, first))
    }

    #[test]
    fn exact_names_come_before_wildcards_which_stand_for_one_label() {
        let all = served(true);
        for (name, expected) in [
            ("a.example", Some(0)),
            ("A.Example", Some(0)),
            ("y.b.example", Some(0)),
            ("x.b.example", Some(1)),
            ("z.a.example", Some(1)),
            ("b.example", Some(2)),
            ("y.z.a.example", None),
            (".a.example", None),
            ("example", None),
        ] {
            assert_eq!(place(&all, Some(name)), expected, "{name}");
        }
        assert_eq!(place(&all, None), None);
    }

    #[test]
    fn whoever_names_no_known_host_gets_the_first_certificate() {
        let all = served(false);
        assert_eq!(place(&all, None), Some(0));
        assert_eq!(place(&all, Some("elsewhere.example")), Some(0));
        assert_eq!(place(&all, Some("b.example")), Some(2));
    }
}
