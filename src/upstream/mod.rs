//! Floor 1: the services behind the gateway.

pub mod settings;
