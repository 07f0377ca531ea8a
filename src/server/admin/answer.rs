//! What goes back: one object with its version as `ETag`, or a list in the envelope of the house.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use schemars::JsonSchema;
use serde::Serialize;

use super::ask::Ask;
use crate::{
    audit::IndexUnavailable,
    domain::{ErrorCode, link_rules::FieldError},
    ops::Trouble,
    portal::{Problem, query::Paging},
    proxy::{body::ResponseBody, respond},
    store::StoreError,
};

/// A call that was done.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    version: Option<i64>,
    content_type: &'static str,
    /// Of a table: how many there are of what it is about, and whether some are on later pages.
    part: Option<(u64, bool)>,
    body: Bytes,
}

/// Beside a table: what `total_links` and `has_more` say in JSON.
const TOTAL: &str = "x-total-count";
const HAS_MORE: &str = "x-has-more";
const JSON: &str = "application/json";

impl Answer {
    pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Result<Self, Problem> {
        let body = serde_json::to_vec(value).map_err(|error| {
            tracing::error!(%error, "an answer cannot be written as JSON");
            Problem::new(ErrorCode::InternalError, "")
        })?;
        Ok(Self { status, version: None, content_type: JSON, part: None, body: body.into() })
    }

    pub(super) fn ok(value: &impl Serialize) -> Result<Self, Problem> {
        Self::json(StatusCode::OK, value)
    }

    /// One object that has a version.
    pub(super) fn versioned(status: StatusCode, version: i64, value: &impl Serialize) -> Result<Self, Problem> {
        Ok(Self { version: Some(version), ..Self::json(status, value)? })
    }

    /// A table for a spreadsheet. What a JSON page says beside its rows stands in headers.
    pub(super) fn csv(body: Vec<u8>, total: u64, has_more: bool) -> Self {
        let content_type = "text/csv; charset=utf-8";
        Self { status: StatusCode::OK, version: None, content_type, part: Some((total, has_more)), body: body.into() }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.body.len() as u64
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        let tag = self.version.and_then(|version| HeaderValue::from_str(&format!("\"{version}\"")).ok());
        if let Some(tag) = tag {
            headers.insert(header::ETAG, tag);
        }
        if let Some((total, has_more)) = self.part {
            headers.insert(TOTAL, HeaderValue::from(total));
            headers.insert(HAS_MORE, HeaderValue::from_static(if has_more { "true" } else { "false" }));
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
        // An id of the path may be written in upper case.
        StoreError::NotFound { ref id, .. } if id.eq_ignore_ascii_case(&ask.param) => ask.unknown(),
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

/// Why a question of `ops` has no answer.
pub(super) fn trouble(ask: &Ask, trouble: Trouble) -> Problem {
    let unread = |error: &dyn std::error::Error, message: &'static str| {
        tracing::error!(%error, source = ?error.source(), "the admin API cannot read the audit record");
        Problem::new(ErrorCode::UpstreamUnavailable, message)
    };
    match trouble {
        Trouble::Store(error) => store_problem(ask, error),
        Trouble::Invalid(message) => Problem::new(ErrorCode::ValidationError, message),
        Trouble::NotFound(message) => Problem::new(ErrorCode::RouteNotFound, message),
        Trouble::Journal(error) => unread(
            &error,
            "the audit journal cannot be read to its end, or is not as it was written: ask `linkgate audit verify`",
        ),
        Trouble::Index(IndexUnavailable::TooMuch(too_much)) => {
            Problem::new(ErrorCode::ValidationError, too_much.to_string())
        }
        Trouble::Index(error) => unread(
            &error,
            "the audit index cannot be asked now; `linkgate audit query --journal` reads the journal itself",
        ),
        Trouble::Internal(message) => {
            tracing::error!(message, "the admin API failed");
            Problem::new(ErrorCode::InternalError, "")
        }
    }
}

/// The envelope of a problem that was met before or in an operation.
pub(super) fn envelope(failure: &respond::Failure, request_id: &crate::domain::RequestId) -> Response<Full<Bytes>> {
    refusal(respond::failure(failure, request_id, None, false))
}
