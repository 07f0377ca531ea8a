//! `linkgate migrate`: bring the database's schema to this binary's version.

use clap::Args;

use super::{
    outcome::{Console, Failure},
    store_context::runtime,
};
use crate::{config::settings::DatabaseSettings, store::Database};

/// Create or update the tables of the configured database.
///
/// Running it again does nothing. Servers may use the database meanwhile, and several may migrate it at once.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Change nothing; fail (exit code 7) unless the database is up to date
    #[arg(long)]
    check: bool,
}

pub fn run(args: &MigrateArgs, database: &DatabaseSettings, console: &Console) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let db = Database::open(database).await?;
        if !args.check {
            db.migrate().await?;
        }
        db.check_migrated().await?;
        db.close().await;
        Ok::<_, Failure>(())
    })?;
    console.show(&serde_json::json!({"migrated": true}), "the database is up to date")
}
