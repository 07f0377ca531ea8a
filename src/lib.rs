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

pub mod cli;
