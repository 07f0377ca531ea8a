//! The audit journal from outside: durability, recovery, tampering, faults, index and outbox.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy frees test functions by itself, but not their helpers"
)]

mod cli;
mod crash;
mod evidence;
mod faults;
mod index;
mod levels;
mod outbox;
mod recovery;
mod ship;
mod support;
mod tamper;
