//! Floor 5: listeners and workers: from sockets to requests.
//!
//! `workers` accepts and spreads, `connection` serves one client, `framing` and `guard` let only exact HTTP/1 through.
//! `inherited` takes over sockets that a service manager holds. `proxy_protocol` reads whose connection it is, where a load
//! balancer says so; `handshake` makes a connection secure before `connection` gets it: all that holds in cleartext holds
//! behind it. `decision` answers other proxies, at a listener of its own and on the same workers. `health` is a listener of
//! its own, and can show the `docs` of the consolidated API; `admin` is another one. `descriptors` keeps room for these two.

pub mod descriptors;
pub mod inherited;
pub mod workers;

pub mod connection;
pub mod framing;
pub mod guard;
pub mod handshake;
pub mod prefixed;
pub mod proxy_protocol;
mod timer;

pub mod admin;
pub mod decision;

pub mod docs;
pub mod health;
