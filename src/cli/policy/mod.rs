//! `linkgate policy`: the security team's workbench. One file a subcommand; this one names them and finds the set.
//!
//! Every subcommand takes `--policies DIR`. Left out, it is the configured set; where no configuration names one,
//! `./policies`; where there is no such folder either, the set built into the binary. What was chosen is always said.
//! None of them changes what a running gateway enforces.

pub mod check;
pub mod test;

pub mod show;

pub mod prove;

pub mod flips;
pub mod replay;
pub mod shadow;

pub mod junit;

use std::path::{Path, PathBuf};

use super::{
    context::{Context, environment},
    outcome::{Exit, Failure},
};
use crate::{config, policy::Bundle};

/// Looked for where neither the command line nor the configuration names a folder.
pub const DEFAULT_DIR: &str = "policies";

/// Check, test, show and prove policies before they are enforced
#[derive(clap::Args, Debug)]
pub struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(clap::Subcommand, Debug)]
enum PolicyCommand {
    Check(check::CheckArgs),
    Test(test::TestArgs),
    Show(show::ShowArgs),
    Prove(prove::ProveArgs),
    Replay(replay::ReplayArgs),
    Shadow(shadow::ShadowArgs),
}

/// The set that a subcommand works on.
#[derive(clap::Args, Clone, Debug)]
pub struct SetArgs {
    /// Folder with schema.cedarschema, roles.toml and guardrails/*.cedar [default: the configured set, else ./policies]
    #[arg(long, value_name = "DIR")]
    pub policies: Option<PathBuf>,
}

pub fn run(args: &PolicyArgs, context: &Context) -> Result<(), Failure> {
    match &args.command {
        PolicyCommand::Check(args) => check::run(args, context),
        PolicyCommand::Test(args) => test::run(args, context),
        PolicyCommand::Show(args) => show::run(args, context),
        PolicyCommand::Prove(args) => prove::run(args, context),
        PolicyCommand::Replay(args) => replay::run(args, context),
        PolicyCommand::Shadow(args) => shadow::run(args, context),
    }
}

impl SetArgs {
    /// The folder, or `None` for the set built into the binary.
    pub fn dir(&self, context: &Context) -> Option<PathBuf> {
        let configured = || config::check(context.config_path().as_deref(), environment()).policy?.dir;
        let here = || Some(PathBuf::from(DEFAULT_DIR)).filter(|dir| dir.is_dir());
        self.policies.clone().or_else(configured).or_else(here)
    }

    /// The valid set, or every problem in it with file, line and caret.
    pub fn load(&self, context: &Context) -> Result<Bundle, Failure> {
        load(self.dir(context).as_deref())
    }
}

/// The valid set of a folder, or every problem in it with file, line and caret.
pub fn load(dir: Option<&Path>) -> Result<Bundle, Failure> {
    Bundle::load(dir).map_err(|errors| Failure::new(Exit::Invalid, format!("{errors}\n\n{}", errors.render())))
}

/// The name of a set in messages.
pub fn name_of(dir: Option<&Path>) -> String {
    dir.map_or_else(|| "built-in".to_owned(), |dir| dir.display().to_string())
}
