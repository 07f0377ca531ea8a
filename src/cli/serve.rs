//! `linkgate serve`: the gateway itself, until SIGTERM or SIGINT.

use super::{
    context::{Context, chain},
    outcome::{Exit, Failure},
};
use crate::app::{self, AppError};

/// Run the gateway
///
/// SIGTERM and SIGINT drain and stop it, SIGHUP reads policies and key files again.
#[derive(clap::Args, Debug)]
pub struct ServeArgs {}

pub fn run(_: &ServeArgs, context: &Context) -> Result<(), Failure> {
    let config = context.config()?;
    app::run(config, |_| {}).map_err(|error| app_failure(&error))
}

/// Why the gateway did not start, as an exit code.
pub fn app_failure(error: &AppError) -> Failure {
    let exit = match error {
        AppError::Store(_) => Exit::Database,
        AppError::Filter(_)
        | AppError::Policies(_)
        | AppError::Identity(_)
        | AppError::Signing(_)
        | AppError::Tls(_)
        | AppError::UpstreamTls { .. }
        | AppError::Routes(_) => Exit::Invalid,
        _ => Exit::Failed,
    };
    Failure::new(exit, chain(error))
}
