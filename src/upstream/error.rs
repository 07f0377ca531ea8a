//! Why a service gave no response.

use std::io;

use http::Request;

/// Why no response came.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("connecting to `{authority}` failed")]
    Connect { authority: String, source: io::Error },
    #[error("connecting to `{0}` took too long")]
    ConnectTimeout(String),
    #[error("the name `{0}` cannot be looked up")]
    Unresolved(String),
    #[error("the upstream broke the connection or its answer was malformed")]
    Exchange(#[source] hyper::Error),
    /// There was a connection, but what was allowed before is not any more.
    #[error("the request was not sent: it may not be any more")]
    Withheld,
}

impl SendError {
    /// No connection was had.
    pub fn is_connect(&self) -> bool {
        !matches!(self, Self::Exchange(_) | Self::Withheld)
    }
}

/// Why no response came, with the request where it did not leave the gateway and may be sent elsewhere.
#[derive(Debug)]
pub struct Unsent<B> {
    pub error: SendError,
    pub request: Option<Box<Request<B>>>,
}
