//! One question to many tenants at once: bounded, timed, each tenant by itself, answered from memory where that is
//! fresh enough.
//!
//! An endpoint describes what it wants of one tenant as a [`Part`] and gives it to a [`Reading`], which knows the
//! request: its deadline, its share of places, whether the client wants nothing cached. Every outcome says how it was
//! come by; a failure is one tenant's, never the request's.
//!
//! Reading order: `kind` and `part` (what is asked, what comes of it), `reading` (one request), `shared` (what all
//! requests share), `slices` (memory), `guard` with `breaker` and `hedge` (bounds and patience), `upstreams` (who answers).

pub(super) mod kind;
pub(super) mod part;

mod reading;
mod shared;

mod breaker;
mod guard;
mod hedge;
mod slices;
mod upstreams;

#[cfg(test)]
mod tests;

pub(super) use self::{
    kind::Kind,
    part::{Loaded, Outcome, Part},
    reading::Reading,
    shared::Fanout,
    upstreams::Upstreams,
};
