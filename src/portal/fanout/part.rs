//! One question that can be put to every tenant, and what comes of it.

use std::{fmt, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{kind::Kind, upstreams::Upstreams};
use crate::portal::{
    Granted,
    partial::{Source, Status},
    sources::{Site, SourceError},
};

/// What a question brought.
#[derive(Debug)]
pub(in crate::portal) struct Loaded<T> {
    pub(in crate::portal) value: T,
    /// The source holds more than was read.
    pub(in crate::portal) truncated: bool,
    /// Roughly what the value occupies in memory.
    pub(in crate::portal) bytes: usize,
}

type Load<T> =
    dyn Fn(Arc<dyn Upstreams>, Site, Instant) -> BoxFuture<'static, Result<Loaded<T>, SourceError>> + Send + Sync;

/// One question that can be put to every tenant.
pub(in crate::portal) struct Part<T> {
    pub(super) kind: Kind,
    pub(super) question: Arc<str>,
    pub(super) load: Arc<Load<T>>,
}

impl<T> Part<T> {
    /// `question` is all that the answer depends on beside tenant and endpoint: equal questions share answers.
    pub(in crate::portal) fn new<F, R>(kind: Kind, question: &impl fmt::Debug, load: F) -> Self
    where
        F: Fn(Arc<dyn Upstreams>, Site, Instant) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Loaded<T>, SourceError>> + Send + 'static,
    {
        let load: Arc<Load<T>> = Arc::new(move |upstreams, site, until| load(upstreams, site, until).boxed());
        Self { kind, question: format!("{question:?}").into(), load }
    }
}

/// What a truncated source's entry says.
const TRUNCATED: &str = "it holds more rows than are read of one source; narrow the filters";

/// One tenant's outcome.
#[derive(Debug)]
pub(in crate::portal) struct Outcome<T> {
    /// What is shown; `None` where nothing is.
    pub(in crate::portal) value: Option<Arc<T>>,
    pub(in crate::portal) status: Status,
    pub(in crate::portal) as_of: Option<Timestamp>,
    pub(in crate::portal) error: Option<SourceError>,
}

impl<T> Outcome<T> {
    /// For what an answer can do without: that no connector is configured is no failure.
    pub(in crate::portal) fn unless_nobody(self) -> Self {
        match self.error {
            Some(SourceError::NoConnector(_)) if self.value.is_none() => {
                Self { value: None, status: Status::Ok, as_of: None, error: None }
            }
            _ => self,
        }
    }

    pub(in crate::portal) fn source(&self, granted: &Granted) -> Source {
        Source {
            tenant_id: granted.tenant().clone(),
            status: self.status,
            as_of: self.as_of,
            error: match (&self.error, self.status) {
                (Some(error), _) => Some(error.to_string()),
                (None, Status::Truncated) => Some(TRUNCATED.to_owned()),
                (None, _) => None,
            },
        }
    }
}
