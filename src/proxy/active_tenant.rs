//! The header by which a client names a managed tenant, and what it may say.

use http::HeaderName;

use super::{
    headers::{Single, single},
    respond::Failure,
};
use crate::domain::{ErrorCode, TenantId};

/// The header by which a client names the managed tenant.
pub const ACTIVE_TENANT: HeaderName = HeaderName::from_static("x-active-tenant-id");

/// What the header says; tested before the caller is looked at (order of checks: token, tenant header, identity).
#[derive(Debug)]
pub enum Named {
    Nothing,
    Tenant(TenantId),
    /// A well-formed value that no tenant can have as its id.
    Impossible,
}

/// Reads `X-Active-Tenant-Id`. Empty, repeated or comma-joined is a conflict.
pub fn named(headers: &http::HeaderMap) -> Result<Named, Failure> {
    let conflict = |why: &str| Failure::new(ErrorCode::TenantContextConflict, "active_tenant_header").saying(why);
    match single(headers, ACTIVE_TENANT) {
        Single::Absent => Ok(Named::Nothing),
        Single::Repeated => Err(conflict("X-Active-Tenant-Id stands more than once")),
        Single::One(value) => {
            let text =
                std::str::from_utf8(value.as_bytes()).map_err(|_| conflict("X-Active-Tenant-Id is not valid UTF-8"))?;
            // Not trimmed beyond what HTTP trims: ids are compared byte for byte.
            if text.trim_ascii().is_empty() {
                return Err(conflict("X-Active-Tenant-Id is empty"));
            }
            if text.contains(',') {
                return Err(conflict("X-Active-Tenant-Id names more than one tenant"));
            }
            Ok(TenantId::new(text).map_or(Named::Impossible, Named::Tenant))
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn header(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACTIVE_TENANT, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn malformed_tenant_headers_are_conflicts() {
        for bad in [&[&b""[..]][..], &[b" "], &[b"a", b"a"], &[b"a,b"], &[b","], &[b"\xff"]] {
            let failure = named(&header(bad)).unwrap_err();
            assert_eq!(failure.code, ErrorCode::TenantContextConflict, "{bad:?}");
        }
    }

    #[test]
    fn any_other_value_names_a_tenant_or_none_at_all() {
        assert!(matches!(named(&HeaderMap::new()), Ok(Named::Nothing)));
        assert!(
            matches!(named(&header(&["tenant-ü".as_bytes()])), Ok(Named::Tenant(tenant)) if tenant.as_str() == "tenant-ü")
        );
        assert!(matches!(named(&header(&["x".repeat(256).as_bytes()])), Ok(Named::Impossible)));
    }
}
