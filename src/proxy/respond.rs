//! The one place that turns a refusal or failure into a response (contract, section 7).
//!
//! A message never names a tenant, link or policy that the caller may not know of: the only id told back is one that
//! the caller sent. The full reason stands in the audit record.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::body::ResponseBody;
use crate::domain::{Denial, ErrorCode, Reason, RequestId};

/// A request that ends without an upstream's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: ErrorCode,
    pub reason: Option<Reason>,
    /// The word for the audit record and the log where the reason says too little; never told to the caller.
    pub detail: &'static str,
    /// Seconds for `Retry-After`.
    pub retry_after: Option<u32>,
    /// Methods for `Allow`.
    pub allow: Option<String>,
    /// A message of its own, free of secrets.
    pub message: Option<String>,
    /// What is wrong with each field of a query or body, by its name.
    pub fields: Vec<(String, String)>,
}

impl Failure {
    pub fn new(code: ErrorCode, detail: &'static str) -> Self {
        Self { code, reason: None, detail, retry_after: None, allow: None, message: None, fields: Vec::new() }
    }

    /// The same with a message for the caller.
    #[must_use]
    pub fn saying(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// The word that the audit record keeps.
    pub fn word(&self) -> &'static str {
        self.reason.map_or(if self.detail.is_empty() { self.code.as_str() } else { self.detail }, Reason::as_str)
    }
}

impl From<Denial> for Failure {
    fn from(denial: Denial) -> Self {
        Self { reason: denial.reason, ..Self::new(denial.code, "") }
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: ErrorBody<'a>,
    #[serde(flatten)]
    plain: Option<Plain<'a>>,
}

/// What older clients read of an error: the text from `message`, else `detail`; the code from `code`.
#[derive(Serialize)]
struct Plain<'a> {
    code: &'static str,
    message: &'a str,
    detail: &'a str,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'static str,
    message: &'a str,
    details: Details<'a>,
    request_id: &'a str,
    timestamp: String,
}

#[derive(Serialize)]
struct Details<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// One entry a field.
    #[serde(flatten)]
    fields: BTreeMap<&'a str, &'a str>,
}

