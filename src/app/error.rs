//! Why a gateway does not start, or stops.

use std::net::SocketAddr;

use crate::{
    audit::{IndexUnavailable, JournalError, evidence::KeyError},
    identity::{IdentityError, SigningError},
    limit::SharedError,
    policy::PolicyErrors,
    proxy::routes::InvalidRoutes,
    server::inherited::InheritError,
    spans::SpansError,
    store::{DepotError, StoreError},
    tls::TlsError,
};

use super::telemetry;

/// Why the gateway does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Filter(#[from] telemetry::InvalidFilter),
    #[error("cannot listen on `{address}`: is another program on this port?")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Inherit(#[from] InheritError),
    #[error("the runtime cannot start")]
    Runtime(#[source] std::io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Policies(#[from] PolicyErrors),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Signing(#[from] SigningError),
    #[error(transparent)]
    CheckpointKey(#[from] KeyError),
    #[error(transparent)]
    Limits(#[from] SharedError),
    #[error(transparent)]
    Spans(#[from] SpansError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Routes(#[from] InvalidRoutes),
    #[error("the database cannot say how far it has seen the audit journal")]
    Head(#[source] IndexUnavailable),
    #[error("the database did not say in time how far it has seen the audit journal")]
    HeadTimeout,
    #[error("the audit journal in the database cannot be taken: {0}")]
    Kept(#[source] DepotError),
    #[error("`{0}` holds a journal of its own, and `audit.store` is `postgres`: name another `audit.dir`")]
    OwnJournal(std::path::PathBuf),
    #[error("a thread that opens the audit journal ended by a panic")]
    Cancelled,
    #[error("metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    #[error("the files of `{section}` cannot be used")]
    Tls { section: &'static str, source: Box<TlsError> },
    #[error("the certificates of the upstream `{name}` cannot be used")]
    UpstreamTls { name: String, source: Box<TlsError> },
    #[error("the folder of policies or certificates cannot be watched")]
    Watch(#[from] notify::Error),
}
