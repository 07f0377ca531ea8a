//! Connectors against services that behave like the real ones, quirks and failures included.
//!
//! What is right is added up from the raw rows that the sample services hold, by arithmetic of the test's own.
#![cfg(feature = "demo")]
#![allow(dead_code, unreachable_pub, reason = "one rig for all modules")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

#[path = "../support/decided.rs"]
mod decided;
mod rig;

mod chaos;
mod configuration;
mod truth;
mod wire;
mod writes;
