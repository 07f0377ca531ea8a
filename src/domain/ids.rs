//! Identifiers, one type each, so that a partner can never be passed for a tenant.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::{ContextV7, Timestamp, Uuid};

use super::Millis;

/// Id of an ISP operator: 1 to 255 characters, often but not always a UUID. Compared byte for byte.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct TenantId(Arc<str>);

/// Longest tenant id in characters (contract, section 1).
pub const TENANT_ID_MAX_CHARS: usize = 255;

/// A tenant id that is empty or too long, holds a control character, or has white space at an edge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a tenant id has 1 to 255 characters, none of them a control character, and no white space at its edges")]
pub struct InvalidTenantId;

impl TenantId {
    /// Controls are refused: such an id could never travel in a header. So is white space at the edges: a header loses it
    /// on the way, and what arrives is another tenant's id.
    pub fn new(text: &str) -> Result<Self, InvalidTenantId> {
        let chars = text.chars().count();
        if chars == 0 || chars > TENANT_ID_MAX_CHARS || text.chars().any(char::is_control) || has_open_edge(text) {
            return Err(InvalidTenantId);
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TenantId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantId({})", self.0)
    }
}

impl<'de> Deserialize<'de> for TenantId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// White space at the beginning or end, which parsers of headers take away.
pub fn has_open_edge(text: &str) -> bool {
    text.trim().len() != text.len()
}

/// A text that is no UUID where one is needed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the id of a {what} is a UUID, see `linkgate {list}`")]
pub struct InvalidId {
    pub what: &'static str,
    /// The command that lists them.
    pub list: &'static str,
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $list:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self).map_err(|_| InvalidId { what: $what, list: $list })
            }
        }
    };
}

uuid_id!(
    /// Id of a partner organisation.
    PartnerId, "partner", "partner list"
);
uuid_id!(
    /// Id of a row of `partner_tenant_links`.
    LinkId, "link", "link list"
);
uuid_id!(
    /// Id of an audit record (UUIDv7); what `X-Decision-Id` carries.
    DecisionId, "record", "audit query"
);

impl DecisionId {
    /// A new id, ordered by time: those of one thread exactly, those of several to the millisecond.
    pub fn generate() -> Self {
        thread_local! {
            /// Each thread counts for itself: the library's own counter is one for all, behind a lock.
            static CLOCK: ContextV7 = const { ContextV7::new() };
        }
        CLOCK.with(|clock| Self(Uuid::new_v7(Timestamp::now(clock))))
    }

    /// When it was made; `None`: it is no UUIDv7.
    pub fn made(self) -> Option<Millis> {
        let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
        i64::try_from(seconds).ok()?.checked_mul(1000)?.checked_add(i64::from(nanos / 1_000_000)).map(Millis)
    }
}

/// Grows by one with each change of a link, and of any parent above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LinkVersion(pub i64);

impl fmt::Display for LinkVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one request in logs, audit and answers. A client's own is kept if it is 1 to 128 characters of
/// `[A-Za-z0-9._-]`; clients may repeat them, so it is a handle, not a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// A client's own id, or `None` where it is not of the accepted form.
    pub fn from_client(text: &str) -> Option<Self> {
        let fits = (1..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        fits.then(|| Self(text.into()))
    }

    /// `req_` and 32 hex digits.
    pub fn generate() -> Self {
        let mut text = *b"req_00000000000000000000000000000000";
        if let Some(digits) = text.get_mut("req_".len()..) {
            Uuid::new_v4().simple().encode_lower(digits);
        }
        Self(std::str::from_utf8(&text).unwrap_or_default().into())
    }

    /// The kind of a job and its id.
    pub fn of_job(kind: &'static str, id: Uuid) -> Self {
        Self(format!("{kind}-{id}").into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_ids_are_bounded_and_free_of_controls() {
        assert!(TenantId::new(&"ü".repeat(255)).is_ok());
        assert_eq!(TenantId::new(&"a".repeat(256)), Err(InvalidTenantId));
        assert_eq!(TenantId::new(""), Err(InvalidTenantId));
        assert_eq!(TenantId::new("a\u{0}b"), Err(InvalidTenantId));
        assert!(TenantId::new("a b").is_ok());
        for edged in [" a", "a ", "a\u{a0}", "\u{3000}a", " "] {
            assert_eq!(TenantId::new(edged), Err(InvalidTenantId), "{edged:?}");
        }
    }

    #[test]
    fn a_clients_request_id_is_kept_only_in_the_accepted_form() {
        assert!(RequestId::from_client("a.B-9_").is_some());
        for bad in ["", "a b", "a,b", "é", &"x".repeat(129)] {
            assert!(RequestId::from_client(bad).is_none(), "{bad}");
        }
        assert_eq!(RequestId::generate().as_str().len(), 36);
    }
}
