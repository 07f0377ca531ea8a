//! Floor 6: the command line. One file a command; this one names them and maps the outcome to an exit code.

pub mod decide;
pub mod audit;
pub mod explain;
pub mod outcome;
pub mod token;

use std::process::ExitCode;

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
