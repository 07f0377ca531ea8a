//! Notices changes of files. What is read then is `reload`'s.
//!
//! Folders are watched, never the files themselves: editors and mounted configuration maps put another file in a file's
//! place. A watcher ends when it is dropped.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Editors write a file in several steps; the set is read once they are quiet for this long.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// In a folder that is never quiet, such as one with the database in it, nobody waits longer.
const LONGEST_DEBOUNCE: Duration = Duration::from_secs(1);

/// A watcher, and who is told by it.
pub(super) type Watched = (RecommendedWatcher, mpsc::Receiver<()>);

/// Watches everything in a folder.
pub(super) fn folder(path: &Path, mode: RecursiveMode) -> Result<Watched, notify::Error> {
    let (tell, told) = mpsc::channel::<()>(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // Reading the files is an event of its own kind and would make us read them for ever.
        if event.is_ok_and(|event| !event.kind.is_access()) && tell.try_send(()).is_err() {
            tracing::trace!("a change is already noted");
        }
    })?;
    watcher.watch(path, mode)?;
    Ok((watcher, told))
}

/// Watches the folders of these files, for changes of these files: they are replaced by renaming, and mounted secrets by
/// a symbolic link beside them whose name begins with two dots. `None`: there are no files.
pub(super) fn files(files: BTreeSet<PathBuf>) -> Result<Option<Watched>, notify::Error> {
    if files.is_empty() {
        return Ok(None);
    }
    let folders: BTreeSet<PathBuf> = files.iter().filter_map(|file| file.parent()).map(Path::to_owned).collect();
    let (tell, told) = mpsc::channel::<()>(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // The folder may hold what we write ourselves.
        let ours =
            event.is_ok_and(|event| !event.kind.is_access() && event.paths.iter().any(|path| concerns(path, &files)));
        if ours && tell.try_send(()).is_err() {
            tracing::trace!("a change of the certificates is already noted");
        }
    })?;
    for folder in &folders {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    Ok(Some((watcher, told)))
}

fn concerns(path: &Path, files: &BTreeSet<PathBuf>) -> bool {
    let mounted = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."));
    mounted || files.contains(path)
}

/// Waits for a change and until there are no more, in a folder that may never be quiet; false: nobody watches any more.
pub(super) async fn quiet(told: &mut mpsc::Receiver<()>) -> bool {
    if told.recv().await.is_none() {
        return false;
    }
    let last = tokio::time::Instant::now() + LONGEST_DEBOUNCE;
    while tokio::time::Instant::now() < last && more(told).await {}
    true
}

/// The same for [`files`]: of others nothing is told, so the last change of a set is always waited for.
pub(super) async fn all_written(told: &mut mpsc::Receiver<()>) -> bool {
    if told.recv().await.is_none() {
        return false;
    }
    while more(told).await {}
    true
}

async fn more(told: &mut mpsc::Receiver<()>) -> bool {
    tokio::time::timeout(DEBOUNCE, told.recv()).await.is_ok_and(|more| more.is_some())
}
