//! The raw mirror of the section `log`; see `raw`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::form::{raw, words};

raw! {
    /// Logs on standard error.
    struct RawLog {
        /// How a line looks.
        format: RawLogFormat = RawLogFormat::Text,
        /// Filter, such as `info,linkgate=debug`.
        filter: String = "info".to_owned(),
        /// One line a request.
        requests: bool = true,
    }
}

words! {
    /// How a log line looks.
    enum RawLogFormat { Text = "text", Json = "json", }
}
