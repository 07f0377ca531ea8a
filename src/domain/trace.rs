//! By which names one piece of work is found in the logs of every program that it passes through, and for whom it is done.
//!
//! A request keeps its client's request id; work that no client waits for is named after its job. Neither is a key:
//! clients may repeat theirs. Made where the work begins, written into each question that it asks of an upstream
//! (contract, section 6), and decides nothing.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    ids::{DecisionId, RequestId, TenantId},
    trace_state::TraceState,
};

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

    /// `None` for what W3C Trace Context does not allow.
    pub fn parse(digits: &[u8]) -> Option<Self> {
        let id: [u8; 32] = digits.try_into().ok()?;
        is_id(&id).then_some(Self(id))
    }

    pub fn bytes(&self) -> [u8; 16] {
        bytes(&self.0)
    }

    /// A parent that nobody recorded: the second half of the trace id is as random as any.
    pub fn nobody(&self) -> SpanId {
        self.0.get(16..).and_then(|half| half.try_into().ok()).map_or_else(SpanId::generate, SpanId)
    }

    /// The header of a request: version, trace id, parent, and whether the parent is recorded.
    pub fn traceparent(&self, parent: SpanId, sampled: bool) -> [u8; 55] {
        let mut value = [0; 55];
        let flags: &[u8] = if sampled { b"-01" } else { b"-00" };
        let pieces: [&[u8]; 5] = [b"00-", &self.0, b"-", &parent.0, flags];
        let mut rest = &mut value[..];
        for piece in pieces {
            // By pieces, not byte for byte: this is done with every request.
            let Some((to, behind)) = rest.split_at_mut_checked(piece.len()) else { break };
            to.copy_from_slice(piece);
            rest = behind;
        }
        value
    }
}

/// 16 hex digits, never all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId([u8; 16]);

impl SpanId {
    /// The first half of a UUID, whose version is never zero.
    pub fn generate() -> Self {
        let whole = TraceId::generate();
        let mut digits = [b'0'; 16];
        for (to, from) in digits.iter_mut().zip(whole.0) {
            *to = from;
        }
        Self(digits)
    }

    pub fn parse(digits: &[u8]) -> Option<Self> {
        let id: [u8; 16] = digits.try_into().ok()?;
        is_id(&id).then_some(Self(id))
    }

    pub fn bytes(&self) -> [u8; 8] {
        bytes(&self.0)
    }
}

fn is_id(digits: &[u8]) -> bool {
    digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) && digits.iter().any(|digit| *digit != b'0')
}

/// What lower-case hex digits spell.
fn bytes<const N: usize>(digits: &[u8]) -> [u8; N] {
    let value = |digit: &u8| if digit.is_ascii_digit() { digit - b'0' } else { digit.wrapping_sub(b'a' - 10) };
    let mut out = [0; N];
    for (to, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *to = pair.iter().fold(0, |sum, digit| (sum << 4) | (value(digit) & 15));
    }
    out
}

/// A `traceparent` of somebody who is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteParent {
    pub trace_id: TraceId,
    pub span: SpanId,
    pub sampled: bool,
}

impl RemoteParent {
    /// Of version 00, or of a later one that begins alike. Whatever else is none.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = text.splitn(5, |byte| *byte == b'-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |part: &[u8]| part.len() == 2 && part.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        if !hex(version) || version == b"ff" || !hex(flags) || (version == b"00" && parts.next().is_some()) {
            return None;
        }
        let [flags] = bytes(flags);
        Some(Self { trace_id: TraceId::parse(trace)?, span: SpanId::parse(span)?, sampled: flags & 1 == 1 })
    }
}

/// What becomes of a piece of work in traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampling {
    /// Nobody has decided, and nobody here records spans. Services may: they are told `sampled`, as by a caller that asks
    /// for it.
    Unasked,
    /// Decided against, here or by a caller who is believed.
    Out,
    /// Recorded, under this span: the request's, or the believed caller's where nobody here records spans.
    Under(SpanId),
}

impl Sampling {
    pub fn flag(self) -> bool {
        self != Self::Out
    }

    pub fn parent(self) -> Option<SpanId> {
        match self {
            Self::Under(span) => Some(span),
            Self::Unasked | Self::Out => None,
        }
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
    pub sampling: Sampling,
    /// Came with the believed caller's `traceparent`, and goes on with ours.
    pub state: Option<TraceState>,
}

impl Trace {
    /// Of nobody yet.
    pub fn new(request_id: RequestId, trace_id: TraceId) -> Self {
        let sampling = Sampling::Unasked;
        Self { request_id, trace_id, user: None, partner_tenant: None, decision_id: None, sampling, state: None }
    }

    /// Of work in the background: `kind` and the job's id, so that the request id in an upstream's log names the job.
    pub fn of_job(kind: &'static str, id: Uuid) -> Self {
        Self::new(RequestId::of_job(kind, id), TraceId::of(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0123456789ab4def8123456789abcdef";

    #[test]
    fn a_traceparent_is_exact_and_says_whether_its_parent_is_recorded() {
        let trace = Trace::of_job("export", Uuid::from_u128(0x0123_4567_89ab_4def_8123_4567_89ab_cdef));
        assert_eq!(trace.request_id.as_str(), "export-01234567-89ab-4def-8123-456789abcdef");
        let id = trace.trace_id;
        for (sampled, flags) in [(true, "01"), (false, "00")] {
            let value = id.traceparent(id.nobody(), sampled);
            assert_eq!(std::str::from_utf8(&value).unwrap(), format!("00-{TRACE}-8123456789abcdef-{flags}"));
            let read = RemoteParent::parse(&value).unwrap();
            assert_eq!((read.trace_id, read.span, read.sampled), (id, id.nobody(), sampled));
        }
        assert_eq!(id.bytes(), 0x0123_4567_89ab_4def_8123_4567_89ab_cdef_u128.to_be_bytes());
        assert_eq!(id.nobody().bytes(), 0x8123_4567_89ab_cdef_u64.to_be_bytes());
        assert_ne!(SpanId::generate(), SpanId::generate());
    }

    #[test]
    fn what_is_no_traceparent_is_no_parent() {
        let span = "8123456789abcdef";
        assert!(RemoteParent::parse(format!("01-{TRACE}-{span}-01-more").as_bytes()).is_some(), "a later version");
        for wrong in [
            String::new(),
            format!("00-{TRACE}-{span}"),
            format!("00-{TRACE}-{span}-01-more"),
            format!("ff-{TRACE}-{span}-01"),
            format!("00-{}-{span}-01", TRACE.to_uppercase()),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{TRACE}-{span}-1"),
            format!("00-{TRACE}0-{span}-01"),
        ] {
            assert_eq!(RemoteParent::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
