//! The security team's workbench: `policy check`, `policy test`, `policy show`, by library and by command.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

#[path = "../cli_support/mod.rs"]
mod cli_support;
#[path = "../policy_support/mod.rs"]
mod policy_support;

mod check;
mod commands;
mod show;
mod suite;
