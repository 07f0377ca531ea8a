//! What the gateway promises when it dies: nothing that a client was told and nothing that was done is lost or doubled.
//!
//! Each test runs gateways in processes of their own (`gateway`), so that they can be killed, starved and stopped from
//! outside, and holds what clients and upstream saw against the journal (`ledger`) and its index.

#![expect(unreachable_pub, reason = "one test program; its modules share freely")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that panics has failed, which is what it is for"
)]

#[path = "../gateway/client.rs"]
#[allow(dead_code, reason = "shared with the gateway's tests, which use more of it")]
mod client;
#[path = "../gateway/policies.rs"]
mod policies;
#[path = "../portal/service.rs"]
#[allow(dead_code, reason = "shared with the tests of the consolidated API, which use more of it")]
mod service;
#[path = "../gateway/upstream.rs"]
#[allow(dead_code, reason = "shared with the gateway's tests, which use more of it")]
mod upstream;
#[path = "../portal/world.rs"]
#[allow(dead_code, reason = "shared with the tests of the consolidated API, which use more of it")]
mod world;

#[path = "../support/log_collector.rs"]
#[allow(dead_code, reason = "shared with the journal's tests, which use more of it")]
mod log_collector;
#[path = "../postgres_support/mod.rs"]
mod postgres_support;
#[path = "../redis_support/mod.rs"]
mod redis_support;

mod gateway;
mod ledger;
mod load;
mod own_postgres;
mod relay;
mod three;

mod alerts;
mod changes;
mod consolidated;
mod database;
mod disk;
mod drain;
mod exports;
mod kept;
mod kept_commands;
mod kept_faults;
mod kill;
mod latency;
mod replicas;
mod secrets;
mod ship;
mod tickets;
mod upgrade;
