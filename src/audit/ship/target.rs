//! Where lines go to. What is given is with the target when it returns.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{file::Rotated, otlp::Otlp, settings::TargetSettings};
use crate::audit::chain::ChainId;

/// Pause before a pipe that is full and does not block is tried again.
const FULL: Duration = Duration::from_millis(20);

/// One target, open or to be opened.
pub(super) enum Output {
    Stdout(Stdout),
    File(Rotated),
    Otlp(Box<Otlp>),
}

impl Output {
    /// `dir` is the folder of the journal, which holds `chain`.
    pub(super) fn new(settings: &TargetSettings, dir: &Path, chain: ChainId) -> Self {
        match settings {
            TargetSettings::Stdout => Self::Stdout(Stdout::after(dir.join(WRITING))),
            TargetSettings::File(settings) => Self::File(Rotated::new(settings.clone())),
            TargetSettings::Otlp(settings) => Self::Otlp(Box::new(Otlp::new((**settings).clone(), chain))),
        }
    }

    /// Takes whole lines, all or, after an error, nobody knows how many.
    pub(super) fn take(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.take(lines),
            Self::File(file) => file.take(lines),
            Self::Otlp(otlp) => otlp.take(lines),
        }
    }
}

/// There while lines are on their way to standard output. Found at a start, it says that the last process was cut off
/// meanwhile, perhaps within a line.
const WRITING: &str = "ship-stdout.writing";

/// Standard output. What a pipe took is taken: who reads it has to keep it.
pub(super) struct Stdout {
    writing: PathBuf,
    /// The last write may have ended within a line: the next one must not be glued to it.
    torn: bool,
}

impl Stdout {
    fn after(writing: PathBuf) -> Self {
        // Where nobody can say, an empty line does less harm than two that are glued together.
        let torn = writing.try_exists().unwrap_or(true);
        Self { writing, torn }
    }

    fn take(&mut self, lines: &[u8]) -> io::Result<()> {
        let marked = |error: io::Error| io::Error::new(error.kind(), format!("`{}`: {error}", self.writing.display()));
        // Not synced: a power failure ends the reader as well.
        File::create(&self.writing).map_err(marked)?;
        // Not through the buffer of the standard library: what an error left there would be written later.
        let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        if self.torn {
            write(&out, b"\n").map_err(|(_, error)| error)?;
            self.torn = false;
        }
        write(&out, lines).map_err(|(written, error)| {
            self.torn = written.checked_sub(1).and_then(|at| lines.get(at)).is_some_and(|last| *last != b'\n');
            error
        })?;
        std::fs::remove_file(&self.writing)
    }
}

/// Writes everything; an error tells how much was written.
fn write(mut out: &File, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match out.write(rest) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(FULL),
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}
