//! The valid configuration of the admin API.

use std::net::SocketAddr;

use crate::{limit::settings::Quota, tls::settings::ServerSettings};

/// The admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    pub address: SocketAddr,
    /// At least one.
    pub tokens: Vec<AdminToken>,
    /// Requests of one address without a valid token; `requests` of 0: no limit.
    pub unauthenticated: Quota,
    /// `None`: cleartext.
    pub tls: Option<ServerSettings>,
}

/// Who may call the admin API. The token itself is not kept.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken {
    pub name: String,
    pub role: AdminRole,
    /// SHA-256 of the token.
    pub digest: [u8; 32],
    /// By which four eyes know its holder too, such as `cli:ann`.
    pub account: Option<String>,
}

impl std::fmt::Debug for AdminToken {
    /// Never the digest.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminToken").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// What a token of the admin API may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdminRole {
    /// Reads.
    Viewer,
    /// Reads and changes.
    Operator,
    /// Reads, suspends, restores and revokes.
    Security,
}

impl AdminRole {
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Security];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Security => "security",
        }
    }
}

/// Shortest token: 32 bytes in base64 without padding.
const ADMIN_TOKEN_MIN_CHARS: usize = 43;
/// The same in hex.
const ADMIN_TOKEN_MIN_HEX: usize = 64;
/// Fewer different characters in so long a random text would be no chance.
const ADMIN_TOKEN_MIN_VARIETY: usize = 10;

/// Whether a token of the admin API can hold 32 random bytes. Asked of what is configured and of what is shown, so that
/// the digest of a short password opens nothing either.
pub fn is_strong_admin_token(token: &[u8]) -> bool {
    let plain = token.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'+' | b'/' | b'='));
    let least = if token.iter().all(u8::is_ascii_hexdigit) { ADMIN_TOKEN_MIN_HEX } else { ADMIN_TOKEN_MIN_CHARS };
    let variety = token.iter().collect::<std::collections::HashSet<_>>().len();
    plain && (least..=1024).contains(&token.len()) && variety >= ADMIN_TOKEN_MIN_VARIETY
}
