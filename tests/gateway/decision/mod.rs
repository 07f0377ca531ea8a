//! linkgate as the decision point of other proxies: `grpc`, `http` and `authzen` speak to it themselves, `fronts` start real
//! proxies with the configurations that ship.

mod authzen;
mod fronts;
mod grpc;
mod http;
pub mod process;
mod shipped;
mod stalled;
mod tracing;

use std::net::SocketAddr;

use serde_json::Value;

use super::rig::{CALLERS, Rig, Setup};

/// Secret of the caller `edge`, a proxy.
pub const EDGE: &str = CALLERS[0].1;
/// Secret of the caller `pdp`, a service that vouches for users.
pub const PDP: &str = CALLERS[1].1;

/// A gateway with a listener for decisions.
pub fn rig() -> Rig {
    rig_with(Setup::default())
}

pub fn rig_with(setup: Setup) -> Rig {
    let section = r#"
[decision]
address = "127.0.0.1:0"
[decision.callers.edge]
secret_env = "TEST_EDGE_SECRET"
[decision.callers.pdp]
secret_env = "TEST_PDP_SECRET"
authzen = true
"#;
    Rig::with(Setup { extra: format!("{}{section}", setup.extra), ..setup })
}

/// One at which `edge` is not known.
pub fn rig_without_edge() -> Rig {
    let section = "[decision]\naddress = \"127.0.0.1:0\"\n[decision.callers.pdp]\nsecret_env = \"TEST_PDP_SECRET\"\n";
    Rig::with(Setup { extra: section.into(), ..Setup::default() })
}

pub fn listener(rig: &Rig) -> SocketAddr {
    rig.decision.expect("there is a listener for decisions")
}

/// The record with this id, once it is complete.
pub fn record(rig: &Rig, id: &str) -> Value {
    let mut found = Value::Null;
    process::eventually(&format!("a completed record {id}"), || {
        let all = rig.records().into_iter();
        found = all.into_iter().find(|record| record["id"] == id && record["lines"] == 2).unwrap_or_default();
        !found.is_null()
    });
    found
}

/// The value of a metric's line, or 0.
pub fn metric(rig: &Rig, line: &str) -> u64 {
    let text = rig.health("/metrics").text();
    text.lines().find_map(|known| known.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0)
}
