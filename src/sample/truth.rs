//! What a service holds of one tenant, raw, for tests that add it up by themselves.

use serde_json::Value;

use super::{Handle, Kind, data, network};

/// All rows of one tenant, as the service would write them; nothing of it went over a wire.
#[derive(Clone, Debug)]
pub struct Truth {
    /// The registry's object.
    pub tenant: Value,
    /// The dashboard.
    pub dashboard: Value,
    /// Newest first, in smallest units.
    pub invoices: Vec<Value>,
    /// With their messages, newest first.
    pub tickets: Vec<Value>,
    pub subscribers: Vec<Value>,
    pub breaches: Vec<Value>,
}

impl Handle {
    /// What it holds of the tenant now.
    pub fn truth(&self, tenant: &str) -> Truth {
        Truth {
            tenant: self.shared.control.tenant_row(tenant),
            dashboard: super::isp::dashboard_of(&self.shared, tenant),
            invoices: self.shared.shelf(tenant).values(),
            tickets: self.shared.tickets.all(tenant),
            subscribers: data::subscribers(tenant).collect(),
            breaches: network::breaches(tenant, tenant),
        }
    }

    /// Availability of the days from `from` on, before `to`: days (`2026-01-31`) or times.
    pub fn truth_uptime(&self, tenant: &str, from: &str, to: &str) -> Vec<Value> {
        let ends = network::moment(from).zip(network::moment(to));
        ends.and_then(|(from, to)| network::compliance(tenant, from, to, 99.9, self.shared.kind == Kind::Gen2).ok())
            .unwrap_or_default()
    }

    /// Traffic of the days from `from` on, before `to`.
    pub fn truth_usage(&self, tenant: &str, from: &str, to: &str) -> Value {
        let ends = network::moment(from).zip(network::moment(to));
        ends.map(|(from, to)| network::traffic(tenant, tenant, from, to)).unwrap_or_default()
    }
}
