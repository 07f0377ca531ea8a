//! Floor 1: policies and decisions, by Cedar.
//!
//! Reading order: `source` finds the files, `schema` and `roles` read them, `generate` writes the Cedar text that the
//! role table and the gates of the contract's section 4 mean, `bundle` validates all of it and cuts it into slices,
//! `decide` answers. `facts` turns what linkgate knows into Cedar's request and entities, `reads` finds what a
//! hand-written policy looks at, `memo` remembers Cedar's answers, `explain` lists every gate, `prove` shows what holds
//! for all requests.
//!
//! A decision is Cedar's. What stands in Rust beside it are the gates that hand-written policy must not be able to open
//! (and the order in which refusals are told); Cedar is asked with all facts, so that it alone would answer the same.

pub mod settings;

mod source;

mod problem;

mod schema;

mod roles;

mod generate;

mod written;

mod reads;

mod bundle;

mod facts;

mod memo;

mod decide;

mod explain;

mod handle;

#[cfg(feature = "prove")]
pub mod prove;

pub use bundle::Bundle;
pub use decide::{Outcome, Permit, PermitKind, Refusal, decide, decide_in_full};
pub use explain::{Explanation, GateReport, GateState, explain};
pub use handle::Policies;
pub use memo::Memo;
pub use problem::{PolicyErrors, Problem};
