//! A consolidated request on its way into the portal, and what comes back.
//!
//! The proxy room has identified the caller and decided each tenant's slice by then; a [`Granted`] slice can be made
//! from a permit only, and nothing here is fetched without one (I7).

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::mpsc;

use super::{endpoint::Spec, standing::Standing};
use crate::{
    audit::SliceOutcome,
    domain::{
        DecisionId, Denial, ErrorCode, LinkFacts, Millis, Permission, PermissionSet, Portfolio, TenantId, Trace,
        UserFacts,
        link_rules::{FieldError, Refusal},
    },
    policy::TenantPermit,
};

/// One tenant's slice that may be read or acted in, by this permission, in this request.
#[derive(Clone, Debug)]
pub struct Granted {
    link: Arc<LinkFacts>,
    also: PermissionSet,
    trace: Arc<Trace>,
}

impl Granted {
    /// The permit is used up by it: one decision, one slice. `also`: which permissions of [`Spec::also`] were allowed
    /// too, each by a decision of its own. `trace`: of the request or job that it was decided for.
    pub fn new(link: Arc<LinkFacts>, _decided: TenantPermit, also: PermissionSet, trace: Arc<Trace>) -> Self {
        Self { link, also, trace }
    }

    /// Which further permissions of the endpoint's were allowed on this slice.
    pub fn further(&self) -> PermissionSet {
        self.also
    }

    /// Whether a further permission of the endpoint's was allowed on this slice.
    pub fn also(&self, permission: &str) -> bool {
        Permission::parse(permission).is_some_and(|permission| self.also.contains(permission))
    }

    pub fn link(&self) -> &Arc<LinkFacts> {
        &self.link
    }

    pub fn tenant(&self) -> &TenantId {
        &self.link.link.tenant_id
    }

    /// The record of the request was opened: what is asked from now on names it.
    pub fn recorded(&mut self, trace: &Arc<Trace>) {
        self.trace = Arc::clone(trace);
    }

    pub fn trace(&self) -> &Arc<Trace> {
        &self.trace
    }
}

/// One tenant's slice as it was decided.
#[derive(Clone, Debug)]
pub enum Slice {
    /// Live; the endpoint asks for no permission, and nothing may be fetched for it.
    Live(Arc<LinkFacts>),
    Granted(Granted),
    /// Live, and its role, overrides or a guardrail do not allow this: `forbidden` in `sources`.
    Forbidden {
        link: Arc<LinkFacts>,
        denial: Denial,
    },
}

impl Slice {
    pub fn link(&self) -> &Arc<LinkFacts> {
        match self {
            Self::Granted(granted) => granted.link(),
            Self::Live(link) | Self::Forbidden { link, .. } => link,
        }
    }
}

/// A partner's side of who asks.
#[derive(Clone, Debug)]
pub struct AskingPartner {
    pub user: UserFacts,
    /// Partner and all its links, live or not.
    pub portfolio: Arc<Portfolio>,
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The token's `sub`.
    pub user_id: Arc<str>,
    /// Empty for the legacy issuer.
    pub issuer: Arc<str>,
    pub home_tenant: Option<TenantId>,
    pub username: Option<Arc<str>>,
    /// `None` for a tenant's administrator.
    pub partner: Option<AskingPartner>,
    /// First instant at which the token is no longer valid.
    pub expires_at: Millis,
    pub ip: IpAddr,
    pub mfa: bool,
}

/// One consolidated request, decided.
#[derive(Debug)]
pub struct Call {
    pub spec: &'static Spec,
    /// The path's parameter, decoded once.
    pub param: Option<String>,
    /// The query as it came, without the question mark.
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub asker: Asker,
    /// Live links, ascending by tenant id, narrowed by `tenant_ids` where the query has it. Links that are not live are
    /// no sources.
    pub slices: Vec<Slice>,
    /// The tenant that the header names, where the endpoint heeds it.
    pub active: Option<TenantId>,
    pub now: Millis,
    /// By which names the upstreams hear of it.
    pub trace: Arc<Trace>,
    pub decision_id: DecisionId,
    /// Asked again before anything is done that waited.
    pub standing: Arc<dyn Standing>,
}

