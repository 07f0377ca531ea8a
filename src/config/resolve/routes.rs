//! The route table's rules: what each needs, where it goes, and whether they can stand together.

use std::collections::BTreeMap;

use super::{FieldPath, Resolver, audit::durability};
use crate::{
    audit::settings::AuditSettings,
    config::{
        errors::nearest,
        raw::route::{RawAccess, RawClass, RawRoute},
        raw::upstream::RawUpstream,
        route_conflict::RouteConflict,
        route_table::RouteTable,
        settings::{Access, RouteClass, RouteSettings},
    },
    domain::permission::Kind,
};

/// Paths that the gateway answers itself.
const RESERVED: &str = "/.well-known/linkgate";

/// Largest body limit that can be configured: 1 TiB.
const MAX_BODY: u64 = 1 << 40;

impl Resolver<'_> {
    pub(super) fn routes(
        &mut self,
        raw: &[RawRoute],
        upstreams: &BTreeMap<String, RawUpstream>,
        audit: &AuditSettings,
    ) -> Vec<RouteSettings> {
        let section = FieldPath::default().key("routes");
        let routes: Vec<_> =
            raw.iter().enumerate().map(|(at, one)| self.route(&section.index(at), one, upstreams, audit)).collect();
        if let Err(conflicts) = RouteTable::compile(&routes) {
            for conflict in conflicts {
                let rule = section.index(conflict.index());
                let field = match &conflict {
                    RouteConflict::Method { .. } | RouteConflict::NoMethods { .. } => rule.key("methods"),
                    _ => rule.key("path"),
                };
                self.fail(&field, conflict.to_string());
            }
        }
        routes
    }

    fn route(
        &mut self,
        at: &FieldPath,
        raw: &RawRoute,
        upstreams: &BTreeMap<String, RawUpstream>,
        audit: &AuditSettings,
    ) -> RouteSettings {
        if raw.path == RESERVED || raw.path.starts_with(&format!("{RESERVED}/")) {
            self.fail(&at.key("path"), format!("`{RESERVED}` belongs to the gateway itself"));
        }
        let access = self.access(at, raw);
        let class = raw.class.map_or_else(|| default_class(access, &raw.methods), class);
        let by_class = match class {
            RouteClass::Read => audit.reads,
            RouteClass::Write | RouteClass::Export => audit.writes,
        };
        RouteSettings {
            methods: raw.methods.clone(),
            path: raw.path.clone(),
            access,
            upstream: self.route_upstream(at, raw, access, upstreams),
            class,
            durability: raw.durability.map_or(by_class, durability),
            max_body_bytes: self.size(&at.key("max_body"), &raw.max_body, 0..=MAX_BODY),
            response_timeout: raw
                .response_timeout
                .as_ref()
                .map(|text| self.response_wait(&at.key("response_timeout"), text)),
            total_timeout: raw.total_timeout.as_ref().map(|text| self.response_wait(&at.key("total_timeout"), text)),
            refuse_body_fields: self.pointers(&at.key("refuse_body_fields"), &raw.refuse_body_fields),
            keep_cache_control: raw.keep_cache_control,
            line: self.line_of(at),
        }
    }

    fn access(&mut self, at: &FieldPath, raw: &RawRoute) -> Access {
        match (&raw.permission, raw.access) {
            (Some(_), Some(_)) => {
                self.fail(&at.key("access"), "stands beside `permission`: a route has one of them");
                Access::Deny
            }
            (Some(name), None) => {
                let permission = self.permission(&at.key("permission"), name);
                permission.map_or(Access::Deny, Access::Permission)
            }
            (None, Some(RawAccess::Home)) => Access::Home,
            (None, Some(RawAccess::Public)) => Access::Public,
            (None, Some(RawAccess::Deny)) => Access::Deny,
            (None, None) => {
                if !self.was_reported(&at.key("access")) {
                    self.fail(
                        &at.key("permission"),
                        "is missing: name a permission, or `access` as `home`, `public` or `deny`",
                    );
                }
                Access::Deny
            }
        }
    }

    fn route_upstream(
        &mut self,
        at: &FieldPath,
        raw: &RawRoute,
        access: Access,
        upstreams: &BTreeMap<String, RawUpstream>,
    ) -> Option<String> {
        let field = at.key("upstream");
        let denies = raw.access == Some(RawAccess::Deny);
        match &raw.upstream {
            None if denies || access == Access::Deny => None,
            None => {
                self.fail(&field, "is missing: name an upstream");
                None
            }
            Some(_) if denies => {
                self.fail(&field, "a `deny` route goes nowhere: name no upstream");
                None
            }
            Some(name) => {
                // If the whole section was mistyped, one error is enough.
                if !upstreams.contains_key(name) && !self.was_reported(&FieldPath::default().key("upstreams")) {
                    let near = nearest(name, upstreams.keys().map(String::as_str));
                    let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                    self.fail(&field, format!("there is no upstream `{name}`{hint}"));
                }
                Some(name.clone())
            }
        }
    }

    fn pointers(&mut self, field: &FieldPath, raw: &[String]) -> Vec<String> {
        for (place, pointer) in raw.iter().enumerate() {
            let escapes =
                pointer.match_indices('~').all(|(at, _)| matches!(pointer.as_bytes().get(at + 1), Some(b'0' | b'1')));
            if !pointer.starts_with('/') || !escapes {
                self.fail(
                    &field.index(place),
                    format!("`{pointer}` is no JSON pointer: write for example `/tenant_id`"),
                );
            }
        }
        raw.to_vec()
    }
}

fn class(raw: RawClass) -> RouteClass {
    match raw {
        RawClass::Read => RouteClass::Read,
        RawClass::Write => RouteClass::Write,
        RawClass::Export => RouteClass::Export,
    }
}

/// From the permission's kind; without one, a route that serves only safe methods reads.
fn default_class(access: Access, methods: &[String]) -> RouteClass {
    match access {
        Access::Permission(permission) => match permission.kind() {
            Kind::Read | Kind::Context => RouteClass::Read,
            Kind::Write => RouteClass::Write,
            Kind::Export => RouteClass::Export,
        },
        Access::Home | Access::Public | Access::Deny => {
            let safe = |method: &String| matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS");
            if methods.iter().all(safe) { RouteClass::Read } else { RouteClass::Write }
        }
    }
}
