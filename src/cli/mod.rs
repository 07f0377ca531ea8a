//! Floor 6: the command line. One file a command; this one names them and maps the outcome to an exit code.

pub mod audit;
pub mod decide;
pub mod explain;
pub mod import;
pub mod link;
pub mod migrate;
pub mod outcome;
pub mod partner;
pub mod store_context;
pub mod tenant;
pub mod token;
pub mod user;

use std::process::ExitCode;

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
