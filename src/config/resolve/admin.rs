//! The section `admin`: a listener without tokens, or with tokens that could be guessed, is refused.

use aws_lc_rs::digest;

use super::{FieldPath, Resolver, secrets::SecretWays};
use crate::config::{
    raw::admin::{RawAdmin, RawAdminRole, RawAdminTls, RawAdminToken},
    raw::tls::RawTls,
    settings::{AdminRole, AdminSettings, AdminToken, ListenSettings, is_strong_admin_token},
};

/// The same section as the public listener's, without what only that one has.
fn as_listener(raw: &RawAdminTls) -> RawTls {
    RawTls {
        certificates: raw.certificates.clone(),
        min_version: raw.min_version,
        handshake_timeout: raw.handshake_timeout.clone(),
        client_auth: raw.client_auth,
        client_ca: raw.client_ca.clone(),
        client_crl: raw.client_crl.clone(),
        ..RawTls::default()
    }
}

/// Most tokens; each is compared with every one that is shown.
const MOST_TOKENS: usize = 100;

impl Resolver<'_> {
    /// `health`: the address of the listener beside, where there is one.
    pub(super) fn admin(
        &mut self,
        raw: &RawAdmin,
        health: Option<&str>,
        listen: &ListenSettings,
    ) -> Option<AdminSettings> {
        let at = FieldPath::default().key("admin");
        let tokens = self.admin_tokens(&at.key("tokens"), &raw.tokens);
        let unauthenticated = self.quota(&at.key("unauthenticated"), &raw.unauthenticated);
        let tls = raw.tls.as_ref().map(|tls| self.server_tls(&at.key("tls"), &as_listener(tls)));
        let field = at.key("address");
        let Some(text) = &raw.address else {
            if !raw.tokens.is_empty() {
                self.fail(&at.key("tokens"), "are given, but no `address` to use them at");
            }
            if raw.tls.is_some() {
                self.fail(&at.key("tls"), "is given, but no `address` to listen on");
            }
            return None;
        };
        let address = self.address(&field, text);
        if address.port() != 0 && address == listen.address {
            self.fail(&field, "is the address of the public listener too: give it one of its own");
        }
        if address.port() != 0 && health.is_some_and(|text| text.parse() == Ok(address)) {
            self.fail(&field, "is the address of the health listener too: give it one of its own");
        }
        if raw.tokens.is_empty() {
            self.fail(
                &at.key("tokens"),
                "is empty: the admin API answers nobody without a token, from loopback neither",
            );
        }
        Some(AdminSettings { address, tokens, unauthenticated, tls })
    }

    fn admin_tokens(&mut self, at: &FieldPath, raw: &[RawAdminToken]) -> Vec<AdminToken> {
        if raw.len() > MOST_TOKENS {
            self.fail(at, format!("holds more than {MOST_TOKENS} tokens"));
        }
        let mut tokens: Vec<AdminToken> = Vec::with_capacity(raw.len());
        for (place, one) in raw.iter().enumerate() {
            let table = at.index(place);
            if one.name.is_empty() {
                self.fail(&table.key("name"), "is missing: say who holds the token");
            } else if tokens.iter().any(|earlier| earlier.name == one.name) {
                self.fail(&table.key("name"), format!("`{}` stands twice", one.name));
            } else {
                self.plain_name(&table.key("name"), &one.name);
            }
            if one.role.is_none() {
                self.fail(&table.key("role"), "is missing: viewer, operator or security");
            }
            if one.account.as_ref().is_some_and(|account| account.is_empty() || account.chars().any(char::is_control)) {
                self.fail(&table.key("account"), "is no account: write for example `cli:ann`");
            }
            let digest = self.admin_digest(&table, one);
            let (Some(role), Some(digest)) = (one.role, digest) else { continue };
            if let Some(same) = tokens.iter().find(|earlier| earlier.digest == digest) {
                self.fail(&table, format!("is the token of `{}` too: give each holder one of their own", same.name));
            }
            let role = match role {
                RawAdminRole::Viewer => AdminRole::Viewer,
                RawAdminRole::Operator => AdminRole::Operator,
                RawAdminRole::Security => AdminRole::Security,
            };
            tokens.push(AdminToken { name: one.name.clone(), role, digest, account: one.account.clone() });
        }
        tokens
    }

    fn admin_digest(&mut self, table: &FieldPath, one: &RawAdminToken) -> Option<[u8; 32]> {
        let ways = SecretWays {
            table,
            name: "secret",
            file: one.secret_file.as_ref(),
            env: one.secret_env.as_ref(),
            inline: one.secret.as_ref(),
        };
        let named = ways.file.is_some() || ways.env.is_some() || ways.inline.is_some();
        let Some(hex) = &one.sha256 else {
            if !named {
                self.fail(table, "names no token: use `sha256`, `secret_file` or `secret_env`");
                return None;
            }
            let secret = self.secret(&ways, 1)?;
            if !is_strong_admin_token(secret.expose()) {
                self.fail(
                    table,
                    "holds a token that could be guessed: at least 32 random bytes in hex or base64 are needed, such as \
                     `openssl rand -hex 32` makes",
                );
                return None;
            }
            return digest::digest(&digest::SHA256, secret.expose()).as_ref().try_into().ok();
        };
        if named {
            self.fail(&table.key("sha256"), "stands beside the token itself: one token, one place");
        }
        let mut found = [0u8; 32];
        let text = hex.as_bytes();
        let good = text.len() == 64
            && found.iter_mut().zip(text.chunks_exact(2)).all(|(byte, pair)| {
                let read = std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()));
                read.and_then(|pair| u8::from_str_radix(pair, 16).ok()).map(|value| *byte = value).is_some()
            });
        if !good {
            // Whoever puts the token itself here by mistake must not find it in a log.
            self.fail(
                &table.key("sha256"),
                "is no SHA-256 in hex: 64 digits, as `printf %s \"$TOKEN\" | sha256sum` prints",
            );
            return None;
        }
        Some(found)
    }
}
