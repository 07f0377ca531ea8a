//! The rules of the route table, compiled, each with what it needs at hand.

use std::sync::Arc;

use http::Method;

use crate::{
    config::{
        pattern::{Pattern, Segment},
        route_table::{Found, RouteTable},
        settings::{Access, RouteSettings},
    },
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

/// All rules, compiled.
#[derive(Debug)]
pub struct Routes {
    pub(super) table: RouteTable,
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
    pub(super) fn reads_differently(&self, method: &Method, path: &str) -> bool {
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
