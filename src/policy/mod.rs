//! Floor 1: policies and decisions, by Cedar.
//!
//! Reading order: `source` finds the files, `schema` and `roles` read them, `generate` writes the Cedar text that the
//! role table and the gates of the contract's section 4 mean, `bundle` validates all of it, `slices` cuts it into small
//! sets, `decide` answers. `facts` turns what linkgate knows into Cedar's request and entities, `reads` finds what a
//! hand-written policy looks at, `memo` remembers Cedar's answers, `explain` lists every gate, `near` what else would have
//! flipped it. `handle` holds the set in force, `shadow` one that is only asked.
//!
//! For those who write policies: `faults` finds what in a rule can fail (a `forbid` that can is not loaded), `lint` what
//! cannot be meant, by `logic`, which reads a condition as a `formula`; `suite` runs decision tables, made of questions
//! that `what_if` reads; `concrete` and `effective` say what one link amounts to; `prove` shows what holds for all requests.
//!
//! A decision is Cedar's. What stands in Rust beside it are the gates that hand-written policy must not be able to open
//! (and the order in which refusals are told); Cedar is asked with all facts, so that it alone would answer the same.

pub mod settings;

mod source;
mod source_file;

mod problem;

mod schema;

mod roles;

mod generate;

mod written;

mod reads;

mod faults;

mod formula;

mod logic;

mod lint;

mod slices;

mod bundle;

mod facts;

mod memo;

mod decide;

mod explain;

mod near;

mod handle;

mod shadow;

mod what_if;

mod effective;

mod concrete;

mod tighten;

pub mod suite;

#[cfg(feature = "prove")]
pub mod prove;

pub use bundle::{Bundle, PolicyInfo};
pub use concrete::{concrete, decide_by_text};
pub use decide::{Outcome, Permit, PermitKind, Refusal, TenantPermit, Verdict, decide, decide_in_full, judge};
pub use effective::{Answer, Effective, effective, plain_link, role_text};
pub use explain::{Explanation, GateReport, GateState, explain};
pub use handle::Policies;
pub use memo::Memo;
pub use near::{NearMiss, Side, near_misses};
pub use problem::{PolicyErrors, Problem};
pub use shadow::ShadowSet;
pub use source::shipped;
pub use tighten::{NotTightened, Tightened, granted, tighten};
pub use what_if::WhatIf;
