//! What was decided, as records say it: allowed or refused, and the words for why that are no gate's.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Allow,
    /// The default, so that a forgotten field never claims a permission.
    #[default]
    Deny,
}

impl Decision {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// The words of `reason` that are no gate and no error code.
pub mod reason {
    /// The record could not be made as durable as promised; the request was answered with 503.
    pub const AUDIT_UNAVAILABLE: &str = "audit_unavailable";
    /// The process ended before the completion was written.
    pub const PROCESS_ENDED: &str = "process_ended";
}
