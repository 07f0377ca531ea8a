//! Shipping: every line of the journal goes to targets outside, behind the requests.
//!
//! The journal itself is the queue: a target that is slow or away makes a lag and nothing else. Each target has a position
//! of its own beside the journal, which moves once the target has the lines. So a line may come twice after a crash, and
//! none is left out; a receiver tells repeats by `seq` and `hash`. Only what is on stable storage is shipped.
//!
//! Reading order: `settings`, `form` (what of a line is shipped), `position`, `target`, `file` and `otlp` (where to),
//! `shipper`.

mod file;
mod form;
mod otlp;
mod position;
pub mod settings;
mod shipper;
mod target;

pub use form::Form;
pub use position::{Unshipped, needed, unshipped};
pub use settings::{FileSettings, OtlpSettings, ShipSettings, TargetSettings};
pub use shipper::{ShipError, ShipProgress, Shipper};
