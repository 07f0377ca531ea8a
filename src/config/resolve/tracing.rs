//! The section `tracing`.

use super::{FieldPath, Resolver, collector::RawCollector};
use crate::{config::raw::tracing::RawTracing, spans::settings::TracingSettings};

/// A span that waits is some 500 bytes.
const MOST_QUEUED: u32 = 1_000_000;

impl Resolver<'_> {
    pub(super) fn tracing(&mut self, raw: &RawTracing) -> Option<TracingSettings> {
        let at = FieldPath::default().key("tracing");
        if !(0.0..=1.0).contains(&raw.sample_ratio) {
            self.fail(&at.key("sample_ratio"), format!("{} is out of range: 0.0 to 1.0", raw.sample_ratio));
        }
        if raw.queue == 0 || raw.queue > MOST_QUEUED {
            self.fail(&at.key("queue"), format!("{} is out of range: 1 to {MOST_QUEUED}", raw.queue));
        }
        let RawTracing { endpoint, headers, timeout, tls, .. } = raw;
        let raw_collector = RawCollector { endpoint: endpoint.as_ref(), headers, timeout, tls };
        let (collector, tls) = self.collector(&at, &raw_collector, "https://collector:4318/v1/traces")?;
        let queue = usize::try_from(raw.queue).unwrap_or(usize::MAX);
        Some(TracingSettings { collector, tls, sample_ratio: raw.sample_ratio, queue })
    }
}
