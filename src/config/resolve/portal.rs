//! The section `portal`: where the consolidated API stands, and that no route stands under it.

use super::{FieldPath, Resolver};
use crate::config::{
    pattern::{Pattern, Segment},
    raw_portal::{RawAlerts, RawPortal},
    settings::{PortalSettings, RouteSettings},
};

impl Resolver<'_> {
    pub(super) fn portal(
        &mut self,
        raw: &RawPortal,
        alerts: &RawAlerts,
        routes: &[RouteSettings],
    ) -> Option<PortalSettings> {
        let alerts = self.alerts(alerts);
        if !raw.enabled {
            return None;
        }
        let table = FieldPath::default().key("portal");
        if raw.base_paths.is_empty() {
            self.fail(
                &table.key("base_paths"),
                "at least one base path is needed; to switch the API off: enabled = false",
            );
        }
        let mut bases = Vec::new();
        for (at, text) in raw.base_paths.iter().enumerate() {
            let field = table.key("base_paths").index(at);
            match base(text) {
                Ok(()) if bases.contains(text) => self.fail(&field, "stands twice"),
                Ok(()) => bases.push(text.clone()),
                Err(message) => self.fail(&field, message),
            }
        }
        let tenant = table.key("tenant_base_path");
        match base(&raw.tenant_base_path) {
            Ok(()) if bases.contains(&raw.tenant_base_path) => self.fail(&tenant, "is a base path of partners too"),
            Ok(()) => {}
            Err(message) => self.fail(&tenant, message),
        }
        if raw.tenant_admin_roles.iter().any(String::is_empty) {
            self.fail(&table.key("tenant_admin_roles"), "holds an empty role");
        }
        let all: Vec<&String> = bases.iter().chain([&raw.tenant_base_path]).collect();
        for rule in routes {
            if let Some(base) = all.iter().find(|base| stands_under(&rule.path, base)) {
                self.fail(
                    &table.key("base_paths"),
                    format!("the route `{}` can never match: `{base}` belongs to the consolidated API", rule.path),
                );
            }
        }
        Some(PortalSettings {
            base_paths: bases,
            tenant_base_path: raw.tenant_base_path.clone(),
            tenant_admin_roles: raw.tenant_admin_roles.clone(),
            alerts,
            max_rows_per_source: u64::try_from(
                self.at_least_one(&table.key("max_rows_per_source"), raw.max_rows_per_source),
            )
            .unwrap_or(u64::MAX),
        })
    }
}

/// A base path is a pattern of literals.
fn base(text: &str) -> Result<(), String> {
    let pattern = Pattern::parse(text).map_err(|error| error.to_string())?;
    let plain = |segment: &Segment| matches!(segment, Segment::Literal(text) if !text.is_empty());
    if pattern.segments().iter().all(plain) {
        Ok(())
    } else {
        Err("a base path has literal segments only and no slash at its end, such as `/api/v1/partner`".to_owned())
    }
}

/// Whether every path of the pattern lies below the base.
fn stands_under(pattern: &str, base: &str) -> bool {
    pattern.strip_prefix(base).is_some_and(|rest| rest.starts_with('/'))
}
