//! What goes back: one object with its version as `ETag`, or a list in the envelope of the house.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use schemars::JsonSchema;
use serde::Serialize;

use super::ask::Ask;
use crate::{
    domain::{ErrorCode, link_rules::FieldError},
    portal::{Problem, query::Paging},
    proxy::{body::ResponseBody, respond},
    store::StoreError,
};

/// A call that was done.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    version: Option<i64>,
    body: Bytes,
}

impl Answer {
    pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Result<Self, Problem> {
        let body = serde_json::to_vec(value).map_err(|error| {
            tracing::error!(%error, "an answer cannot be written as JSON");
            Problem::new(ErrorCode::InternalError, "")
        })?;
        Ok(Self { status, version: None, body: body.into() })
    }

    pub(super) fn ok(value: &impl Serialize) -> Result<Self, Problem> {
        Self::json(StatusCode::OK, value)
    }

    /// One object that has a version.
    pub(super) fn versioned(status: StatusCode, version: i64, value: &impl Serialize) -> Result<Self, Problem> {
        Ok(Self { version: Some(version), ..Self::json(status, value)? })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.body.len() as u64
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let tag = self.version.and_then(|version| HeaderValue::from_str(&format!("\"{version}\"")).ok());
        if let Some(tag) = tag {
            headers.insert(header::ETAG, tag);
        }
        response
    }
}

/// A page of a list. `total` is exact on the last page; before it, it is the least that there are.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}List")]
pub(super) struct List<T> {
    items: Vec<T>,
    total: u64,
    total_exact: bool,
    limit: u64,
    offset: u64,
    has_more: bool,
}

impl<T> List<T> {
    /// `rows`: up to one more than was asked for.
    pub(super) fn of(mut rows: Vec<T>, paging: Paging) -> Self {
        let limit = usize::try_from(paging.limit).unwrap_or(usize::MAX);
        let has_more = rows.len() > limit;
        let total = paging.offset.saturating_add(rows.len() as u64);
        // Beyond the end nothing is known of how many there are before it.
        let total_exact = !has_more && (paging.offset == 0 || !rows.is_empty());
        rows.truncate(limit);
        Self { items: rows, total, total_exact, limit: paging.limit, offset: paging.offset, has_more }
    }
}

/// An error envelope as this listener sends it.
pub(super) fn refusal(response: Response<ResponseBody>) -> Response<Full<Bytes>> {
    response.map(|body| match body {
        ResponseBody::Full(bytes) => Full::new(bytes.unwrap_or_default()),
        // Envelopes are whole; nothing else is made here.
        ResponseBody::Empty | ResponseBody::Stream(_) | ResponseBody::Owned(_) => Full::default(),
    })
}

/// What the store refused. An object that the path names is not found; one that the body names is a mistake in it.
pub(super) fn store_problem(ask: &Ask, error: StoreError) -> Problem {
    match error {
        StoreError::Refused(refusal) => refusal.into(),
        StoreError::NotFound { ref id, .. } if *id == ask.param => ask.unknown(),
        StoreError::NotFound { what, .. } => {
            let field = match (what, ask.spec.resource) {
                (_, "suspension") => "subject",
                ("tenant", "link") => "managed_tenant_id",
                ("tenant", _) => "home_tenant_id",
                ("link", _) => "parent_link_id",
                _ => "partner_id",
            };
            Problem::invalid(vec![FieldError { field: field.into(), message: error.to_string() }])
        }
        StoreError::Unavailable(_) => {
            tracing::error!(%error, source = ?std::error::Error::source(&error), "the store cannot answer the admin API");
            let message = "the gateway's database does not answer: nothing was changed, as far as is known; look before you try again";
            Problem::new(ErrorCode::UpstreamUnavailable, message)
        }
        error => {
            tracing::error!(%error, source = ?std::error::Error::source(&error), "the store failed the admin API");
            Problem::new(ErrorCode::InternalError, "")
        }
    }
}

/// The envelope of a problem that was met before or in an operation.
pub(super) fn envelope(failure: &respond::Failure, request_id: &crate::domain::RequestId) -> Response<Full<Bytes>> {
    refusal(respond::failure(failure, request_id, None, false))
}
