//! The stage that finds the rule for a method and path. No rule, no way: the default is refusal.

use std::sync::Arc;

use http::{Method, Request, request::Parts};

use super::{inbound::Inbound, respond::Failure, routes::Route, trail::Trail, worker::Worker};
use crate::{
    config::route_table::Found,
    domain::{ErrorCode, TenantId},
};

/// Name of the parameter that names a tenant.
const TENANT_PARAM: &str = "tenant_id";

/// A request with its rule. Boxed on its way through the stages, each of which would move it otherwise.
#[derive(Debug)]
pub struct Routed {
    pub parts: Parts,
    pub body: Inbound,
    pub route: Arc<Route>,
    /// The tenant that the path names, decoded once.
    pub path_tenant: Option<TenantId>,
}

/// Finds the rule. An unknown path, an unknown method and a tenant that cannot be one are refused here.
pub fn find(worker: &Worker, trail: &mut Trail, request: Request<Inbound>) -> Result<Box<Routed>, Failure> {
    let (parts, body) = request.into_parts();
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        return Err(Failure::new(ErrorCode::MethodNotAllowed, "method"));
    }
    let routes = &worker.gateway.routes;
    let uri = parts.uri.clone();
    if routes.reads_differently(&parts.method, uri.path()) {
        return Err(Failure::new(ErrorCode::AmbiguousPath, "encoded_literal")
            .saying("ambiguous path: an encoded character would be another route for who decodes it"));
    }
    match routes.table.find(&parts.method, uri.path()) {
        Found::Route { index, params } => {
            let route = worker.rules.get(index).map(Arc::clone);
            let route = route.ok_or_else(|| Failure::new(ErrorCode::InternalError, "route_table"))?;
            let mut path_tenant = None;
            for (name, raw) in &params {
                if *name == TENANT_PARAM {
                    let decoded = super::path::decode_once(raw);
                    let tenant = decoded.and_then(|text| TenantId::new(&text).ok());
                    path_tenant = Some(tenant.ok_or_else(|| {
                        Failure::new(ErrorCode::TenantContextConflict, "path_tenant")
                            .saying("the path names a tenant that cannot be one")
                    })?);
                } else {
                    trail.resource_id = Some((*raw).into());
                }
            }
            trail.route = Some(Arc::clone(&route));
            Ok(Box::new(Routed { parts, body, route, path_tenant }))
        }
        Found::MethodNotAllowed { allow } => {
            let mut failure = Failure::new(ErrorCode::MethodNotAllowed, "method");
            failure.allow = Some(allow.to_owned());
            Err(failure)
        }
        Found::NotFound => Err(Failure::new(ErrorCode::RouteNotFound, "route")),
    }
}
