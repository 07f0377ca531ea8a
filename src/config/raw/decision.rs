//! The raw mirror of `[decision]`; see `raw`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::form::raw;

raw! {
    /// The listener at which other proxies and services ask for decisions: Envoy, nginx, Caddy, Traefik, AuthZEN.
    struct RawDecision {
        /// Address and port, never the public listener's. Not set: no such listener.
        address: Option<String> = None,
        /// Most connections open at once; further ones are closed at once.
        max_connections: u32 = 1_000,
        /// Where AuthZEN callers reach it, such as `https://linkgate.internal:8082`: told in its own description. Not set: as they ask.
        public_url: Option<String> = None,
        /// Who may ask, by name. At least one: loopback is no authentication.
        callers: BTreeMap<String, RawCaller> = BTreeMap::new(),
    }

    /// One proxy or service that asks.
    struct RawCaller {
        /// File with the secret that it shows: at least 32 bytes that nobody can guess, its own.
        secret_file: Option<String> = None,
        /// Environment variable with it.
        secret_env: Option<String> = None,
        /// The secret itself: only as an environment override, never in the file.
        secret: Option<String> = None,
        /// It may ask by AuthZEN too, where it is believed who the user is, without a token.
        authzen: bool = false,
        /// It writes the `traceparent` of its checks over HTTP itself, as Traefik does where it traces: the decision joins that trace. Never where clients' fields pass.
        own_traceparent: bool = false,
    }
}
