//! The stage that finds out which tenant is meant (contract, section 3).
//!
//! `X-Active-Tenant-Id` names a managed tenant; `X-Tenant-ID` from a client is never believed. The context is chosen for
//! each request. A path that names a tenant must name the effective one.

use std::rc::Rc;

use super::{
    active_tenant::Named,
    identify::Identified,
    respond::Failure,
    session::{Session, Who},
    trail::Trail,
};
use crate::{
    config::settings::Access,
    domain::{Denial, ErrorCode, Reason, TenantId},
};

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
