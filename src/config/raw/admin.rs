//! The raw mirror of the section `admin`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    form::raw,
    tls::{RawCertificate, RawClientAuth, RawTlsVersion},
};
use crate::config::scalar::{DurationText, QuotaText};

raw! {
    /// The admin API: a listener of its own, for the tools of operators.
    struct RawAdmin {
        /// Address and port; keep it off public networks. Not set: no such listener.
        address: Option<String> = None,
        /// Who may call it. At least one.
        tokens: Vec<RawAdminToken> = Vec::new(),
        /// Requests of one address without a valid token; further ones are answered with 429.
        unauthenticated: QuotaText = QuotaText::of("30/min"),
        /// TLS on this listener. Not set: cleartext, for loopback or behind something that speaks TLS.
        tls: Option<RawAdminTls> = None,
    }

    /// TLS on the admin listener. Files are read again when they change. A token is needed in any case.
    struct RawAdminTls {
        /// Pairs of PEM files, chosen by the host that a client names. The first serves clients that name none or an unknown one.
        certificates: Vec<RawCertificate> = Vec::new(),
        /// Oldest version that is spoken.
        min_version: RawTlsVersion = RawTlsVersion::V13,
        /// Longest time from connection to finished handshake.
        handshake_timeout: DurationText = DurationText::of("10s"),
        /// `required`: who shows no good certificate gets no connection, token or not.
        client_auth: RawClientAuth = RawClientAuth::None,
        /// PEM files of the roots that client certificates must lead to.
        client_ca: Vec<String> = Vec::new(),
        /// PEM files of revocation lists, of every authority that signs a certificate of the chain; as in `listen.tls`.
        client_crl: Vec<String> = Vec::new(),
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
pub(in crate::config) enum RawAdminRole {
    #[serde(rename = "viewer")]
    Viewer,
    #[serde(rename = "operator")]
    Operator,
    #[serde(rename = "security")]
    Security,
}
