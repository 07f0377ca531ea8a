//! `linkgate config`: the default configuration, the JSON Schema and the shipped connectors, for people and editors.

use super::outcome::{Exit, Failure, print};
use crate::{config, connector::presets};

/// Print the default configuration, its JSON Schema or a shipped connector
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
    /// A shipped connector as it stands, to read and to copy from; without a name: which there are
    Connectors {
        /// gen1 or gen2
        name: Option<String>,
    },
}

pub fn run(args: &ConfigArgs) -> Result<(), Failure> {
    let text = match &args.command {
        ConfigCommand::PrintDefault => config::default_toml(),
        ConfigCommand::JsonSchema => config::json_schema(),
        ConfigCommand::Connectors { name: None } => presets::PRESETS.map(|(name, _)| format!("{name}\n")).concat(),
        ConfigCommand::Connectors { name: Some(name) } => presets::text(name).map(str::to_owned).ok_or_else(|| {
            let known = presets::PRESETS.map(|(name, _)| name).join(", ");
            Failure::new(Exit::Invalid, format!("there is no connector `{name}` (known: {known})"))
        })?,
    };
    print(text.as_bytes())
}
