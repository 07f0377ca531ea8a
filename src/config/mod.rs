//! Floor 2: from one TOML file and the environment to a valid configuration.

pub mod pattern;
pub mod route_table;
pub mod settings;

pub use route_table::{Found, Params, RouteConflict, RouteTable};
pub use settings::Config;
