//! The stage that finds out which tenant is meant (contract, section 3).
//!
//! `X-Active-Tenant-Id` names a managed tenant; `X-Tenant-ID` from a client is never believed. The context is chosen for
//! each request. A path that names a tenant must name the effective one.

use std::rc::Rc;

use http::HeaderName;

use super::{
    flow::Trail,
    headers::{Single, single},
    identify::Identified,
    respond::Failure,
    session::{Session, Who},
};
use crate::{
    config::settings::Access,
    domain::{Denial, ErrorCode, Reason, TenantId},
};

/// The header by which a client names the managed tenant.
pub const ACTIVE_TENANT: HeaderName = HeaderName::from_static("x-active-tenant-id");

/// Where a request goes, before it is decided.
#[derive(Debug)]
pub enum Scope {
    Public,
    /// `None`: the caller has no home (a platform admin).
    Home(Rc<Session>, Option<TenantId>),
    /// `tenant` is `None` where the header holds what can be no tenant id: no link can exist for it.
    Cross(Rc<Session>, Option<TenantId>),
}

/// A request with its scope.
#[derive(Debug)]
pub struct Placed {
    pub identified: Identified,
    pub scope: Scope,
}

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

/// Chooses between home and cross-tenant, and holds the path's tenant against it.
pub fn place(trail: &mut Trail, identified: Identified, named: Named) -> Result<Placed, Failure> {
    let Some(session) = identified.session.clone() else {
        return Ok(Placed { identified, scope: Scope::Public });
    };
    let home = session.caller.home_tenant.clone();
    let scope = match named {
        Named::Tenant(tenant) if home.as_ref() != Some(&tenant) => {
            trail.managed_tenant = Some(tenant.clone());
            Scope::Cross(Rc::clone(&session), Some(tenant))
        }
        Named::Impossible => Scope::Cross(Rc::clone(&session), None),
        Named::Nothing | Named::Tenant(_) => Scope::Home(Rc::clone(&session), home),
    };
    trail.cross = matches!(scope, Scope::Cross(..));
    match &session.who {
        Who::Refused(denial) => return Err((*denial).into()),
        Who::Plain if trail.cross => {
            return Err(Denial::new(ErrorCode::Forbidden, Reason::NotAPartner).into());
        }
        Who::Plain | Who::Partner(_) => {}
    }
    // Where a link decides, `no_link` stands before this gate as before every other: the decision tests both, in order.
    let by_link = trail.cross && matches!(identified.routed.route.settings.access, Access::Permission(_));
    if session.suspended && !by_link {
        return Err(Denial::new(ErrorCode::TenantAccessDenied, Reason::AccessSuspended).into());
    }
    match (identified.routed.route.settings.access, trail.cross) {
        (Access::Deny, _) => return Err(Denial::new(ErrorCode::Forbidden, Reason::RouteDenied).into()),
        (Access::Home, true) => return Err(Denial::new(ErrorCode::Forbidden, Reason::HomeOnly).into()),
        _ => {}
    }
    if let Some(path_tenant) = &identified.routed.path_tenant {
        let effective = match &scope {
            Scope::Home(_, tenant) | Scope::Cross(_, tenant) => tenant.as_ref(),
            Scope::Public => None,
        };
        if effective != Some(path_tenant) {
            return Err(Failure::new(ErrorCode::TenantContextConflict, "path_tenant")
                .saying("the path names another tenant than the request's context"));
        }
    }
    Ok(Placed { identified, scope })
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
