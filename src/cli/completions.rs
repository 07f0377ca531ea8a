//! `linkgate completions SHELL`: the shell's completion script on standard output.

use clap_complete::Shell;

use super::outcome::{Failure, print};

/// Print the completion script of a shell
#[derive(clap::Args, Debug)]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    // Into memory first: the generator panics where standard output is closed.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "linkgate", &mut script);
    print(&script)
}
