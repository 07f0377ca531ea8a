//! Notices changes of files. What is read then is `reload`'s.
//!
//! Folders are watched, never the files themselves: editors and mounted configuration maps put another file in a file's
//! place. A watcher ends when it is dropped. Only the configuration is looked at from time to time instead: its folder often
//! has the database in it, and every write of that would be told, some thousand a second under load.

use std::{
    collections::BTreeSet,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Editors write a file in several steps; the set is read once they are quiet for this long.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// In a folder that is never quiet nobody waits longer.
const LONGEST_DEBOUNCE: Duration = Duration::from_secs(1);

/// A watcher, and who is told by it.
pub(super) type Watched = (RecommendedWatcher, mpsc::Receiver<()>);

/// Watches everything in a folder and below it.
pub(super) fn folder(path: &Path) -> Result<Watched, notify::Error> {
    let (tell, told) = mpsc::channel::<()>(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // Reading the files is an event of its own kind and would make us read them for ever.
        if event.is_ok_and(|event| !event.kind.is_access()) && tell.try_send(()).is_err() {
            tracing::trace!("a change is already noted");
        }
    })?;
    watcher.watch(path, RecursiveMode::Recursive)?;
    Ok((watcher, told))
}

/// Watches the folders of these files, for changes of these files: they are replaced by renaming, and mounted secrets by
/// a symbolic link beside them whose name begins with two dots. `None`: there are no files.
pub(super) fn files(files: BTreeSet<PathBuf>) -> Result<Option<Watched>, notify::Error> {
    if files.is_empty() {
        return Ok(None);
    }
    // As events name them.
    let files = files.iter().map(std::path::absolute).collect::<Result<BTreeSet<_>, _>>().map_err(notify::Error::io)?;
    let folders: BTreeSet<PathBuf> = files.iter().filter_map(|file| file.parent()).map(Path::to_owned).collect();
    let (tell, told) = mpsc::channel::<()>(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // The folder may hold what we write ourselves: the database, all the time.
        let ours = event.is_ok_and(|event| is_told(&event, &files));
        if ours && tell.try_send(()).is_err() {
            tracing::trace!("a change of the files is already noted");
        }
    })?;
    for folder in &folders {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    Ok(Some((watcher, told)))
}

fn is_told(event: &Event, files: &BTreeSet<PathBuf>) -> bool {
    let named = || event.paths.iter().any(|path| concerns(path, files));
    // Where so much happened that events were dropped, one of these may have been among them.
    event.need_rescan() || (!event.kind.is_access() && named())
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

/// How often the configuration is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// What changes with a file, or with the one that a link leads to; `None`: there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    file: (u64, u64),
    length: u64,
    /// Of its content and of itself, each in seconds and nanoseconds.
    times: [(i64, i64); 2],
}

async fn state(path: &Path) -> Option<State> {
    let found = tokio::fs::metadata(path).await.ok()?;
    let times = [(found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec())];
    Some(State { file: (found.dev(), found.ino()), length: found.len(), times })
}

/// The file's state once it is another one than was `seen`, and has stayed so for a moment.
pub(super) async fn changed(path: &Path, seen: Option<State>) -> Option<State> {
    let mut last = seen;
    loop {
        tokio::time::sleep(if last == seen { LOOK } else { DEBOUNCE }).await;
        let now = state(path).await;
        if now != seen && now == last {
            return now;
        }
        last = now;
    }
}

async fn more(told: &mut mpsc::Receiver<()>) -> bool {
    tokio::time::timeout(DEBOUNCE, told.recv()).await.is_ok_and(|more| more.is_some())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use notify::event::{EventKind, Flag};

    use super::*;

    async fn told(by: &mut mpsc::Receiver<()>) -> bool {
        tokio::time::timeout(Duration::from_secs(5), all_written(by)).await.is_ok_and(|told| told)
    }

    #[tokio::test]
    async fn a_file_is_watched_among_others_that_are_written_all_the_time() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("linkgate.toml"), dir.path().join("linkgate.db"));
        fs::write(&file, "a").unwrap();
        let (_watcher, mut by) = files([file.clone()].into()).unwrap().unwrap();
        for n in 0..20 {
            fs::write(&other, format!("{n}")).unwrap();
            fs::read(&file).unwrap();
        }
        let nothing = tokio::time::timeout(Duration::from_millis(500), by.recv()).await;
        assert!(nothing.is_err(), "others, and readers, are none of its business");

        fs::write(&file, "b").unwrap();
        assert!(told(&mut by).await, "written in its place");
        fs::write(dir.path().join("new"), "c").unwrap();
        fs::rename(dir.path().join("new"), &file).unwrap();
        assert!(told(&mut by).await, "another one put in its place");
        std::os::unix::fs::symlink("elsewhere", dir.path().join("data_tmp")).unwrap();
        fs::rename(dir.path().join("data_tmp"), dir.path().join("..data")).unwrap();
        assert!(told(&mut by).await, "a mounted folder changed as a whole");
        fs::remove_file(&file).unwrap();
        assert!(told(&mut by).await, "taken away");
    }

    #[tokio::test]
    async fn a_file_that_is_looked_at_has_changed_however_it_was_done() {
        let dir = tempfile::tempdir().unwrap();
        let (file, real) = (dir.path().join("linkgate.toml"), dir.path().join("real"));
        fs::write(&real, "a").unwrap();
        std::os::unix::fs::symlink(&real, &file).unwrap();
        let changed = async |seen| tokio::time::timeout(Duration::from_secs(5), changed(&file, seen)).await;
        let mut seen = state(&file).await;
        fs::write(dir.path().join("linkgate.db"), "x").unwrap();
        fs::read(&file).unwrap();
        let nothing = tokio::time::timeout(Duration::from_secs(2), changed(seen)).await;
        assert!(nothing.is_err(), "others, and readers, are none of its business");
        let ways: [(&str, &dyn Fn()); 4] = [
            ("written where its link leads", &|| fs::write(&real, "b").unwrap()),
            ("another one put in its place", &|| {
                fs::write(dir.path().join("new"), "b").unwrap();
                fs::rename(dir.path().join("new"), &file).unwrap();
            }),
            ("taken away", &|| fs::remove_file(&file).unwrap()),
            ("there again", &|| fs::write(&file, "b").unwrap()),
        ];
        for (what, way) in ways {
            way();
            seen = changed(seen).await.unwrap_or_else(|_| panic!("{what}"));
            assert_eq!(seen, state(&file).await, "{what}");
        }
    }

    #[test]
    fn what_was_dropped_may_have_been_ours() {
        let files = [PathBuf::from("/etc/linkgate/linkgate.toml")].into();
        let event = |kind, path: &str| Event::new(kind).add_path(path.into());
        let modified = EventKind::Modify(notify::event::ModifyKind::Any);
        assert!(is_told(&event(modified, "/etc/linkgate/linkgate.toml"), &files));
        assert!(is_told(&event(modified, "/etc/linkgate/./linkgate.toml"), &files));
        assert!(!is_told(&event(modified, "/etc/linkgate/linkgate.db"), &files));
        assert!(!is_told(
            &event(EventKind::Access(notify::event::AccessKind::Any), "/etc/linkgate/linkgate.toml"),
            &files
        ));
        assert!(is_told(&Event::new(EventKind::Other).set_flag(Flag::Rescan), &files));
    }
}
