//! Logs: JSON or text on standard error, one line a request, never a token, query value or secret.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::settings::LogSettings;

/// The filter in the configuration cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("`log.filter` cannot be read: write `info` or `info,linkgate=debug`")]
pub struct InvalidFilter(#[from] tracing_subscriber::filter::ParseError);

/// Sets the process's subscriber; a second call in one process keeps the first.
pub fn init(settings: &LogSettings) -> Result<(), InvalidFilter> {
    let filter = EnvFilter::try_new(&settings.filter)?;
    let registry = tracing_subscriber::registry().with(filter);
    let set = if settings.json {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()
    } else {
        let text = fmt::layer().with_writer(std::io::stderr);
        // In a file or a log collector colours are noise, and hide words from a search.
        let text = if std::io::stderr().is_terminal() { text } else { text.with_ansi(false) };
        registry.with(text).try_init()
    };
    if set.is_err() {
        tracing::debug!("logging was set up before; it stays as it is");
    }
    Ok(())
}
