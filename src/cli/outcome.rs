//! How a command ends and how it speaks: exit codes, tables or JSON, and the question before a destructive act.
//!
//! Whatever is said to a person goes through here and comes out as `domain::plain`: a name in the database, or a cell of
//! somebody's file, must not write on the screen of who approves it. JSON is for programs and stays as it is.

use std::{
    fmt,
    io::{BufRead, IsTerminal, Write},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;

use crate::domain::plain::{plain, plain_page};

/// Documented exit codes; `linkgate --help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Something failed that is no fault of the input.
    Failed = 1,
    /// The command line itself is wrong (clap's own code).
    Usage = 2,
    /// Input, configuration or policies are invalid.
    Invalid = 3,
    NotFound = 4,
    Conflict = 5,
    /// A verification found what should not be (`audit verify`, `policy test`, `policy prove`).
    Verification = 6,
    /// The database cannot be reached or is not migrated.
    Database = 7,
    /// The question was answered with no.
    Declined = 8,
    /// What was to be proved is neither proved nor broken (`policy prove`).
    Undecided = 9,
}

/// Why a command ended without success; printed to standard error (as JSON with `--json`).
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
}

impl Failure {
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }

    /// `Exit::Failed` with this message.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, message)
    }

    pub fn report(&self, json: bool) -> ExitCode {
        if json {
            let line = serde_json::json!({"error": {"exit": self.exit as u8, "message": self.message}});
            to_stderr(&line.to_string());
        } else {
            tell(format_args!("error: {}", self.message));
        }
        ExitCode::from(self.exit as u8)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error)
    }
}

/// A line for people on standard error: a warning, or how far a command has come.
pub fn tell(text: impl fmt::Display) {
    to_stderr(&plain_page(&text.to_string()));
}

/// Where standard error is closed nothing more can be done, and what the command does goes on.
fn to_stderr(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Writes to standard output. A reader that has enough, such as `head`, is no failure: the command goes on to its verdict.
pub fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    printed(out.write_all(bytes).and_then(|()| out.flush()))
}

/// The same for what was written already.
pub fn printed(done: std::io::Result<()>) -> Result<(), Failure> {
    match done {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format_args!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// `1 row`, `2 rows`.
pub fn count(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// What every command gets beside its own arguments.
#[derive(Clone, Debug, Default)]
pub struct Console {
    pub json: bool,
    /// `--yes`: destructive commands do not ask.
    pub yes: bool,
    /// Where JSON goes that is part of one document.
    pub parts: Option<Arc<Mutex<Vec<serde_json::Value>>>>,
}

impl Console {
    /// One value: pretty JSON with `--json`, otherwise the given text.
    pub fn show(&self, value: &impl Serialize, text: impl fmt::Display) -> Result<(), Failure> {
        if let Some(parts) = self.parts.as_ref().filter(|_| self.json) {
            let value = serde_json::to_value(value).map_err(Failure::failed)?;
            parts.lock().unwrap_or_else(PoisonError::into_inner).push(value);
            return Ok(());
        }
        let mut text = if self.json {
            serde_json::to_string_pretty(value).map_err(Failure::failed)?
        } else {
            plain_page(&text.to_string())
        };
        text.push('\n');
        print(text.as_bytes())
    }

    /// Many values: a JSON array with `--json`, otherwise a table.
    pub fn list<T: Serialize>(
        &self,
        values: &[T],
        header: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<(), Failure> {
        if values.is_empty() {
            return self.show(&values, "none");
        }
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(header.iter().copied());
        for value in values {
            table.add_row(row(value).iter().map(|cell| plain(cell)));
        }
        self.show(&values, table)
    }

    /// Says what will be done and asks. Without a terminal and without `--yes` the answer is no.
    pub fn confirm(&self, what: &str) -> Result<(), Failure> {
        self.ask(what, "Go on? [y/N]", |answer| matches!(answer, "y" | "Y" | "yes"))
    }

    /// The same for what reaches furthest: only this word is a yes.
    pub fn confirm_typed(&self, what: &str, word: &str) -> Result<(), Failure> {
        self.ask(what, &format!("Type `{word}` to go on:"), |answer| answer == word)
    }

    fn ask(&self, what: &str, question: &str, is_yes: impl Fn(&str) -> bool) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        // One sentence: a line end in it is not ours.
        let what = plain(what);
        let declined = |why: &str| Err(Failure::new(Exit::Declined, format!("{what}: {why}; nothing was changed")));
        if !std::io::stdin().is_terminal() {
            return declined("not confirmed (no terminal to ask on: pass --yes)");
        }
        let mut screen = std::io::stderr().lock();
        write!(screen, "{what}. {} ", plain(question))?;
        screen.flush()?;
        drop(screen);
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if is_yes(answer.trim()) { Ok(()) } else { declined("declined") }
    }
}
