//! The consolidated API over real sockets: a gateway, and behind it services of the older generation whose rows the
//! test wrote itself, so that every figure is compared with what the test adds up.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "helpers of tests: what fails here fails the test"
)]
#![allow(unreachable_pub, dead_code, reason = "one test program; its modules share freely")]

#[path = "../gateway/client.rs"]
mod client;
#[path = "../support/collector.rs"]
mod collector;
#[path = "../support/decided.rs"]
mod decided;
mod flow;
#[path = "../gateway/rig.rs"]
mod gateway_rig;
#[path = "../gateway/policies.rs"]
mod policies;
mod rig;
mod service;
#[path = "../gateway/upstream.rs"]
mod upstream;
mod world;

mod access;
mod access_review;
mod alert_sources;
mod alerts;
mod customers;
#[cfg(feature = "demo")]
mod database;
#[cfg(feature = "demo")]
mod emergency;
mod evidence;
#[cfg(feature = "demo")]
mod exports;
mod failures;
mod lists;
mod metrics;
mod parameters;
mod reports;
#[cfg(feature = "demo")]
mod samples;
mod speed;
#[cfg(feature = "demo")]
mod tenant_admin;
mod tracing;
mod webhooks;
#[cfg(feature = "demo")]
mod writes;
