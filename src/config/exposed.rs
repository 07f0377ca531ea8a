//! Private keys and secrets in files that everybody on the machine may read or write: told, never refused, for mounted
//! secrets often come that way.

use std::{
    collections::BTreeSet,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::Config;
use crate::{domain::secret::is_open_to_others, identity::settings::KeySource};

impl Config {
    /// A warning for each such file.
    pub fn exposed_files(&self) -> Vec<String> {
        self.private_files().into_iter().filter_map(warning).collect()
    }

    fn private_files(&self) -> BTreeSet<&Path> {
        let admin = self.admin.iter().filter_map(|admin| admin.tls.as_ref());
        let listeners = self.listen.tls.iter().chain(admin).flat_map(|tls| &tls.certificates);
        let upstreams = self.upstreams.iter().filter_map(|upstream| upstream.tls.certificate.as_ref());
        let certificates = listeners.chain(upstreams).map(|certificate| &certificate.key);
        let signing = self.signing.iter().flat_map(|signing| &signing.keys).map(|key| &key.path);
        let development = self.identity.issuers.iter().flat_map(|issuer| {
            let shown = match &issuer.keys {
                KeySource::DevelopmentKey(path) => Some(path),
                KeySource::JwksFile(_) | KeySource::JwksUrl { .. } | KeySource::Hs256(_) => None,
            };
            issuer.development_key.iter().chain(shown)
        });
        let all = certificates.chain(signing).chain(development);
        all.chain(&self.checkpoints.key_file).chain(&self.secret_files).map(PathBuf::as_path).collect()
    }
}

fn warning(path: &Path) -> Option<String> {
    // What cannot be looked at cannot be read either, which is told as an error.
    let found = std::fs::metadata(path).ok().filter(|found| found.is_file())?;
    let mode = found.permissions().mode() & 0o7777;
    let shown = path.display();
    is_open_to_others(mode).then(|| {
        format!(
            "`{shown}` holds a secret and is open to everybody on this machine (mode {mode:04o}): chmod 600 {shown}"
        )
    })
}
