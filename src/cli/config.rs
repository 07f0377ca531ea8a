//! `linkgate config`: the default configuration and the JSON Schema, for people and editors.

use std::io::Write;

use super::outcome::Failure;
use crate::config;

/// Print the default configuration or its JSON Schema
#[derive(clap::Args, Debug)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(clap::Subcommand, Debug)]
enum ConfigCommand {
    /// A commented configuration: every setting with its default, and examples of what has none
    PrintDefault,
    /// The JSON Schema of the configuration file
    JsonSchema,
}

pub fn run(args: &ConfigArgs) -> Result<(), Failure> {
    let text = match args.command {
        ConfigCommand::PrintDefault => config::default_toml(),
        ConfigCommand::JsonSchema => config::json_schema(),
    };
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}
