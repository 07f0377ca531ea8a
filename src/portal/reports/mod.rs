//! Figures over all tenants: money, traffic, availability. Every figure is a sum over sources that answered in full;
//! `sources` names the others.

pub(super) mod sla;
pub(super) mod summary;
pub(super) mod usage;
