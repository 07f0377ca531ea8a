//! Floor 2: from one TOML file and the environment to a valid configuration.

pub mod settings;
