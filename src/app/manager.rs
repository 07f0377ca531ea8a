//! Tells the service manager (systemd, `Type=notify`) how the gateway is. Without one nothing is said.

use sd_notify::NotifyState;

/// It serves.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Policies and keys are read again; followed by [`ready`], whatever became of it: the old ones serve on.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the clock that the service manager asks for cannot be read"),
    }
}

/// It drains.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    // It would wait, and in the end say so itself: the gateway serves all the same.
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
