//! Counters of the admin API. Label values are words of this code: patterns of paths, classes of status, roles.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use super::table::Spec;
use crate::config::settings::AdminRole;

/// For what is not known.
const NONE: &str = "none";

pub(super) struct Metrics {
    requests: IntCounterVec,
    pub(super) unauthenticated: IntCounter,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("linkgate_admin_requests_total", "Calls of the admin API by route, class of status and role"),
            &["route", "status", "role"],
        )?;
        let unauthenticated =
            IntCounter::new("linkgate_admin_unauthenticated_total", "Calls of the admin API without a valid token")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(unauthenticated.clone()))?;
        Ok(Self { requests, unauthenticated })
    }

    pub(super) fn count(&self, spec: Option<&Spec>, status: u16, role: Option<AdminRole>) {
        let class = match status / 100 {
            2 => "2xx",
            4 => "4xx",
            5 => "5xx",
            _ => "other",
        };
        let route = spec.map_or_else(|| NONE.to_owned(), Spec::label);
        self.requests.with_label_values(&[route.as_str(), class, role.map_or(NONE, AdminRole::as_str)]).inc();
    }
}