/// Renders a failure. `named_tenant`: the tenant id as the caller sent it. `compatible`: with what older clients read.
pub fn failure(
    failure: &Failure,
    request_id: &RequestId,
    named_tenant: Option<&str>,
    compatible: bool,
) -> Response<ResponseBody> {
    let now = jiff::Timestamp::now();
    let fields = failure.fields.iter().map(|(field, message)| (field.as_str(), message.as_str())).collect();
    let message = failure.message.as_deref().unwrap_or_else(|| message(failure.code, failure.reason));
    let code = failure.code.as_str();
    let body = Envelope {
        plain: compatible.then_some(Plain { code, message, detail: message }),
        error: ErrorBody {
            code,
            message,
            details: Details {
                // A field may be called like it: the entries of fields stand alone.
                tenant_id: named_tenant.filter(|_| failure.fields.is_empty()),
                reason: failure.reason.map(Reason::as_str),
                fields,
            },
            request_id: request_id.as_str(),
            timestamp: format!("{now:.0}"),
        },
    };
    // The body holds only strings, so writing it as JSON cannot fail; an empty body would still be a refusal.
    let bytes = serde_json::to_vec(&body).unwrap_or_default();
    let mut response = Response::new(ResponseBody::Full(Some(Bytes::from(bytes))));
    *response.status_mut() = StatusCode::from_u16(failure.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if failure.code == ErrorCode::Unauthorized {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(seconds) = failure.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(allow) = failure.allow.as_deref().and_then(|allow| HeaderValue::from_str(allow).ok()) {
        headers.insert(header::ALLOW, allow);
    }
    response
}

/// What a caller reads; each says what they can do about it.
fn message(code: ErrorCode, reason: Option<Reason>) -> &'static str {
    match reason {
        Some(Reason::NoLink) => "your organisation has no access to this tenant",
        Some(Reason::AccessSuspended) => "access is suspended; ask the operator of this platform",
        Some(Reason::PartnerInactive) => "your organisation is not active on this platform",
        Some(Reason::LinkPending) => "access to this tenant is not approved",
        Some(Reason::LinkInactive) => "access to this tenant was ended",
        Some(Reason::LinkNotStarted) => "access to this tenant has not started yet",
        Some(Reason::IpNotAllowed) => "access to this tenant is not allowed from your network address",
        Some(Reason::MfaRequired) => "access to this tenant needs a log-in with a second factor",
        Some(Reason::Permission) => "you lack the permission for this",
        Some(Reason::Override) => "this permission was taken away for this tenant",
        Some(Reason::Guardrail) => "a security policy forbids this",
        Some(Reason::HomeOnly) => "this is available in your own tenant only; send no X-Active-Tenant-Id",
        Some(Reason::RouteDenied) => "this route is closed",
        Some(Reason::NotAPartner) => "this needs an active partner account",
        Some(Reason::IdentityConflict) => "the token and the registered account contradict each other",
        None => code_message(code),
    }
}

fn code_message(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Unauthorized => "a valid bearer token is needed",
        ErrorCode::Forbidden => "this is forbidden",
        ErrorCode::TenantAccessDenied => "access to this tenant is denied",
        ErrorCode::TenantLinkExpired => "access to this tenant has expired",
        ErrorCode::TenantNotFound => "no such tenant",
        ErrorCode::InvoiceNotFound => "no such invoice",
        ErrorCode::TicketNotFound => "no such ticket",
        ErrorCode::ExportNotFound => "no such export",
        ErrorCode::AlertNotFound => "no such alert",
        ErrorCode::RouteNotFound => "no such route",
        ErrorCode::TenantContextRequired => "name the tenant with X-Active-Tenant-Id",
        ErrorCode::TenantContextConflict => "the request names its tenant in contradicting or malformed ways",
        ErrorCode::AmbiguousPath => "the path can be read in more than one way; send it in its plain form",
        ErrorCode::BadRequest => "the request is malformed",
        ErrorCode::MethodNotAllowed => "this method is not allowed here",
        ErrorCode::Conflict => "this contradicts what is stored",
        ErrorCode::PayloadTooLarge => "the request body is too large",
        ErrorCode::ValidationError => "some fields are invalid",
        ErrorCode::PermissionEscalation => "an override cannot grant more than the link's role",
        ErrorCode::RateLimitExceeded => "too many requests; wait and try again",
        ErrorCode::InternalError => "something failed here; the request id helps the operator to find it",
        ErrorCode::UpstreamError => "the service behind the gateway failed",
        ErrorCode::UpstreamUnavailable => "the service behind the gateway is not available",
        ErrorCode::AuditUnavailable => "the request was refused because it could not be recorded",
        ErrorCode::PolicyUnavailable => "the request was refused because it could not be decided",
        ErrorCode::LinksStale => "the request was refused because access rights could not be confirmed just now",
        ErrorCode::UpstreamTimeout => "the service behind the gateway took too long",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_and_reason_has_an_envelope_and_a_message() {
        let id = RequestId::from_client("r-1").unwrap();
        for code in ErrorCode::ALL {
            let response = failure(&Failure::new(*code, ""), &id, Some("t"), false);
            assert_eq!(response.status().as_u16(), code.status());
            let ResponseBody::Full(Some(bytes)) = response.into_body() else { panic!("no body") };
            let body: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(body["error"]["code"], code.as_str());
            assert!(!body["error"]["message"].as_str().unwrap().is_empty());
            assert_eq!(body["error"]["request_id"], "r-1");
            assert!(body["error"]["timestamp"].as_str().unwrap().ends_with('Z'));
        }
        for reason in Reason::ALL {
            let response = failure(&Denial::new(ErrorCode::Forbidden, reason).into(), &id, None, true);
            let ResponseBody::Full(Some(bytes)) = response.into_body() else { panic!("no body") };
            let body: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(body["error"]["details"]["reason"], reason.as_str());
            assert_eq!((&body["message"], &body["code"]), (&body["error"]["message"], &body["error"]["code"]));
        }
    }

    #[test]
    fn entries_of_fields_stand_alone() {
        let id = RequestId::from_client("r-1").unwrap();
        let mut refused = Failure::new(ErrorCode::ValidationError, "");
        refused.fields = vec![("tenant_id".into(), "is no field of this request".into())];
        let ResponseBody::Full(Some(bytes)) = failure(&refused, &id, Some("t"), false).into_body() else {
            panic!("no body")
        };
        let text = std::str::from_utf8(&bytes).unwrap();
        assert_eq!(text.matches("\"tenant_id\"").count(), 1, "{text}");
    }
}
