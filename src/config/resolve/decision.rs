//! The section `decision`.

use super::{FieldPath, Resolver, secrets::SecretWays};
use crate::config::{
    raw::decision::RawDecision,
    settings::{DecisionCaller, DecisionSettings, ListenSettings},
};

/// Shortest secret of a caller, in bytes.
const SECRET_MIN_BYTES: usize = 32;

impl Resolver<'_> {
    pub(super) fn decision(
        &mut self,
        raw: &RawDecision,
        listen: &ListenSettings,
        health: Option<&str>,
    ) -> Option<DecisionSettings> {
        let at = FieldPath::default().key("decision");
        let max_connections = self.at_least_one(&at.key("max_connections"), raw.max_connections);
        let mut callers: Vec<DecisionCaller> = Vec::with_capacity(raw.callers.len());
        for (name, one) in &raw.callers {
            let table = at.key("callers").key(name);
            let ways = SecretWays {
                table: &table,
                name: "secret",
                file: one.secret_file.as_ref(),
                env: one.secret_env.as_ref(),
                inline: one.secret.as_ref(),
            };
            if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
                self.fail(&table, "has a name that does not fit into records: use letters, digits, `-`, `_` and `.`");
            }
            match self.secret(&ways, SECRET_MIN_BYTES) {
                None if ways.file.is_none() && ways.env.is_none() && ways.inline.is_none() => {
                    self.fail(&table, "shows no secret: name `secret_file` or `secret_env`");
                }
                None => {}
                Some(secret) if !secret.expose().iter().all(u8::is_ascii_graphic) => {
                    self.fail(&table, "has a secret that does not fit into a header: use letters and digits");
                }
                Some(secret) => {
                    if let Some(other) = callers.iter().find(|known| known.secret == secret) {
                        let message = format!("has the secret of `{}`: each caller has its own", other.name);
                        self.fail(&table, message);
                    }
                    callers.push(DecisionCaller {
                        name: name.clone(),
                        secret,
                        authzen: one.authzen,
                        own_traceparent: one.own_traceparent,
                    });
                }
            }
        }
        let field = at.key("address");
        let Some(text) = &raw.address else {
            if !raw.callers.is_empty() {
                self.fail(&field, "is not set, so nobody can ask: name an address, or remove the callers");
            }
            return None;
        };
        let address = self.address(&field, text);
        let taken = address == listen.address || health.and_then(|text| text.parse().ok()) == Some(address);
        if address.port() != 0 && taken {
            self.fail(&field, "is the address of another listener too: give it one of its own");
        }
        if raw.callers.is_empty() {
            self.fail(
                &at.key("callers"),
                "is empty: whoever asks must be known by a secret, from loopback too; add `[decision.callers.NAME]`",
            );
        }
        let public_url = raw.public_url.as_deref().map(|text| text.trim_end_matches('/').to_owned());
        if public_url.as_deref().is_some_and(|url| !url.starts_with("https://") && !url.starts_with("http://")) {
            self.fail(&at.key("public_url"), "is no address: write for example `https://linkgate.internal:8082`");
        }
        Some(DecisionSettings { address, max_connections, public_url, callers })
    }
}
