//! Words of records, logs and spans that are no gate's and no error code's, where several rooms say them.

/// A policy failed to evaluate, so nothing was decided.
pub const POLICY_ERROR: &str = "policy_error";
/// Nobody takes the rest of an answer, or sends the rest of a request.
pub const CLIENT_LEFT: &str = "client_disconnected";
