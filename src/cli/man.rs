//! `linkgate man DIR`: a manual page of each command, for packages.

use std::path::PathBuf;

use super::outcome::Failure;

/// Write the manual pages, one a command, into a folder
#[derive(clap::Args, Debug)]
pub struct ManArgs {
    /// The folder; it is made if need be
    dir: PathBuf,
}

pub fn run(args: &ManArgs) -> Result<(), Failure> {
    let written =
        std::fs::create_dir_all(&args.dir).and_then(|()| clap_mangen::generate_to(super::command(), &args.dir));
    written
        .map_err(|error| Failure::failed(format!("the pages cannot be written to `{}`: {error}", args.dir.display())))
}
