//! linkgate: a policy-engine sidecar and reverse proxy. (Architecture page: written with the whole.)

pub mod domain;

pub mod audit;
pub mod identity;
pub mod limit;
pub mod policy;
pub mod upstream;

pub mod config;
pub mod store;

#[cfg(feature = "demo")]
pub mod sample;

pub mod cli;
