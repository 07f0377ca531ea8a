//! Floor 7: the command line. One file a command; this one names them and maps the outcome to an exit code.
//!
//! A command is a struct of arguments and a `run`; `help` groups them, `context` gives them the configuration, a
//! runtime and the database, `outcome` prints and ends, `trouble` knows the failures of journals and questions. To add one:
//! its file, a line in `Command`, a line in `dispatch`, its name in `help::GROUPS`.

pub mod context;
mod help;
pub mod outcome;
#[cfg(test)]
mod parity;
mod trouble;

pub mod serve;

#[cfg(feature = "demo")]
pub mod demo;

pub mod check;
pub mod completions;
pub mod config;
pub mod man;
pub mod migrate;

pub mod store_context;

pub mod import;
pub mod link;
pub mod partner;
pub mod tenant;
pub mod user;
pub mod webhook;

pub mod suspend;

pub mod decide;

pub mod policy;

pub mod access;
pub mod audit;
pub mod explain;
pub mod token;

use std::{ffi::OsString, io::Write, path::PathBuf, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use context::Context;
use outcome::{Console, Exit, Failure, print};

/// Lets partner organisations reach exactly the tenants they are linked to.
#[derive(Debug, Parser)]
#[command(name = "linkgate", version, arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    /// Configuration file [default: linkgate.toml in this folder, if there is one]
    #[arg(long, global = true, help_heading = help::GLOBAL, env = "LINKGATE_CONFIG", value_name = "FILE", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Print JSON, errors too
    #[arg(long, global = true, help_heading = help::GLOBAL)]
    json: bool,
    /// Do not ask before a destructive act
    #[arg(long, short, global = true, help_heading = help::GLOBAL)]
    yes: bool,
    /// Print the default configuration (as `config print-default`)
    #[arg(long)]
    print_default: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    Check(check::CheckArgs),
    Config(config::ConfigArgs),
    Migrate(migrate::MigrateArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
    Tenant(tenant::TenantArgs),
    Partner(partner::PartnerArgs),
    User(user::UserArgs),
    Link(link::LinkArgs),
    Import(import::ImportArgs),
    Webhook(webhook::WebhookArgs),
    Suspend(suspend::SuspendArgs),
    Restore(suspend::RestoreArgs),
    Suspensions(suspend::SuspensionsArgs),
    Policy(policy::PolicyArgs),
    Decide(decide::Args),
    Explain(explain::ExplainArgs),
    Access(access::AccessArgs),
    Audit(audit::AuditArgs),
    Token(token::TokenArgs),
}

/// The whole command line, for parsing and for completion scripts.
fn command() -> clap::Command {
    help::arrange(Cli::command())
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let cli = match command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && asks_for_json(std::env::args_os().skip(1)) => {
            let text = error.render().to_string();
            let message = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
            return Failure::new(Exit::Usage, message).report(true);
        }
        Err(error) => {
            // Nothing more can be done where the stream is closed.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
    };
    let console = Console { json: cli.json, yes: cli.yes, ..Console::default() };
    let context = Context { named: cli.config, console };
    // Not left to clap: a variable that names the configuration counts as an argument there.
    let done = match (cli.print_default, cli.command) {
        (false, Some(command)) => dispatch(command, &context),
        (true, None) => print_default(),
        (true, Some(_)) => Err(Failure::new(Exit::Usage, "--print-default stands alone: no command goes with it")),
        (false, None) => {
            if !context.console.json {
                // Nothing more can be done where the stream is closed.
                let _ = writeln!(std::io::stderr(), "{}", command().render_help());
            }
            Err(Failure::new(Exit::Usage, "no command is given"))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(context.console.json),
    }
}

/// Whether `--json` stands on a command line that could not be understood as a whole.
fn asks_for_json(mut arguments: impl Iterator<Item = OsString>) -> bool {
    // Behind `--` nothing is a flag.
    arguments.by_ref().take_while(|argument| argument != "--").any(|argument| argument == "--json")
}

fn dispatch(command: Command, context: &Context) -> Result<(), Failure> {
    let console = &context.console;
    match command {
        Command::Serve(args) => serve::run(&args, context),
        #[cfg(feature = "demo")]
        Command::Demo(args) => demo::run(&args, context),
        Command::Check(args) => check::run(&args, context),
        Command::Config(args) => config::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Migrate(args) => migrate::run(&args, &context.config()?.database, console),
        Command::Tenant(args) => context.store(|store| tenant::run(args, store)),
        Command::Partner(args) => context.store(|store| partner::run(args, store)),
        Command::User(args) => context.store(|store| user::run(args, store)),
        Command::Link(args) => context.store(|store| link::run(args, store)),
        Command::Import(args) => context.store(|store| import::run(args, store)),
        Command::Webhook(args) => {
            let settings = context.config()?.webhooks;
            context.store(|store| webhook::run(args, &settings, store))
        }
        Command::Suspend(args) => context.emergency(|store| suspend::suspend(args, store)),
        Command::Restore(args) => context.emergency(|store| suspend::restore(&args, store)),
        Command::Suspensions(args) => context.emergency(|store| suspend::list(&args, store)),
        Command::Policy(args) => policy::run(&args, context),
        Command::Decide(args) => decide::run(args, context),
        Command::Explain(args) => explain::start(args, context),
        Command::Access(args) => access::run(args, context),
        Command::Audit(args) => audit::dispatch(args, context),
        Command::Token(args) => token::run(&args, &context.config()?.identity, console),
    }
}

fn print_default() -> Result<(), Failure> {
    print(crate::config::default_toml().as_bytes())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
