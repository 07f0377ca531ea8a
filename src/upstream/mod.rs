//! Floor 1: the services behind the gateway: addresses, connection pools, bounds.

pub mod settings;

pub mod table;

pub mod pool;

pub use pool::{Lease, Pool, SendError};
pub use table::{InFlight, Upstream};
