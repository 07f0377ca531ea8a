//! How the commands treat who runs them: what they ask, what they say when something is wrong, pipes and signals. The built
//! binary, an SQLite file.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

mod cli_support;

#[path = "cli_manners/imports.rs"]
mod imports;
#[path = "cli_manners/links.rs"]
mod links;
#[path = "cli_manners/messages.rs"]
mod messages;
#[path = "cli_manners/output.rs"]
mod output;

use cli_support::shell::{PARTNER, Shell};
