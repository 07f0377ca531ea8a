//! What an upstream needs unasked: its names looked up anew, its endpoints checked. Once a process, on the service runtime,
//! for the configuration in force; ends when dropped.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::{task::JoinSet, time::Instant};

use super::{clock, cluster::Cluster, health, table::Upstream};

/// Look-ups of one upstream at once.
const LOOKUPS: usize = 16;
/// Longest wait for one; names that are not answered keep the addresses known before.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest pause between rounds, however often a connection fails; and the pause while a name has no address at all.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// The tasks of all upstreams of one configuration.
#[derive(Debug, Default)]
pub struct Upkeep {
    _tasks: JoinSet<()>,
}

impl Upkeep {
    /// Starts them on the runtime that it is called on: their configuration comes into force.
    pub fn start<'u>(upstreams: impl IntoIterator<Item = &'u Arc<Upstream>>) -> Self {
        let mut tasks = JoinSet::new();
        for upstream in upstreams {
            upstream.take_over();
            if upstream.clusters().any(|(cluster, _)| cluster.is_named()) {
                tasks.spawn(look_up(Arc::clone(upstream)));
            }
            if let Some(check) = &upstream.settings.health_check {
                tasks.spawn(health::watch(Arc::clone(upstream), check.clone()));
            }
        }
        Self { _tasks: tasks }
    }
}

/// Looks names up, again and again.
async fn look_up(upstream: Arc<Upstream>) {
    loop {
        let began = Instant::now();
        let known = round(&upstream).await;
        let pause = if known { upstream.settings.dns_refresh } else { upstream.settings.dns_refresh.min(MIN_PAUSE) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = upstream.moved() => tokio::time::sleep_until(began + upstream.settings.dns_refresh.min(MIN_PAUSE)).await,
        }
    }
}

/// False: the shared endpoints have no address at all.
async fn round(upstream: &Upstream) -> bool {
    let mut lookups = Vec::new();
    for (cluster, shared) in upstream.clusters() {
        if cluster.is_named() && cluster.is_due(shared) {
            lookups.push(refresh(upstream, cluster));
        }
    }
    stream::iter(lookups).buffer_unordered(LOOKUPS).for_each(|()| std::future::ready(())).await;
    upstream.clusters().all(|(cluster, shared)| !shared || !cluster.members().is_empty())
}

async fn refresh(upstream: &Upstream, cluster: &Cluster) {
    let refreshed = cluster.refresh(upstream.resolver(), upstream.tally());
    if tokio::time::timeout(LOOKUP_TIMEOUT, refreshed).await.is_err() {
        upstream.tally().resolution_failures.add();
        tracing::warn!(upstream = %upstream.name,
            "host names were not looked up in time; the addresses known before stay in use");
    }
}

/// One configured endpoint as the metrics show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// As configured; empty for those of tenants, which are counted together.
    pub endpoint: String,
    pub healthy: usize,
    pub ejected: usize,
    pub unhealthy: usize,
}

impl Upstream {
    /// How the endpoints are now: one entry for each configured one that is shared, one for all of tenants.
    pub fn standing(&self) -> Vec<Standing> {
        let now = clock::now();
        let mut found: Vec<Standing> = Vec::new();
        for (cluster, shared) in self.clusters() {
            let members = cluster.members();
            for origin in cluster.origins() {
                let endpoint = if shared { origin.to_string() } else { String::new() };
                let at = found.iter().position(|known| known.endpoint == endpoint).unwrap_or_else(|| {
                    found.push(Standing { endpoint, ..Standing::default() });
                    found.len() - 1
                });
                let Some(entry) = found.get_mut(at) else { continue };
                for member in members.iter().filter(|member| member.origin() == origin) {
                    if member.checked.is_unhealthy() {
                        entry.unhealthy += 1;
                    } else if member.outlier.is_ejected(now) {
                        entry.ejected += 1;
                    } else {
                        entry.healthy += 1;
                    }
                }
            }
        }
        found
    }
}
