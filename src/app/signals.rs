//! The signals that a server obeys.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{manager, reload::Reloader};

/// From when it is made on, none of them ends the process by itself.
pub(super) struct Signals {
    term: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Only so that it ends nothing: a write beyond the size that a file may have fails instead, and is told.
    _file_size: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            _file_size: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    /// Reloads on SIGHUP; returns on SIGTERM or SIGINT.
    pub(super) async fn until_stop(mut self, reloader: &Reloader) {
        loop {
            tokio::select! {
                _ = self.term.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    manager::reloading();
                    reloader.reload("sighup").await;
                    manager::ready();
                }
            }
        }
    }
}
