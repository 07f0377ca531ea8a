//! How far a target is: `ship-TARGET.json` in the journal's folder, put in place whole.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::settings::ShipSettings;
use crate::audit::{
    chain::{ChainHead, ChainId},
    traits::IndexPosition,
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    chain_id: ChainId,
    segment: u64,
    offset: u64,
    head: ChainHead,
}

pub(super) fn path(dir: &Path, target: &str) -> PathBuf {
    dir.join(format!("ship-{target}.json"))
}

/// `None`: the target has nothing yet.
pub(super) fn load(dir: &Path, target: &str, chain_id: ChainId) -> io::Result<Option<IndexPosition>> {
    let kept: Kept = match std::fs::read(path(dir, target)) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if kept.chain_id != chain_id {
        let what = "it is of another chain; remove it to ship this journal from its beginning";
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(Some(IndexPosition { segment: kept.segment, offset: kept.offset, head: kept.head }))
}

/// On stable storage when it returns.
pub(super) fn save(dir: &Path, target: &str, chain_id: ChainId, position: IndexPosition) -> io::Result<()> {
    let IndexPosition { segment, offset, head } = position;
    let bytes = serde_json::to_vec(&Kept { chain_id, segment, offset, head })?;
    let new = dir.join(format!("ship-{target}.json.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path(dir, target))?;
    File::open(dir)?.sync_all()
}

/// The segments that targets read on in.
pub fn needed(dir: &Path, chain_id: ChainId, ship: &ShipSettings) -> io::Result<Vec<u64>> {
    let mut needed = Vec::new();
    for target in ship.targets() {
        needed.extend(load(dir, target.name(), chain_id)?.map(|position| position.segment));
    }
    Ok(needed)
}

/// A target that would never get lines which are to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unshipped {
    pub target: &'static str,
    /// The last line that it has; 0: none.
    pub taken: u64,
}

/// The configured targets that do not have all lines up to `seq` yet.
pub fn unshipped(dir: &Path, chain_id: ChainId, ship: &ShipSettings, seq: u64) -> io::Result<Vec<Unshipped>> {
    let mut behind = Vec::new();
    for target in ship.targets() {
        let target = target.name();
        let taken = load(dir, target, chain_id)
            .map_err(|error| io::Error::new(error.kind(), format!("`{}`: {error}", path(dir, target).display())))?
            .map_or(0, |position| position.head.seq);
        if taken < seq {
            behind.push(Unshipped { target, taken });
        }
    }
    Ok(behind)
}
