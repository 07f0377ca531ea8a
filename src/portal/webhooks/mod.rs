//! Telling partners by webhook what happens in their tenants (Standard Webhooks).
//!
//! Reading order: [`signature`] what a receiver checks, [`address`] where a delivery may go, [`endpoint`] which URLs are
//! taken, `connect` and [`sender`] one try, [`trial`] one that an operator asks for, [`deliver`] the queue's work in the
//! background. Events are written by `store::events`, in the transactions that they tell of.

pub mod address;
mod connect;
pub mod deliver;
pub mod endpoint;
pub mod sender;
pub mod signature;
pub mod trial;

pub use deliver::Deliverer;
pub use endpoint::Endpoint;
pub use sender::{Answer, SendError, Sender};