impl Call {
    pub fn granted(&self) -> impl Iterator<Item = &Granted> {
        self.slices.iter().filter_map(|slice| match slice {
            Slice::Granted(granted) => Some(granted),
            Slice::Live(_) | Slice::Forbidden { .. } => None,
        })
    }

    /// The partner that asks; a fault of ours where an endpoint of partners was reached by somebody else.
    pub fn partner(&self) -> Result<&AskingPartner, Problem> {
        self.asker.partner.as_ref().ok_or_else(|| Problem::new(ErrorCode::InternalError, ""))
    }

    /// The client wants no cached slices.
    pub fn no_cache(&self) -> bool {
        let values = self.headers.get_all(http::header::CACHE_CONTROL);
        values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|directive| {
            directive.trim().eq_ignore_ascii_case("no-cache") || directive.trim().eq_ignore_ascii_case("no-store")
        })
    }
}

/// What the client gets.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: ReplyBody,
    /// How each slice ended, for the audit record.
    pub slices: Vec<SliceOutcome>,
}

/// The answer's body.
#[derive(Debug)]
pub enum ReplyBody {
    Bytes(Bytes),
    /// Sent as it comes, from a task of the service runtime; an error breaks the answer off.
    Stream {
        length: Option<u64>,
        chunks: mpsc::Receiver<std::io::Result<Bytes>>,
    },
}

impl Reply {
    /// A JSON document. That it cannot be written is a fault of ours.
    pub fn json(status: u16, value: &impl serde::Serialize) -> Result<Self, Problem> {
        let body = serde_json::to_vec(value).map_err(|error| {
            tracing::error!(%error, "an answer cannot be written as JSON");
            Problem::new(
                ErrorCode::InternalError,
                "something failed here; the request id helps the operator to find it",
            )
        })?;
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        Ok(Self { status, headers, body: ReplyBody::Bytes(body.into()), slices: Vec::new() })
    }

    #[must_use]
    pub fn with_slices(mut self, slices: Vec<SliceOutcome>) -> Self {
        self.slices = slices;
        self
    }
}

/// Why there is no such answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub code: ErrorCode,
    /// The refusal of one link, told as the link's own.
    pub denial: Option<Denial>,
    /// Free of secrets, and of names that the caller did not send. Empty: the code's or the denial's usual message.
    pub message: Cow<'static, str>,
    /// `VALIDATION_ERROR`: one entry a field.
    pub fields: Vec<FieldError>,
    pub slices: Vec<SliceOutcome>,
    /// The word for the record where code and denial say too little.
    pub detail: &'static str,
    /// The request was refused after all, and nothing was done: its record says so. A refusal that came when a part was
    /// done does not undo it.
    pub overturns: bool,
    /// In seconds, where it is worth another try.
    pub retry_after: Option<u32>,
}

impl Problem {
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        let overturns = code.status() == 403;
        let (fields, slices) = (Vec::new(), Vec::new());
        Self { code, denial: None, message: message.into(), fields, slices, detail: "", overturns, retry_after: None }
    }

    pub fn invalid(fields: Vec<FieldError>) -> Self {
        Self { fields, ..Self::new(ErrorCode::ValidationError, "") }
    }

    #[must_use]
    pub fn with_slices(mut self, slices: Vec<SliceOutcome>) -> Self {
        self.slices = slices;
        self
    }
}

impl From<Denial> for Problem {
    fn from(denial: Denial) -> Self {
        Self { denial: Some(denial), ..Self::new(denial.code, "") }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self { fields: refusal.fields, ..Self::new(refusal.code, refusal.message) }
    }
}
