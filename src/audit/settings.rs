//! What the audit room is configured with.

use std::{path::PathBuf, time::Duration};

/// Journal folder, durability and size of segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// Folder of the segment files; one server at a time, held by a lock.
    pub dir: PathBuf,
    /// A segment is closed and a new one begun at this size, in bytes.
    pub segment_bytes: u64,
    /// And at this age, if it holds anything: what is never closed never gets old enough to go. `None`: at its size only.
    pub segment_age: Option<Duration>,
    /// Durability of routes whose class writes.
    pub writes: Durability,
    /// Durability of routes whose class reads.
    pub reads: Durability,
    /// Longest wait for stable storage before a request is refused.
    pub commit_timeout: Duration,
    /// How often buffered (`memory`) records and completions are written at the latest.
    pub flush_interval: Duration,
}

/// How durable an opening is before the upstream is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Batched; may be lost with the process.
    Memory,
    /// Given to the operating system: survives the death of the process.
    Os,
    /// On stable storage.
    Disk,
}
