//! The raw mirror of the TLS sections; see `raw`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::form::{raw, words};
use crate::config::scalar::DurationText;

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
        /// PEM files of revocation lists. With any, each authority below the roots and the roots themselves need one: a certificate
        /// that none tells of, or a list past its time, is refused. Of several by one issuer the newest must be in time, and
        /// whoever stands on any of them is refused.
        client_crl: Vec<String> = Vec::new(),
        /// Whom client certificates stand for: the first rule that fits. What none names gives no identity.
        clients: Vec<RawClientRule> = Vec::new(),
    }

    /// Whom one client certificate stands for: a trusted proxy or a user. It is named in exactly one way.
    struct RawClientRule {
        /// Its SPIFFE id, which must be its only URI.
        spiffe: Option<String> = None,
        /// One of its DNS names.
        dns: Option<String> = None,
        /// Its only common name.
        common_name: Option<String> = None,
        /// Its subject, in the order of the certificate, such as `O=Example, CN=robot`. A comma, plus sign or backslash within a
        /// name has a backslash before it: `'O=Example\, Inc., CN=robot'`.
        subject: Option<String> = None,
        /// Its X-Forwarded-* headers are believed.
        trusted_proxy: bool = false,
        /// The user's issuer, by its name in this file.
        issuer: Option<String> = None,
        /// The user's `sub`. A token beside the certificate must be this user's, or the request is refused.
        sub: Option<String> = None,
        /// No token is needed beside the certificate.
        sufficient: bool = false,
        /// Home tenant, with `sufficient`.
        tenant_id: Option<String> = None,
        /// User roles, with `sufficient`.
        roles: Vec<String> = Vec::new(),
        /// Permissions, with `sufficient`.
        permissions: Vec<String> = Vec::new(),
    }

    /// TLS to one service, for addresses with `https`. Files are read again when they change.
    struct RawClientTls {
        /// PEM files of the roots that the service's certificate must lead to. Not set: the system's.
        ca: Vec<String> = Vec::new(),
        /// Shown to the service: a pair of PEM files. Not set: none.
        client_certificate: Option<RawCertificate> = None,
        /// Name that the service's certificate must have. Not set: the host of its address.
        server_name: Option<String> = None,
        /// Oldest version that is spoken.
        min_version: RawTlsVersion = RawTlsVersion::V12,
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
    /// When HTTP/2 is spoken to a service. WebSockets stay on HTTP/1.1.
    enum RawHttp2 {
        /// Never.
        Off = "off",
        /// Over TLS, where the service chooses it.
        Auto = "auto",
        /// In cleartext too, by prior knowledge; over TLS nothing else.
        Always = "always",
    }

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
