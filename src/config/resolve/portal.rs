//! The section `portal`: where the consolidated API stands, and that no route stands under it.

use std::time::Duration;

use super::{FieldPath, Resolver, millis, seconds};
use crate::config::{
    pattern::{Pattern, Segment},
    raw::portal::{RawAlerts, RawPortal},
    settings::{PortalSettings, ReadSettings, RouteSettings},
};

impl Resolver<'_> {
    pub(super) fn portal(
        &mut self,
        raw: &RawPortal,
        alerts: &RawAlerts,
        routes: &[RouteSettings],
        connected: bool,
    ) -> Option<PortalSettings> {
        let alerts = self.alerts(alerts, connected);
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
        let mut compatible = Vec::new();
        for (at, text) in raw.compatibility_base_paths.iter().enumerate() {
            let field = table.key("compatibility_base_paths").index(at);
            match base(text) {
                Ok(()) if bases.contains(text) || compatible.contains(text) || *text == raw.tenant_base_path => {
                    self.fail(&field, "is a base path already");
                }
                Ok(()) => compatible.push(text.clone()),
                Err(message) => self.fail(&field, message),
            }
        }
        let all: Vec<&String> = bases.iter().chain(&compatible).chain([&raw.tenant_base_path]).collect();
        for rule in routes {
            if let Some(base) = all.iter().find(|base| stands_under(&rule.path, base)) {
                self.fail(
                    &table.key("base_paths"),
                    format!("the route `{}` can never match: `{base}` belongs to the consolidated API", rule.path),
                );
            }
        }
        let reads = self.reads(raw);
        Some(PortalSettings {
            base_paths: bases,
            tenant_base_path: raw.tenant_base_path.clone(),
            tenant_admin_roles: raw.tenant_admin_roles.clone(),
            alerts,
            max_rows_per_source: u64::try_from(
                self.at_least_one(&table.key("max_rows_per_source"), raw.max_rows_per_source),
            )
            .unwrap_or(u64::MAX),
            compatibility_base_paths: compatible,
            reads,
        })
    }

    fn reads(&mut self, raw: &RawPortal) -> ReadSettings {
        let table = FieldPath::default().key("portal");
        let deadline = self.duration(&table.key("deadline"), &raw.deadline, millis(50)..=seconds(3_600));
        let source_timeout =
            self.duration(&table.key("source_timeout"), &raw.source_timeout, millis(50)..=seconds(3_600));
        if source_timeout > deadline {
            self.fail(&table.key("source_timeout"), "is longer than `deadline`: no answer could wait for it");
        }
        let concurrency = self.concurrency(&table.key("concurrency"), raw.concurrency);
        let concurrency_per_upstream =
            self.concurrency(&table.key("concurrency_per_upstream"), raw.concurrency_per_upstream);
        let concurrency_total = self.concurrency(&table.key("concurrency_total"), raw.concurrency_total);
        if raw.hedge_percent > 20 {
            self.fail(&table.key("hedge_percent"), "is out of range: 0 to 20");
        }
        let pause = millis(100)..=seconds(3600);
        let breaker_pause = self.duration(&table.key("breaker_pause"), &raw.breaker_pause, pause);
        let age = Duration::ZERO..=seconds(86_400);
        let slice_fresh = self.duration(&table.key("slice_fresh"), &raw.slice_fresh, age.clone());
        let max_slice_age = self.duration(&table.key("max_slice_age"), &raw.max_slice_age, age.clone());
        let max_stale_age = self.duration(&table.key("max_stale_age"), &raw.max_stale_age, age);
        if slice_fresh > max_slice_age {
            self.fail(&table.key("slice_fresh"), "is longer than `max_slice_age`");
        }
        if max_slice_age > max_stale_age {
            self.fail(&table.key("max_slice_age"), "is longer than `max_stale_age`");
        }
        let memory = 1024 * 1024..=1024 * 1024 * 1024 * 1024;
        let slice_cache_bytes = self.size(&table.key("slice_cache"), &raw.slice_cache, memory);
        ReadSettings {
            deadline,
            source_timeout,
            concurrency,
            concurrency_per_upstream,
            concurrency_total,
            hedge_percent: raw.hedge_percent,
            breaker_failures: raw.breaker_failures,
            breaker_pause,
            slice_fresh,
            max_slice_age,
            max_stale_age,
            slice_cache_bytes,
        }
    }

    pub(super) fn concurrency(&mut self, field: &FieldPath, number: u32) -> usize {
        if !(1..=65_536).contains(&number) {
            self.fail(field, "is out of range: 1 to 65536");
        }
        usize::try_from(number.clamp(1, 65_536)).unwrap_or(1)
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
