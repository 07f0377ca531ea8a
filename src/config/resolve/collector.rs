//! What a collector of OpenTelemetry is reached by: its address, how it is believed, and the headers of each export.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header, uri::Scheme};

use super::{FieldPath, Resolver, millis, seconds, secrets::SecretWays};
use crate::{
    collector::settings::CollectorSettings,
    config::{raw::collector::RawCollectorHeader, raw::tls::RawClientTls, scalar::DurationText},
    tls::settings::ClientSettings,
};

/// What an export sets itself.
const OWN: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::HOST,
    header::USER_AGENT,
];

/// What both sections say of a collector.
pub(super) struct RawCollector<'r> {
    pub(super) endpoint: Option<&'r String>,
    pub(super) headers: &'r BTreeMap<String, RawCollectorHeader>,
    pub(super) timeout: &'r DurationText,
    pub(super) tls: &'r RawClientTls,
}

impl Resolver<'_> {
    /// `None`: no address is named, or one that is wrong. `example` is a right one.
    pub(super) fn collector(
        &mut self,
        at: &FieldPath,
        raw: &RawCollector<'_>,
        example: &str,
    ) -> Option<(CollectorSettings, ClientSettings)> {
        let headers = self.collector_headers(&at.key("headers"), raw.headers);
        let timeout = self.duration(&at.key("timeout"), raw.timeout, millis(10)..=seconds(60));
        let tls = self.client_tls(&at.key("tls"), raw.tls);
        let endpoint = self.collector_endpoint(&at.key("endpoint"), raw.endpoint?, example)?;
        if tls != ClientSettings::default() && endpoint.scheme() != Some(&Scheme::HTTPS) {
            self.fail(&at.key("tls"), "is for an address with `https`: take it out, or write `endpoint` so");
        }
        Some((CollectorSettings { endpoint, headers, timeout }, tls))
    }

    /// An address with a path.
    fn collector_endpoint(&mut self, field: &FieldPath, text: &str, example: &str) -> Option<Uri> {
        let endpoint = text.parse::<Uri>().ok().filter(|uri| {
            let named = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
            named && matches!(uri.scheme_str(), Some("http" | "https")) && uri.path() != "/"
        });
        if endpoint.is_none() {
            self.fail(field, format!("is no address with a path: write for example `{example}`"));
        }
        endpoint
    }

    fn collector_headers(&mut self, at: &FieldPath, raw: &BTreeMap<String, RawCollectorHeader>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, one) in raw {
            let table = at.key(name);
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
        headers
    }
}
