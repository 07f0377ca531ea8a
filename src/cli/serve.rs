//! `linkgate serve`: the gateway itself, until SIGTERM or SIGINT.

use super::{
    context::{Context, chain},
    outcome::{Exit, Failure},
};
use crate::{
    app::{self, AppError},
    server::inherited::Inherited,
};

/// Run the gateway
///
/// SIGTERM and SIGINT drain and stop it, SIGHUP reads configuration, policies and key files again, as does a change of the
/// configuration or policy files; what is wrong changes nothing. Listening sockets that systemd hands over (named `public`
/// and `health`) are used instead of opening them.
#[derive(clap::Args, Debug)]
pub struct ServeArgs {}

pub fn run(_: &ServeArgs, context: &Context) -> Result<(), Failure> {
    // Before any thread is started.
    let sockets = Inherited::from_env().map_err(|error| app_failure(&AppError::from(error)))?;
    let config = context.config()?;
    app::run_on(config, context.config_source(), sockets, |_| {}).map_err(|error| app_failure(&error))
}

/// Why the gateway did not start, as an exit code.
pub fn app_failure(error: &AppError) -> Failure {
    let exit = match error {
        AppError::Store(_) => Exit::Database,
        AppError::Filter(_)
        | AppError::Policies(_)
        | AppError::Inherit(_)
        | AppError::Identity(_)
        | AppError::Signing(_)
        | AppError::Tls(_)
        | AppError::UpstreamTls { .. }
        | AppError::Routes(_) => Exit::Invalid,
        _ => Exit::Failed,
    };
    Failure::new(exit, chain(error))
}
