//! Floor 1: the services behind the gateway: addresses, connection pools, bounds.

pub mod settings;

pub mod table;

mod channel;
mod dial;

pub mod pool;

pub mod shared;

pub use channel::Repeat;
pub use pool::{Lease, Pool, SendError};
pub use shared::{SharedLease, SharedPool, Unanswered};
pub use table::{InFlight, Upstream};
