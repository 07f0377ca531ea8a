//! Floor 1: the services behind the gateway: addresses, connection pools, bounds.

pub mod settings;

pub mod table;

pub mod pool;

pub mod shared;

pub use pool::{Lease, Pool, SendError};
pub use shared::{SharedLease, SharedPool, Unanswered};
pub use table::{InFlight, Upstream};
