//! Watches for links that end soon: a gauge for alarms, and a line in the log that names the next one.
//!
//! For operators, whether or not partners have webhooks (`store::ending` tells those). Every replica sets its own gauge;
//! the line comes with each change of the number, and once a day. It decides nothing.

use std::time::Duration;

use prometheus::IntGauge;
use tokio::time::Instant;

use crate::{
    domain::Millis,
    store::{
        Database,
        ending::{Ending, ending},
    },
};

/// How many days ahead counts as soon.
pub const SOON_DAYS: u32 = 7;
const INTERVAL: Duration = Duration::from_secs(60);
const REPEAT: Duration = Duration::from_secs(86_400);

/// Looks until dropped.
pub async fn watch(database: Database, gauge: IntGauge) {
    let mut told: Option<(usize, Instant)> = None;
    loop {
        match ending(&database, SOON_DAYS, Millis::now()).await {
            Ok(soon) => {
                gauge.set(i64::try_from(soon.len()).unwrap_or(i64::MAX));
                let news = told.is_none_or(|(count, at)| count != soon.len() || at.elapsed() > REPEAT);
                if let (true, Some(next)) = (news, soon.first()) {
                    tell(soon.len(), next);
                }
                if news {
                    told = Some((soon.len(), Instant::now()));
                }
            }
            Err(error) => tracing::warn!(%error, "links that end soon cannot be looked for"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn tell(links: usize, next: &Ending) {
    tracing::warn!(links, within_days = SOON_DAYS, next = %next.link_id, tenant = %next.managed_tenant_id,
        end = %next.end_date, "links end soon: `linkgate link list --expiring 7d` names them");
}
