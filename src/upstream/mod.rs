//! Floor 1: the services behind the gateway: endpoints, health, bounds, connection pools.
//!
//! A request's way: the cluster of its tenant (`table`, `cluster`, `destination`), a place among those under way to it
//! (`bounds`, `share`), one of its endpoints (`balance`), a connection to it (`pool`, `channel`, `dial`, `turns`), and
//! another endpoint where that fails (`attempts`, `budget`). What is learnt on the way (`outlier`, `asker`), asked unasked
//! (`health`) and looked up (`resolve`) decides where the next one goes; `upkeep` runs what runs in the background.

pub mod settings;

pub mod table;

mod bounds;
mod share;

pub mod cluster;
pub mod destination;
pub mod endpoint;
pub mod resolve;

mod balance;
mod clock;

mod asker;
mod outlier;

mod attempts;
mod budget;

mod channel;
mod dial;
mod error;
mod turns;

pub mod pool;

pub mod shared;

mod health;
pub mod tally;
pub mod upkeep;

pub use asker::Asker;
pub use attempts::Attempts;
pub use bounds::{InFlight, Refused};
pub use channel::Repeat;
pub use destination::Destination;
pub use endpoint::{Endpoint, Picked};
pub use error::{SendError, Unsent};
pub use pool::{Lease, Pool};
pub use resolve::{Resolve, SystemResolver};
pub use shared::{SharedLease, SharedPool, Unanswered};
pub use table::Upstream;
pub use upkeep::Upkeep;
