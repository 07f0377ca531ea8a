//! Active health checks: a request of the gateway's own to each endpoint, on a connection of its own, without credentials.
//!
//! Checked are the shared endpoints, and those of a tenant's own address where its name has several: one alone is used
//! however it is. An endpoint counts as healthy until so many checks in a row say otherwise. Each cluster is checked in
//! rounds of its own, and a tenant's take few turns at once: whoever hangs delays no other's.

use std::{future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http::{HeaderValue, Request, header};
use http_body_util::Full;
use tokio::{sync::Semaphore, time::Instant};

use super::{cluster::Cluster, endpoint::Endpoint, settings::HealthCheck, shared::SharedPool, table::Upstream};

const USER_AGENT: HeaderValue = HeaderValue::from_static("linkgate-health-check");
/// Checks at once, of the shared endpoints, and of those of all tenants together.
pub(super) const CHECKS: usize = 64;
/// Of these, one tenant's.
const CHECKS_OF_A_TENANT: usize = 4;

/// Checks all endpoints of a cluster, again and again. `turns`: of tenants' checks.
pub(super) async fn watch(
    upstream: Arc<Upstream>,
    cluster: Arc<Cluster>,
    settings: HealthCheck,
    turns: Arc<Semaphore>,
) {
    let shared = cluster.is_shared();
    let at_once = if shared { CHECKS } else { CHECKS_OF_A_TENANT };
    loop {
        let began = Instant::now();
        let members = cluster.members();
        if shared || members.len() > 1 {
            members.iter().for_each(|endpoint| endpoint.checked.watch());
            let turns = (!shared).then_some(&*turns);
            let check = |endpoint: &Arc<Endpoint>| in_turn(&upstream, Arc::clone(endpoint), &settings, turns);
            let checks: Vec<_> = members.iter().map(check).collect();
            stream::iter(checks).buffer_unordered(at_once).for_each(|()| std::future::ready(())).await;
        }
        tokio::time::sleep_until(began + jittered(settings.interval, fastrand::f64())).await;
    }
}

/// A tenth more or less, so that replicas do not ask all at the same moment. `lot`: 0 to 1.
fn jittered(interval: Duration, lot: f64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * lot)
}

async fn in_turn(upstream: &Upstream, endpoint: Arc<Endpoint>, settings: &HealthCheck, turns: Option<&Semaphore>) {
    let _turn = match turns {
        Some(turns) => turns.acquire().await.ok(),
        None => None,
    };
    check(upstream, &endpoint, settings).await;
}

async fn check(upstream: &Upstream, endpoint: &Endpoint, settings: &HealthCheck) {
    let asked = tokio::time::timeout(settings.timeout, ask(upstream, endpoint, settings)).await;
    let result = asked.unwrap_or_else(|_| Err("no answer in time".to_owned()));
    let tally = upstream.tally();
    match &result {
        Ok(()) => tally.checks_good.add(),
        Err(_) => tally.checks_bad.add(),
    }
    if !endpoint.checked.found(result.is_ok(), settings.healthy_threshold, settings.unhealthy_threshold) {
        return;
    }
    let (upstream, origin, address) = (&upstream.name, endpoint.origin(), endpoint.address());
    match result {
        Ok(()) => tracing::info!(%upstream, %origin, %address, "an endpoint is healthy again"),
        Err(why) => tracing::warn!(%upstream, %origin, %address, why, "an endpoint is unhealthy: its checks fail"),
    }
}

async fn ask(upstream: &Upstream, endpoint: &Endpoint, settings: &HealthCheck) -> Result<(), String> {
    let request = Request::get(settings.path.as_str())
        .header(header::HOST, endpoint.host())
        .header(header::USER_AGENT, USER_AGENT)
        .body(Full::new(Bytes::new()))
        .map_err(|error| error.to_string())?;
    // A pool of its own: an old connection would say nothing of whether new ones can be had. It is closed at the end.
    let sent = SharedPool::default().send(endpoint, upstream, request, false, &|| future::ready(true).boxed()).await;
    let (response, _lease) = sent.map_err(|unanswered| {
        let source = std::error::Error::source(&unanswered.error).map(|source| format!(": {source}"));
        format!("{}{}", unanswered.error, source.unwrap_or_default())
    })?;
    let status = response.status().as_u16();
    if settings.expected_statuses.contains(&status) { Ok(()) } else { Err(format!("status {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_the_interval_give_or_take_a_tenth() {
        let interval = Duration::from_secs(10);
        assert_eq!(jittered(interval, 0.0), Duration::from_secs(9));
        assert_eq!(jittered(interval, 0.5), interval);
        assert!((10_999..=11_000).contains(&jittered(interval, 1.0).as_millis()));
    }
}
