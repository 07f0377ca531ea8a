//! The top-level help: commands in groups, examples, exit codes.
//!
//! clap lists subcommands in one row; an operator looks for them by task. A test holds every command in one group.

use clap::{Command, builder::StyledStr};

use super::outcome::Exit;

/// Commands by what they are for, in the order in which they are shown.
pub(super) const GROUPS: &[(&str, &[&str])] = &[
    ("Run", &["serve", "demo"]),
    ("Set up", &["config", "check", "migrate", "completions", "man"]),
    ("Partners and access", &["tenant", "partner", "user", "link", "import", "webhook"]),
    ("When something is wrong", &["suspend", "restore", "suspensions"]),
    ("Policies", &["policy", "decide"]),
    ("Look and ask", &["explain", "access", "audit", "token"]),
];

/// Heading of the options that every command takes.
pub(super) const GLOBAL: &str = "Global options";

/// What the exit codes mean, in their order; 0 is success.
const EXIT_CODES: &[(Exit, &str)] = &[
    (Exit::Failed, "something failed that is no fault of the input"),
    (Exit::Usage, "the command line is wrong"),
    (Exit::Invalid, "input, configuration or policies are invalid"),
    (Exit::NotFound, "there is no such thing"),
    (Exit::Conflict, "it is in conflict with what is there"),
    (Exit::Verification, "a verification found what should not be (`audit verify`, `policy test`, `prove`, `replay`)"),
    (Exit::Database, "the database cannot be reached or is not migrated"),
    (Exit::Declined, "a question was answered with no"),
    (Exit::Undecided, "nothing was proved or refuted: no solver, or no answer in time (`policy prove`)"),
];

const EXAMPLES: &str = "\
Examples:
  linkgate demo                                  try it: partners, tenants, services, requests
  linkgate config print-default > linkgate.toml  begin with a commented configuration
  linkgate check                                 every error of configuration and policies at once
  linkgate serve --config /etc/linkgate.toml     run";

/// Puts the groups, the examples and the exit codes into the help of `command`.
pub(super) fn arrange(command: Command) -> Command {
    let groups = groups(&command);
    let template = StyledStr::from(format!(
        "{{name}} {{version}}\n{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{groups}\nOptions:\n{{options}}{{after-help}}"
    ));
    command.help_template(template).after_help(format!("{EXAMPLES}\n\n{}", exit_codes()))
}

fn groups(command: &Command) -> String {
    let width = command.get_subcommands().map(|one| one.get_name().len()).max().unwrap_or(0);
    let mut text = String::new();
    for (heading, names) in GROUPS {
        let known = names.iter().filter_map(|name| command.find_subcommand(name));
        let lines: String = known
            .map(|one| {
                let about = one.get_about().map(ToString::to_string).unwrap_or_default();
                format!("  {:width$}  {}\n", one.get_name(), about.trim_end_matches('.'))
            })
            .collect();
        if !lines.is_empty() {
            text.push_str(&format!("{heading}:\n{lines}\n"));
        }
    }
    text.trim_end_matches('\n').to_owned() + "\n"
}

fn exit_codes() -> String {
    let mut text = "Exit codes:\n  0  success".to_owned();
    for (exit, meaning) in EXIT_CODES {
        text.push_str(&format!("\n  {}  {meaning}", *exit as u8));
    }
    text
}
