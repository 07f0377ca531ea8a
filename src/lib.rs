//! linkgate: a policy-engine sidecar and reverse proxy. (Architecture page: written with the whole.)

pub mod domain;

pub mod audit;
pub mod identity;
pub mod limit;
pub mod policy;
pub mod upstream;

pub mod config;
pub mod store;

pub mod proxy;

pub mod server;

pub mod app;

// Part of no request's way: stands beside the floors and imports from none.
#[cfg(feature = "demo")]
pub mod sample;

pub mod cli;
