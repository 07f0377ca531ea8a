//! The audit journal from outside: durability, recovery, tampering, faults, index and outbox.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy frees test functions by itself, but not their helpers"
)]

#[path = "../support/log_collector.rs"]
#[allow(unreachable_pub, reason = "shared with other tests")]
mod log_collector;
#[path = "../tls_support/mod.rs"]
mod tls_support;

mod cli;
mod crash;
mod evidence;
mod faults;
mod index;
mod kept;
mod levels;
mod otlp;
mod outbox;
mod recovery;
mod ship;
mod support;
mod tamper;
mod torn;
