//! What an upstream needs unasked: its names looked up anew, its endpoints checked. Once a process, on the service runtime,
//! for the configuration in force; ends when dropped.
//!
//! Each cluster has rounds of its own. Tenants' take turns, so that what they cost is bounded; but a name that nobody
//! answers for soon waits for its turn among its like, and none of another's rounds waits for it.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{clock, cluster::Cluster, health, table::Upstream};

/// Look-ups of tenants' names at once, of one upstream.
const LOOKUPS: usize = 16;
/// The same of those that were not answered at once the last time. They may take as long as a look-up may.
const SLOW_LOOKUPS: usize = 16;
/// What is answered at once.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Shortest pause between rounds, however often a connection fails; and the pause while a name has no address at all.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// The tasks of all upstreams of one configuration.
#[derive(Debug, Default)]
pub struct Upkeep {
    tasks: JoinSet<()>,
}

impl Upkeep {
    /// Starts them on the runtime that it is called on: their configuration comes into force.
    pub fn start<'u>(upstreams: impl IntoIterator<Item = &'u Arc<Upstream>>) -> Self {
        let mut tasks = JoinSet::new();
        for upstream in upstreams {
            upstream.take_over();
            let turns = Arc::new(Turns::default());
            for cluster in upstream.clusters().filter(|cluster| cluster.is_named()) {
                tasks.spawn(look_up(Arc::clone(upstream), Arc::clone(cluster), Arc::clone(&turns)));
            }
            let Some(check) = &upstream.settings.health_check else { continue };
            let turns = Arc::new(Semaphore::new(health::CHECKS));
            // An address of a tenant's that is no name is alone, and used however it is.
            for cluster in upstream.clusters().filter(|cluster| cluster.is_shared() || cluster.is_named()) {
                tasks.spawn(health::watch(
                    Arc::clone(upstream),
                    Arc::clone(cluster),
                    check.clone(),
                    Arc::clone(&turns),
                ));
            }
        }
        Self { tasks }
    }

    /// Waits until one of them ends, which none should.
    pub async fn one_ended(mut self) {
        match self.tasks.join_next().await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::error!(%error, "a look-up or check of an upstream ended"),
            None => std::future::pending().await,
        }
    }
}

/// Whose turn it is among the look-ups of tenants' names.
#[derive(Debug)]
struct Turns {
    quick: Semaphore,
    slow: Semaphore,
}

impl Default for Turns {
    fn default() -> Self {
        Self { quick: Semaphore::new(LOOKUPS), slow: Semaphore::new(SLOW_LOOKUPS) }
    }
}

/// Looks the names of a cluster up, again and again.
async fn look_up(upstream: Arc<Upstream>, cluster: Arc<Cluster>, turns: Arc<Turns>) {
    let shared = cluster.is_shared();
    let soon = upstream.settings.dns_refresh.min(MIN_PAUSE);
    let mut answered = true;
    loop {
        let began = Instant::now();
        if cluster.is_due() {
            answered = round(&upstream, &cluster, &turns, answered).await;
        }
        let unknown = shared && cluster.members().is_empty();
        let pause = if unknown { soon } else { upstream.settings.dns_refresh };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // A tenant's name that nobody answers for is not asked for before its time, whoever fails to connect.
            () = cluster.moved(), if shared || answered => tokio::time::sleep_until(began + soon).await,
        }
    }
}

/// Whether there was an answer at once. `before`: whether there was one the last time.
async fn round(upstream: &Upstream, cluster: &Cluster, turns: &Turns, before: bool) -> bool {
    let look_up = || cluster.refresh(upstream.resolver(), upstream.tally());
    if cluster.is_shared() {
        look_up().await;
        return true;
    }
    if before {
        let Ok(_turn) = turns.quick.acquire().await else { return false };
        if timeout(AT_ONCE, look_up()).await.is_ok() {
            return true;
        }
    }
    let Ok(_turn) = turns.slow.acquire().await else { return false };
    let began = Instant::now();
    look_up().await;
    began.elapsed() <= AT_ONCE
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
        for cluster in self.clusters() {
            let (members, shared) = (cluster.members(), cluster.is_shared());
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

#[cfg(test)]
#[path = "upkeep_tests.rs"]
mod tests;
