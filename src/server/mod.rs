//! Floor 5: listeners and workers: from sockets to requests.
//!
//! `workers` accepts and spreads, `connection` serves one client, `framing` and `guard` let only exact HTTP/1 through.
//! `inherited` takes over sockets that a service manager holds. `decision` answers other proxies, at a listener of its own
//! and on the same workers. `health` is a listener of its own, and can show the `docs` of the consolidated API. TLS will
//! wrap the socket that `connection` is given.

pub mod inherited;
pub mod workers;

pub mod connection;
pub mod framing;
pub mod guard;
pub mod prefixed;
mod timer;

pub mod decision;

pub mod docs;
pub mod health;
