//! `linkgate import`: links, tenants, partners or users from a CSV file or JSON lines.
//!
//! How rows are read and what is refused stands in `ops::import`, for the admin API too. They are read on a thread of their
//! own (`interrupt`): a signal ends the import between two rows, whatever the reading waits for.

mod interrupt;

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    context::chain,
    outcome::{Exit, Failure},
    store_context::{ActorArgs, StoreContext},
};
use crate::{
    domain::plain::plain,
    ops::import::{Format, What, rows, write_refused},
    store::admin::{ImportReport, ImportStopped, Stop},
};

/// Import rows; refused ones are reported and do not stop the others.
///
/// Exit code 3 if any row was refused. SIGINT and SIGTERM end the import: what was taken until then stays and is told.
///
/// CSV: the first line names the columns, by the contract's names; an empty cell is a field left out;
/// custom_permissions as `billing.write=false;reports.sla=true` or as JSON, allowed_cidrs separated by spaces or `;`,
/// metadata as JSON. JSON lines: one object a line.
#[derive(Debug, Args)]
pub struct ImportArgs {
    #[command(flatten)]
    actor: ActorArgs,
    /// The file, or `-` for standard input
    file: PathBuf,
    /// What the rows are
    #[arg(long, value_enum, default_value_t = What::Links)]
    what: What,
    /// csv or jsonl [default: by the file's name]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write refused rows to this new CSV file too: line, code, field, reason
    #[arg(long, value_name = "FILE")]
    refused: Option<PathBuf>,
}

pub fn run(args: ImportArgs, context: &StoreContext<'_>) -> Result<(), Failure> {
    let actor = args.actor.actor();
    let format = match args.format {
        Some(format) => format,
        None => guess(&args.file)?,
    };
    let bar = progress_bar(&args.file);
    let source = bar.wrap_read(open(&args.file)?);
    let rows = rows(source, format, args.what).map_err(|message| Failure::new(Exit::Invalid, message))?;
    // Before anything is imported: another file's content is not ours to replace, and a report that cannot be written is
    // known too late after it.
    let refused = args.refused.map(Refused::create).transpose()?;
    let rows = interrupt::until_signal(rows)?;
    let done = context.with(|admin| {
        let bar = bar.clone();
        async move {
            let told = |read| bar.set_message(format!("{read} rows"));
            Ok(admin.import(&actor, rows, told, |_| ()).await)
        }
    });
    bar.finish_and_clear();
    let done = match done {
        Ok(done) => done,
        Err(failure) => {
            refused.map(Refused::discard).transpose()?;
            return Err(failure);
        }
    };
    let (report, stopped) = match done {
        Ok(report) => (report, None),
        Err(ImportStopped { report, error, .. }) => (report, Some(error)),
    };
    if let Some(refused) = refused {
        refused.write(&report)?;
    }
    show(&report, context)?;
    if let Some(error) = stopped {
        let failure = stopped_by(error);
        let message = format!(
            "{}; {} {} imported before, and the rest was not looked at: import the file again, rows that are there are \
             refused then",
            failure.message,
            rows_of(report.imported),
            if report.imported == 1 { "was" } else { "were" }
        );
        return Err(Failure { message, ..failure });
    }
    if report.refused_rows == 0 {
        return Ok(());
    }
    let rows = report.refused_rows + report.imported;
    let were = if report.refused_rows == 1 { "was" } else { "were" };
    Err(Failure::new(Exit::Invalid, format!("{} of {} {were} refused", report.refused_rows, rows_of(rows))))
}

/// What an import that ended early ends with.
fn stopped_by(stop: Stop) -> Failure {
    match stop {
        Stop::Database(error) => error.into(),
        Stop::UnclosedQuote { .. } => Failure::new(Exit::Invalid, stop),
        Stop::Unreadable { .. } | Stop::ReadingEnded | Stop::Interrupted => Failure::failed(chain(&stop)),
    }
}

fn rows_of(number: u64) -> String {
    format!("{number} row{}", if number == 1 { "" } else { "s" })
}

/// The file of `--refused`, made for this import.
struct Refused {
    path: PathBuf,
    file: File,
}

impl Refused {
    fn create(path: PathBuf) -> Result<Self, Failure> {
        let file = File::create_new(&path).map_err(|error| {
            Failure::failed(format_args!("cannot create `{}`: {error}; nothing was imported", path.display()))
        })?;
        Ok(Self { path, file })
    }

    fn write(self, report: &ImportReport) -> Result<(), Failure> {
        write_refused(report, self.file)
            .map_err(|error| Failure::failed(format_args!("cannot write `{}`: {error}", self.path.display())))
    }

    /// Nothing was looked at: the next try finds the name free.
    fn discard(self) -> Result<(), Failure> {
        fs::remove_file(&self.path)
            .map_err(|error| Failure::failed(format_args!("cannot remove `{}`: {error}", self.path.display())))
    }
}

fn guess(file: &Path) -> Result<Format, Failure> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => Ok(Format::Csv),
        Some("jsonl" | "ndjson") => Ok(Format::Jsonl),
        _ => Err(Failure::new(Exit::Usage, "say what the file is: --format csv or --format jsonl")),
    }
}

fn open(file: &Path) -> Result<Box<dyn Read + Send>, Failure> {
    if file.as_os_str() == "-" {
        return Ok(Box::new(io::stdin()));
    }
    let unreadable = |error| Failure::new(Exit::NotFound, format!("cannot read `{}`: {error}", file.display()));
    let opened = File::open(file).map_err(unreadable)?;
    if opened.metadata().map_err(unreadable)?.is_dir() {
        return Err(Failure::new(Exit::Invalid, format!("`{}` is a directory: name a file", file.display())));
    }
    Ok(Box::new(opened))
}

/// By bytes where the size is known. Draws nothing where standard error is no terminal.
fn progress_bar(file: &Path) -> ProgressBar {
    let template = "{spinner} {wide_bar} {bytes}/{total_bytes} {msg} {eta}";
    match std::fs::metadata(file).map(|meta| meta.len()) {
        Ok(bytes) => {
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(bytes).with_style(style)
        }
        Err(_) => ProgressBar::new_spinner(),
    }
}

fn show(report: &ImportReport, context: &StoreContext<'_>) -> Result<(), Failure> {
    let summary = format!("{} imported, {} refused", rows_of(report.imported), report.refused_rows);
    if report.refused.is_empty() {
        return context.console.show(report, summary);
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["line", "code", "field", "reason"]);
    for row in &report.refused {
        let (line, field) = (row.line.to_string(), plain(row.field.as_deref().unwrap_or("-")));
        table.add_row([line.as_str(), row.code, &field, &plain(&row.reason)]);
    }
    context.console.show(report, format_args!("{table}\n{summary}"))
}
