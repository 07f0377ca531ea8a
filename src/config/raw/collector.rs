//! The raw mirror of what a collector of OpenTelemetry is reached by; see `raw`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::form::raw;

raw! {
    /// One header of each export.
    struct RawCollectorHeader {
        /// File with its value.
        value_file: Option<String> = None,
        /// Environment variable with it.
        value_env: Option<String> = None,
        /// The value itself: only as an environment override, never in the file.
        value: Option<String> = None,
    }
}
