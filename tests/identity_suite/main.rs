//! The identity room from outside: hostile tokens, key sets that come and go, caches, and what the gateway signs.
//!
//! One binary for all of it, since linking costs more than running.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "helpers of tests may panic like the tests themselves"
)]

mod cache;
mod hostile;
mod https;
mod jwks;
mod signing;
mod support;
mod token_command;
