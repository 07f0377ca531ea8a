//! File systems on which a full disk would end the process.
//!
//! SQLite makes the shared memory of a database (`-shm`) by writing one byte to each 4 KiB of the file, and maps it.
//! Where blocks are smaller, the rest of each 4 KiB is a hole; filling it on a full disk is no error that SQLite could
//! tell, but a signal (SIGBUS) that ends the process. The file cannot be filled from here: whoever closes a second
//! descriptor of it takes SQLite's own locks away. So whoever runs the gateway is told.

use std::path::Path;

use crate::config::settings::DatabaseSettings;

/// What SQLite takes blocks to have at least.
const SQLITE_PAGE: u64 = 4096;

/// Where the files of this database lie so: what is wrong, and what to do.
pub fn small_blocks(settings: &DatabaseSettings) -> Option<String> {
    let DatabaseSettings::Sqlite { path } = settings else { return None };
    // Told by its whole name: whoever reads it may be elsewhere.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let dir = path.ancestors().skip(1).find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
    // A folder that cannot be looked at is told of when the database is opened.
    told(dir, rustix::fs::statvfs(dir).ok()?.f_bsize)
}

fn told(dir: &Path, block: u64) -> Option<String> {
    // Some file systems have no blocks, and say 0.
    ((1..SQLITE_PAGE).contains(&block)).then(|| {
        format!(
            "the file system of `{}`, where the database lies, has blocks of {block} bytes: when it is full, the \
             process can be ended by a signal (SIGBUS) instead of refusing writes. Move `database.sqlite` to one with \
             blocks of 4096 bytes or more (`mkfs.ext4 -b 4096`), or use Postgres",
            dir.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_smaller_than_sqlites_are_told() {
        let dir = Path::new("/var/lib/linkgate");
        let said = told(dir, 1024).unwrap();
        assert!(said.contains("`/var/lib/linkgate`") && said.contains("1024 bytes"), "{said}");
        assert!([0, 4096, 65_536].iter().all(|block| told(dir, *block).is_none()));
        // The folder is made later: the one above it counts. Tests run where builds do, on no such file system.
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("later/linkgate.db");
        assert_eq!(small_blocks(&DatabaseSettings::Sqlite { path }), None);
    }
}
