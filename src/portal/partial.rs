//! What is missing from an answer, and why: `partial` and `sources` (contract, section 8).

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Call, Problem, Slice, sources::SourceError};
use crate::{
    audit::SliceOutcome,
    domain::{ErrorCode, TenantId},
};

/// How one tenant's slice went into the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[schemars(rename = "SourceStatus")]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Ok,
    /// Allowed to somebody, and not to this caller here: neither partial nor a failure.
    Forbidden,
    Truncated,
    Stale,
    Timeout,
    Error,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Forbidden => "forbidden",
            Self::Truncated => "truncated",
            Self::Stale => "stale",
            Self::Timeout => "timeout",
            Self::Error => "error",
        }
    }

    fn makes_partial(self) -> bool {
        !matches!(self, Self::Ok | Self::Forbidden)
    }
}

impl From<&SourceError> for Status {
    fn from(error: &SourceError) -> Self {
        match error {
            SourceError::Timeout => Self::Timeout,
            SourceError::Barred(_) => Self::Forbidden,
            SourceError::NoConnector(_)
            | SourceError::Unavailable(_)
            | SourceError::Unasked(_)
            | SourceError::Refused(_)
            | SourceError::Answer(_) => Self::Error,
        }
    }
}

/// One entry of `sources`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Source {
    pub tenant_id: TenantId,
    pub status: Status,
    /// When what is shown was fetched; `None`: nothing is.
    pub as_of: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One tenant's source that several questions went into: the worst of their ends, and the oldest of what is shown.
pub(super) fn worst(tenant: &TenantId, ends: Vec<Source>) -> Source {
    let as_of = ends.iter().filter_map(|end| end.as_of).min();
    let none = Source { tenant_id: tenant.clone(), status: Status::Ok, as_of, error: None };
    ends.into_iter().fold(
        none,
        |worst, end| {
            if end.status > worst.status { Source { as_of: worst.as_of, ..end } } else { worst }
        },
    )
}

/// The tail of every consolidated answer; flatten it into the answer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Coverage {
    pub partial: bool,
    /// The sources that are not `ok`, or all of them with `?sources=all`.
    pub sources: Vec<Source>,
}

/// The two parameters that every consolidated read takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// `strict=true`: a partial answer is 502 instead.
    pub strict: bool,
    /// `sources=all`.
    pub all_sources: bool,
}

impl Wish {
    pub fn read(params: &mut super::query::Params<'_>) -> Self {
        Self {
            strict: params.flag("strict"),
            all_sources: params.word("sources", &[("all", true), ("failed", false)]).unwrap_or_default(),
        }
    }
}

impl Coverage {
    /// `sources`: one entry for each granted slice. The forbidden ones of the call are added here.
    pub fn of(call: &Call, wish: Wish, mut sources: Vec<Source>) -> Result<(Self, Vec<SliceOutcome>), Problem> {
        sources.extend(call.slices.iter().filter_map(|slice| match slice {
            Slice::Forbidden { link, .. } => Some(Source {
                tenant_id: link.link.tenant_id.clone(),
                status: Status::Forbidden,
                as_of: None,
                error: None,
            }),
            Slice::Live(_) | Slice::Granted(_) => None,
        }));
        sources.sort_unstable_by(|one, other| one.tenant_id.cmp(&other.tenant_id));
        let outcomes: Vec<SliceOutcome> = sources
            .iter()
            .map(|source| SliceOutcome {
                managed_tenant_id: source.tenant_id.as_str().to_owned(),
                status: source.status.as_str().into(),
            })
            .collect();
        let partial = sources.iter().any(|source| source.status.makes_partial());
        if partial && wish.strict {
            let failed = sources.iter().filter(|source| source.status.makes_partial()).count();
            return Err(Problem::new(
                ErrorCode::UpstreamError,
                format!(
                    "{failed} of {} tenants gave no complete answer; ask without strict for the rest",
                    sources.len()
                ),
            )
            .with_slices(outcomes));
        }
        if !wish.all_sources {
            sources.retain(|source| source.status != Status::Ok);
        }
        Ok((Self { partial, sources }, outcomes))
    }
}
