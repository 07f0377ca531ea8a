//! The gateway over real sockets: a recording upstream behind it, raw bytes in front of it.
//!
//! Each test starts a gateway of its own in this process. `rig` builds it, `upstream` records what arrives behind it,
//! `client` speaks exact and inexact HTTP to it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests: what fails here fails the test"
)]
#![expect(unreachable_pub, reason = "one test program; its modules share freely")]

#[path = "../cli_support/mod.rs"]
mod cli_support;
mod client;
#[path = "../support/collector.rs"]
mod collector;
mod faulty;
mod policies;
#[path = "../postgres_support/mod.rs"]
mod postgres_support;
mod rig;
#[path = "../tls_support/mod.rs"]
mod tls_support;
mod upstream;

mod admin;
mod admin_access;
mod admin_import;
mod admin_questions;
mod admin_tls;
mod answers;
mod body;
mod cors;
mod dead_upstreams;
mod decision;
mod emergency;
mod endpoints;
mod errors;
mod explain;
mod flow;
mod framing;
mod governance;
mod http2;
mod isolation;
mod links;
mod proxy_protocol;
mod reload;
mod shadow;
mod spoofing;
mod streams;
mod sub_partners;
mod tls;
mod tls_clients;
mod tls_upstream;
mod tracing;
mod why;
