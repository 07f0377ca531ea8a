//! Reviews of access: who could do what, by whose approval, and which rights nobody uses.
//!
//! One file a question; `scene` reads what they share: links of then from their history, what records say of use and of
//! tokens, and the policies of today. `table` is their CSV.

mod scene;
mod table;

pub mod unused;
pub mod who;

pub use scene::{Desk, Set};
