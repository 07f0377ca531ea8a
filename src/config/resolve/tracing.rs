//! The section `tracing`.

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use super::{FieldPath, Resolver, millis, seconds, secrets::SecretWays};
use crate::{config::raw_tracing::RawTracing, spans::settings::TracingSettings};

/// A span that waits is some 500 bytes.
const MOST_QUEUED: u32 = 1_000_000;
/// What an export sets itself.
const OWN: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::HOST,
    header::USER_AGENT,
];

impl Resolver<'_> {
    pub(super) fn tracing(&mut self, raw: &RawTracing) -> Option<TracingSettings> {
        let at = FieldPath::default().key("tracing");
        if !(0.0..=1.0).contains(&raw.sample_ratio) {
            self.fail(&at.key("sample_ratio"), format!("{} is out of range: 0.0 to 1.0", raw.sample_ratio));
        }
        if raw.queue == 0 || raw.queue > MOST_QUEUED {
            self.fail(&at.key("queue"), format!("{} is out of range: 1 to {MOST_QUEUED}", raw.queue));
        }
        let timeout = self.duration(&at.key("timeout"), &raw.timeout, millis(10)..=seconds(60));
        let mut headers = HeaderMap::new();
        for (name, one) in &raw.headers {
            let table = at.key("headers").key(name);
            let ways = SecretWays {
                table: &table,
                name: "value",
                file: one.value_file.as_ref(),
                env: one.value_env.as_ref(),
                inline: one.value.as_ref(),
            };
            let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
                self.fail(&table, "is no header name");
                continue;
            };
            if OWN.contains(&header) {
                self.fail(&table, "is a header that linkgate sets itself: leave it out");
            }
            if headers.contains_key(&header) {
                self.fail(&table, "is named twice: upper and lower case are the same");
            }
            match self.secret(&ways, 1).map(|secret| HeaderValue::from_bytes(secret.expose())) {
                None if ways.file.is_none() && ways.env.is_none() && ways.inline.is_none() => {
                    self.fail(&table, "has no value: name `value_file` or `value_env`");
                }
                None => {}
                Some(Err(_)) => self.fail(&table, "has a value that does not fit into a header"),
                Some(Ok(mut value)) => {
                    value.set_sensitive(true);
                    headers.insert(header, value);
                }
            }
        }
        let text = raw.endpoint.as_ref()?;
        let endpoint = text.parse::<Uri>().ok().filter(|uri| {
            let named = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
            named && matches!(uri.scheme_str(), Some("http" | "https")) && uri.path() != "/"
        });
        let Some(endpoint) = endpoint else {
            let field = at.key("endpoint");
            self.fail(&field, "is no address with a path: write for example `https://collector:4318/v1/traces`");
            return None;
        };
        Some(TracingSettings {
            endpoint,
            sample_ratio: raw.sample_ratio,
            headers,
            timeout,
            queue: usize::try_from(raw.queue).unwrap_or(usize::MAX),
        })
    }
}
