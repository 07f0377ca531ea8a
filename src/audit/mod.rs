//! Floor 1: the audit record, its journal and its chain.
//!
//! Reading order: `decision` and `record` (what is said), `asked` (what was asked of the policies), `chain` (what binds
//! it), `encode`, `standing`, `line` and `entry` (how it is written and read), `journal` (when and how durably), `check` and `verify`
//! (what is found when someone touched it), `scan`, `sweep`, `batch`, `indexer`, `outbox` and `outlived` (what stands
//! around it), `mirror` (a journal that is kept in a database), `glance`, `words`, `run` and `gather` (how records are found),
//! `evidence` (what someone outside can check), `ship` (what goes to other systems), `retention` (what goes for good). The
//! database is behind `traits`.

pub mod settings;

pub mod asked;
pub mod batch;
pub mod chain;
pub mod check;
pub mod decision;
pub mod encode;
pub mod entry;
pub mod evidence;
pub mod gather;
mod glance;
pub mod indexer;
pub mod joined;
pub mod journal;
mod json;
pub mod line;
pub mod medium;
pub mod mirror;
pub mod outbox;
pub mod outlived;
pub mod reader;
pub mod record;
pub mod redact;
pub mod retention;
pub mod run;
pub mod scan;
pub mod ship;
pub mod standing;
pub mod sweep;
pub mod traits;
pub mod usage;
pub mod verify;
pub mod words;

pub use asked::{Asked, Holds, RecordedLink};
pub use chain::{ChainHead, ChainId, Hash, Stamp};
pub use decision::Decision;
pub use joined::{Completed, Record, RecordFilter};
pub use journal::{AuditUnavailable, Journal, JournalError, JournalStatus, OpenRecord, Recovery, Unkept, Written};
pub use record::{ChangeRecord, Completion, Kind, Opening, OutboxRow, Slice, SliceOutcome};
pub use settings::{AuditSettings, Durability};
pub use standing::Standing;
pub use traits::{
    ChainHeads, Chunk, EvidenceStore, IndexBatch, IndexPosition, IndexSink, IndexUnavailable, Late, OutboxSource,
    RecordSearch, RecordSource, RetainedIndex,
};
