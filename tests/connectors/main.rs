//! Connectors against services that behave like the real ones, quirks and failures included.
#![cfg(feature = "demo")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

mod rig;

mod lists;
