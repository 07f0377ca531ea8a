//! The error codes of section 7 and the HTTP status of each.

use std::fmt;

macro_rules! codes {
    ($($name:ident $text:literal $status:literal),+ $(,)?) => {
        /// A code of the contract's section 7.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($name),+ }

        impl ErrorCode {
            pub const ALL: &[Self] = &[$(Self::$name),+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// The HTTP status of this code.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status),+ }
            }
        }
    };
}

codes! {
    Unauthorized "UNAUTHORIZED" 401,
    Forbidden "FORBIDDEN" 403,
    TenantAccessDenied "TENANT_ACCESS_DENIED" 403,
    TenantLinkExpired "TENANT_LINK_EXPIRED" 403,
    TenantNotFound "TENANT_NOT_FOUND" 404,
    InvoiceNotFound "INVOICE_NOT_FOUND" 404,
    TicketNotFound "TICKET_NOT_FOUND" 404,
    ExportNotFound "EXPORT_NOT_FOUND" 404,
    AlertNotFound "ALERT_NOT_FOUND" 404,
    RouteNotFound "ROUTE_NOT_FOUND" 404,
    TenantContextRequired "TENANT_CONTEXT_REQUIRED" 400,
    TenantContextConflict "TENANT_CONTEXT_CONFLICT" 400,
    AmbiguousPath "AMBIGUOUS_PATH" 400,
    BadRequest "BAD_REQUEST" 400,
    MethodNotAllowed "METHOD_NOT_ALLOWED" 405,
    Conflict "CONFLICT" 409,
    PayloadTooLarge "PAYLOAD_TOO_LARGE" 413,
    ValidationError "VALIDATION_ERROR" 422,
    PermissionEscalation "PERMISSION_ESCALATION" 422,
    RateLimitExceeded "RATE_LIMIT_EXCEEDED" 429,
    InternalError "INTERNAL_ERROR" 500,
    UpstreamError "UPSTREAM_ERROR" 502,
    UpstreamUnavailable "UPSTREAM_UNAVAILABLE" 503,
    AuditUnavailable "AUDIT_UNAVAILABLE" 503,
    PolicyUnavailable "POLICY_UNAVAILABLE" 503,
    LinksStale "LINKS_STALE" 503,
    UpstreamTimeout "UPSTREAM_TIMEOUT" 504,
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
