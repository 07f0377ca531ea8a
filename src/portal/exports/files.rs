//! Where finished files are kept: a folder now, an object store behind the same trait if somebody wants one.
//!
//! Invariant: a file that has its name is whole and on stable storage. Until then it has another name, and a draft that
//! is dropped leaves nothing.

use std::{
    fmt::Debug,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// What a draft is called until it is whole.
const DRAFT: &str = ".part";

/// Files by name. Every call may block.
pub trait ExportFiles: Send + Sync + Debug {
    /// Begins a file; one left over from before is begun anew.
    fn draft(&self, name: &str) -> io::Result<Draft>;

    /// Gives a whole file its name, on stable storage; its size in bytes.
    fn publish(&self, draft: Draft) -> io::Result<u64>;

    /// The file and its size in bytes.
    fn open(&self, name: &str) -> io::Result<(Box<dyn Read + Send>, u64)>;

    /// Removes a file; that there is none is no error.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Names of finished files, and removal of drafts, that nobody has written to for this long.
    fn untouched(&self, since: Duration) -> io::Result<Vec<String>>;
}

/// A file being written, on local disk.
#[derive(Debug)]
pub struct Draft {
    pub file: File,
    path: PathBuf,
    name: String,
    published: bool,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "an unfinished export cannot be removed");
        }
    }
}

/// One folder; replicas share it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Names are made by us: letters, digits, hyphens, one dot. Anything else is no name.
    fn file(&self, name: &str) -> io::Result<PathBuf> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        if name.is_empty() || name.starts_with('.') || name.ends_with(DRAFT) || !name.chars().all(plain) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of an export's file"));
        }
        Ok(self.path.join(name))
    }
}

impl ExportFiles for Folder {
    fn draft(&self, name: &str) -> io::Result<Draft> {
        // Invoices are for the gateway's own eyes.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        let mut path = self.file(name)?.into_os_string();
        path.push(DRAFT);
        let path = PathBuf::from(path);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        Ok(Draft { file, path, name: name.to_owned(), published: false })
    }

    fn publish(&self, mut draft: Draft) -> io::Result<u64> {
        draft.file.sync_all()?;
        let bytes = draft.file.metadata()?.len();
        fs::rename(&draft.path, self.file(&draft.name)?)?;
        draft.published = true;
        // The name is in the folder's own data.
        File::open(&self.path)?.sync_all()?;
        Ok(bytes)
    }

    fn open(&self, name: &str) -> io::Result<(Box<dyn Read + Send>, u64)> {
        let file = File::open(self.file(name)?)?;
        let bytes = file.metadata()?.len();
        Ok((Box::new(file), bytes))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.file(name)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn untouched(&self, since: Duration) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let now = SystemTime::now();
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            let age = entry.metadata().and_then(|meta| meta.modified()).map(|at| now.duration_since(at));
            let is_old = matches!(age, Ok(Ok(age)) if age >= since);
            let Some(name) = entry.file_name().to_str().map(str::to_owned).filter(|_| is_old) else { continue };
            if name.ends_with(DRAFT) {
                fs::remove_file(entry.path())?;
            } else if self.file(&name).is_ok() {
                names.push(name);
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_has_its_name_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(&dir.path().join("exports"));
        let names = || folder.untouched(Duration::ZERO).unwrap();
        let mut draft = folder.draft("a.csv").unwrap();
        draft.file.write_all(b"whole").unwrap();
        assert!(folder.open("a.csv").is_err());
        assert_eq!(folder.publish(draft).unwrap(), 5);
        let (mut file, bytes) = folder.open("a.csv").unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), bytes), ("whole", 5));
        drop(folder.draft("b.csv").unwrap());
        // As a killed process leaves it.
        std::mem::forget(folder.draft("c.csv").unwrap());
        assert_eq!(fs::read_dir(&folder.path).unwrap().count(), 2);
        assert_eq!(names(), ["a.csv"]);
        assert_eq!(fs::read_dir(&folder.path).unwrap().count(), 1, "drafts of the dead are gone");
        folder.remove("a.csv").unwrap();
        folder.remove("a.csv").unwrap();
        assert!(names().is_empty());
        for bad in ["../a", "", ".a", "a/b", "a.csv.part"] {
            assert!(folder.draft(bad).is_err() && folder.remove(bad).is_err(), "{bad}");
        }
    }
}
