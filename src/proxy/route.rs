//! The stage that finds the rule for a method and path. No rule, no way: the default is refusal.

use std::sync::Arc;

use http::{Method, Request, request::Parts};

use super::{flow::Trail, inbound::Inbound, respond::Failure, worker::Worker};
use crate::{
    config::{
        pattern::{Pattern, Segment},
        route_table::{Found, RouteTable},
        settings::{Access, RouteSettings},
    },
    domain::{ErrorCode, TenantId},
    upstream::Upstream,
};

/// One rule with what it needs at hand.
#[derive(Clone, Debug)]
pub struct Route {
    pub settings: RouteSettings,
    /// `None` only for `deny`.
    pub upstream: Option<Arc<Upstream>>,
    /// Place in the table; indexes the metrics.
    pub index: usize,
    /// What the audit record calls the resource: the last literal segment before the last parameter.
    pub resource_type: Option<Box<str>>,
}

/// Name of the parameter that names a tenant.
const TENANT_PARAM: &str = "tenant_id";

/// All rules, compiled.
#[derive(Debug)]
pub struct Routes {
    table: RouteTable,
    rules: Vec<Arc<Route>>,
}

/// The table cannot be built; every reason at once.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct InvalidRoutes(pub Vec<String>);

impl Routes {
    pub fn compile(settings: &[RouteSettings], upstreams: &[Arc<Upstream>]) -> Result<Self, InvalidRoutes> {
        let table = RouteTable::compile(settings)
            .map_err(|conflicts| InvalidRoutes(conflicts.iter().map(ToString::to_string).collect()))?;
        let mut missing = Vec::new();
        let rules = settings
            .iter()
            .enumerate()
            .map(|(index, rule)| {
                let upstream = rule
                    .upstream
                    .as_ref()
                    .and_then(|name| upstreams.iter().find(|upstream| upstream.settings.name == *name).map(Arc::clone));
                if upstream.is_none() && rule.access != Access::Deny {
                    missing.push(format!("line {}: `{}` names no known upstream", rule.line, rule.path));
                }
                Arc::new(Route { settings: rule.clone(), upstream, index, resource_type: resource_type(&rule.path) })
            })
            .collect();
        if missing.is_empty() { Ok(Self { table, rules }) } else { Err(InvalidRoutes(missing)) }
    }

    /// Whether an upstream that decodes the path would see another rule's path (`%3A` for `:` in a literal).
    fn reads_differently(&self, method: &Method, path: &str) -> bool {
        if !path.contains('%') {
            return false;
        }
        let Some(decoded) = super::path::decode_once(path) else { return true };
        let rule = |path: &str| match self.table.find(method, path) {
            Found::Route { index, .. } => Some(Some(index)),
            Found::MethodNotAllowed { .. } => Some(None),
            Found::NotFound => None,
        };
        rule(path) != rule(&decoded)
    }

    /// The rules for one worker's own use: each counts its holders, and a count that all workers change with every
    /// request would go from core to core.
    pub fn rules_of_worker(&self) -> Box<[Arc<Route>]> {
        self.rules.iter().map(|rule| Arc::new((**rule).clone())).collect()
    }

    pub fn len(&self) -> usize {
        self.rules.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.rules.iter()
    }
}

fn resource_type(path: &str) -> Option<Box<str>> {
    let pattern = Pattern::parse(path).ok()?;
    let mut last = None;
    let mut at_param = None;
    for segment in pattern.segments() {
        match segment {
            Segment::Literal(text) if !text.is_empty() => last = Some(text.clone()),
            Segment::Literal(_) => {}
            Segment::Param(_) | Segment::Tail(_) => at_param = last.clone(),
        }
    }
    at_param.or(last)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_named_by_the_literal_before_its_id() {
        for (path, expected) in [
            ("/api/isp/v1/tickets/", Some("tickets")),
            ("/api/isp/v1/tickets/{ticket_id}", Some("tickets")),
            ("/api/isp/v1/tickets/{ticket_id}/messages", Some("tickets")),
            ("/tenants/{tenant_id}", Some("tenants")),
            ("/{*rest}", None),
        ] {
            assert_eq!(resource_type(path).as_deref(), expected, "{path}");
        }
    }
}
