//! By which names one piece of work is found in the logs of every program that it passes through, and for whom it is done.
//!
//! A request keeps its client's request id; work that no client waits for is named after its job. Neither is a key:
//! clients may repeat theirs. Made where the work begins, written into each question that it asks of an upstream
//! (contract, section 6), and decides nothing.

use std::sync::Arc;

use uuid::Uuid;

use super::ids::{DecisionId, RequestId, TenantId};

/// 32 hex digits, never all zero (W3C Trace Context).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId([u8; 32]);

impl TraceId {
    pub fn generate() -> Self {
        Self::of(Uuid::new_v4())
    }

    /// The id's own digits; a UUID with a version is never all zero.
    fn of(id: Uuid) -> Self {
        let mut digits = [b'0'; 32];
        id.simple().encode_lower(&mut digits);
        Self(digits)
    }

    pub fn as_str(&self) -> &str {
        // Hex digits are UTF-8.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The header of a request that asks one question: version, trace id, a parent id of our own (the second half of
    /// the trace id is as random as any), sampled.
    pub fn traceparent(&self) -> [u8; 55] {
        self.under(self.0.get(16..).unwrap_or_default())
    }

    /// The header of one question of many: each has a parent id of its own.
    pub fn traceparent_of_one(&self) -> [u8; 55] {
        let parent = Self::generate();
        self.under(parent.0.get(..16).unwrap_or_default())
    }

    fn under(&self, parent: &[u8]) -> [u8; 55] {
        let mut value = [0; 55];
        let pieces: [&[u8]; 5] = [b"00-", &self.0, b"-", parent, b"-01"];
        for (to, from) in value.iter_mut().zip(pieces.into_iter().flatten()) {
            *to = *from;
        }
        value
    }
}

/// Both names, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    pub request_id: RequestId,
    pub trace_id: TraceId,
    /// Who asked, by the token's `sub`. `None` for what the gateway does unasked.
    pub user: Option<Arc<str>>,
    /// The home tenant of the partner.
    pub partner_tenant: Option<TenantId>,
    /// The audit record, once it is opened.
    pub decision_id: Option<DecisionId>,
}

impl Trace {
    /// Of nobody yet.
    pub fn new(request_id: RequestId, trace_id: TraceId) -> Self {
        Self { request_id, trace_id, user: None, partner_tenant: None, decision_id: None }
    }

    /// Of work in the background: `kind` and the job's id, so that the request id in an upstream's log names the job.
    pub fn of_job(kind: &'static str, id: Uuid) -> Self {
        Self::new(RequestId::of_job(kind, id), TraceId::of(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_exact_and_each_question_has_a_parent_of_its_own() {
        let trace = Trace::of_job("export", Uuid::from_u128(0x0123_4567_89ab_4def_8123_4567_89ab_cdef));
        assert_eq!(trace.request_id.as_str(), "export-01234567-89ab-4def-8123-456789abcdef");
        assert_eq!(
            std::str::from_utf8(&trace.trace_id.traceparent()).unwrap(),
            "00-0123456789ab4def8123456789abcdef-8123456789abcdef-01"
        );
        let one = trace.trace_id.traceparent_of_one();
        let other = trace.trace_id.traceparent_of_one();
        assert_eq!(one[..36], other[..36]);
        assert_ne!(one[36..52], other[36..52]);
        assert_eq!((&one[52..], one.iter().all(u8::is_ascii_graphic)), (&b"-01"[..], true));
    }
}
