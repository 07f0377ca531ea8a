//! The raw mirror of the TLS sections; see `raw`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    raw::{raw, words},
    scalar::DurationText,
};

raw! {
    /// TLS on the public listener. Files are read again when they change.
    struct RawTls {
        /// Pairs of PEM files, chosen by the host that a client names. The first serves clients that name none or an unknown one.
        certificates: Vec<RawCertificate> = Vec::new(),
        /// Oldest version that is spoken.
        min_version: RawTlsVersion = RawTlsVersion::V12,
        /// Refuse clients that name no host of a certificate.
        strict_sni: bool = false,
        /// Longest time from connection to finished handshake.
        handshake_timeout: DurationText = DurationText::of("10s"),
        /// Handshakes in progress at once; further connections are closed.
        max_handshakes: u32 = 1_000,
        /// Whether clients show a certificate. One that is shown must be good.
        client_auth: RawClientAuth = RawClientAuth::None,
        /// PEM files of the roots that client certificates must lead to.
        client_ca: Vec<String> = Vec::new(),
        /// PEM files of their revocation lists. With any, a certificate that none tells of, or a list past its time, is refused.
        client_crl: Vec<String> = Vec::new(),
    }

    /// One certificate and its key.
    struct RawCertificate {
        /// PEM file: the certificate, then those that lead to the root.
        cert: String = String::new(),
        /// PEM file of the private key.
        key_file: String = String::new(),
    }
}

words! {
    /// A version of TLS.
    enum RawTlsVersion { V12 = "1.2", V13 = "1.3", }

    /// Whether clients show a certificate.
    enum RawClientAuth {
        /// None is asked for.
        None = "none",
        /// Asked for, and not needed.
        Optional = "optional",
        /// Without a good one there is no connection.
        Required = "required",
    }
}
