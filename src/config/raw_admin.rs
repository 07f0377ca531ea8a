//! The raw mirror of the section `admin`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{raw::raw, scalar::QuotaText};

raw! {
    /// The admin API: a listener of its own, for the tools of operators.
    struct RawAdmin {
        /// Address and port; keep it off public networks. Not set: no such listener.
        address: Option<String> = None,
        /// Who may call it. At least one.
        tokens: Vec<RawAdminToken> = Vec::new(),
        /// Requests of one address without a valid token; further ones are answered with 429.
        unauthenticated: QuotaText = QuotaText::of("30/min"),
    }

    /// One token: at least 32 random bytes in hex or base64, such as `openssl rand -hex 32` makes.
    struct RawAdminToken {
        /// Who holds it: history and audit show `admin:NAME`.
        name: String = String::new(),
        /// `viewer` reads; `operator` reads and changes; `security` reads, suspends, restores and revokes.
        role: Option<RawAdminRole> = None,
        /// SHA-256 of the token, in hex: `printf %s "$TOKEN" | sha256sum`.
        sha256: Option<String> = None,
        /// File that holds the token.
        secret_file: Option<String> = None,
        /// Environment variable that holds it.
        secret_env: Option<String> = None,
        /// The token itself: only as an environment override, never in the file.
        secret: Option<String> = None,
        /// For `links.four_eyes`: the account of the same person at the command line, such as `cli:ann`.
        account: Option<String> = None,
    }
}

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(super) enum RawAdminRole {
    #[serde(rename = "viewer")]
    Viewer,
    #[serde(rename = "operator")]
    Operator,
    #[serde(rename = "security")]
    Security,
}
