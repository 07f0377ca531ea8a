//! Counting what waits in the database, for metrics, as long as somebody may look at them.

use std::{sync::Arc, time::Duration};

use super::{
    metrics::Metrics,
    webhooks::deliver::{jittered, random},
};
use crate::{
    domain::Millis,
    store::{Census, Database},
};

/// How old the counts may be that a scraper sees.
const INTERVAL: Duration = Duration::from_secs(10);

/// Counts again and again.
#[derive(Debug)]
pub struct Counting {
    database: Database,
    metrics: Arc<Metrics>,
}

impl Counting {
    pub fn new(database: &Database, metrics: &Arc<Metrics>) -> Self {
        Self { database: database.clone(), metrics: Arc::clone(metrics) }
    }

    /// Counts until dropped. What cannot be counted keeps its last value, and its age shows.
    pub async fn run(self) {
        loop {
            match Census::take(&self.database).await {
                Ok(census) => self.metrics.count(&census, Millis::now()),
                Err(error) => {
                    tracing::warn!(%error, "alerts, deliveries, exports and suspensions cannot be counted for metrics")
                }
            }
            tokio::time::sleep(jittered(INTERVAL, random())).await;
        }
    }
}
