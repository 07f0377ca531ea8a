//! Open files: how many this process may have, and what is kept back for those who must always get in.
//!
//! A connection takes one, and another one to an upstream while a request is under way. Where all are taken nobody gets
//! in any more, operators and probes least of all, and waits without a word in the queue of the socket. So the public
//! listener and the one for decisions never get the last ones: they close what comes beyond.

use std::{io, time::Duration};

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::{config::settings::Config, proxy::seldom::Seldom};

/// Beside clients and upstreams: database, journal, watchers, files of exports, and [`KEPT_FREE`].
const RESERVE: u64 = 256;
/// The health and the admin listener have at most 64 connections each.
const KEPT_FREE: u64 = 128;

/// Before accepting is tried again: some may have come back.
const PAUSE: Duration = Duration::from_millis(50);

/// Most files that this process may have open.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors(u64);

/// Open connections that clients may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub public: usize,
    pub decisions: usize,
}

impl Room {
    fn configured(config: &Config) -> Self {
        let decisions = config.decision.as_ref().map_or(0, |settings| settings.max_connections);
        Self { public: config.listen.max_connections, decisions }
    }

    fn needs(self) -> u64 {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        count(self.public).saturating_mul(2).saturating_add(count(self.decisions))
    }

    /// As much of each.
    fn shrunk(self, free: u64) -> Self {
        let needs = u128::from(self.needs().max(1));
        let part = |number: usize| {
            let part = number as u128 * u128::from(free) / needs;
            usize::try_from(part).unwrap_or(usize::MAX).clamp(1, number.max(1))
        };
        Self { public: part(self.public), decisions: part(self.decisions) }
    }
}

impl Descriptors {
    /// Raises the soft limit of this process to the hard one. The usual soft one of 1,024 is for programs that cannot
    /// work with more (`select`), which this one can.
    pub fn raise() -> io::Result<()> {
        let limit = getrlimit(Resource::Nofile);
        if limit.current == limit.maximum {
            return Ok(());
        }
        Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
    }

    /// As they are in force.
    pub fn of_this_process() -> Self {
        Self(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }

    /// As they are once the soft limit is raised.
    pub fn at_most() -> Self {
        Self(getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX))
    }

    /// What of the connections that the configuration allows can be served.
    pub fn room(self, config: &Config) -> Room {
        let wanted = Room::configured(config);
        // Two for each client are more than are in use but for moments, and the last ones are kept free in any case: where
        // that fits, nothing is cut off for what goes beyond it.
        let two_each = Room { decisions: 0, ..wanted }.needs();
        if two_each <= self.0 { wanted } else { wanted.shrunk(self.0.saturating_sub(RESERVE).max(self.0 / 4)) }
    }

    /// Whether so many are open that no client gets a further one. The kernel gives the lowest free number, so a number
    /// tells how many are open at the least.
    pub(super) fn is_short(self, newest: i32) -> bool {
        u64::try_from(newest).unwrap_or_default() >= self.0.saturating_sub(KEPT_FREE).max(self.0 / 2)
    }

    /// Where they do not do for the connections that the configuration allows: how many do, and what to do.
    pub fn warning(self, config: &Config) -> Option<String> {
        let (wanted, room) = (Room::configured(config), self.room(config));
        if wanted == room {
            return None;
        }
        let decisions = match wanted.decisions {
            0 => String::new(),
            most => format!(", and `decision.max_connections` is {most}: {} are", room.decisions),
        };
        Some(format!(
            "`listen.max_connections` is {}: {} are served at once, for this process may have {} files open (hard limit)\
             {decisions}. Allow {} (LimitNOFILE= of a systemd unit, `ulimit -Hn` of a shell, `--ulimit nofile=` of a \
             container), or lower it",
            wanted.public,
            room.public,
            self.0,
            wanted.needs().saturating_add(RESERVE)
        ))
    }
}

/// Connections of one listener that could not be accepted.
#[derive(Debug)]
pub(super) struct Unaccepted {
    listener: &'static str,
    told: Seldom,
}

impl Unaccepted {
    pub(super) const fn at(listener: &'static str) -> Self {
        Self { listener, told: Seldom::new() }
    }

    /// Tells of it, not each time, and waits a moment instead of spinning.
    pub(super) async fn one_more(&self, error: &io::Error) {
        if let Some(times) = self.told.due(std::time::Instant::now()) {
            let listener = self.listener;
            if matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE)) {
                tracing::warn!(listener, %error, times,
                    "connections wait: too many files are open; allow this process more (LimitNOFILE=, `ulimit -Hn`)");
            } else {
                tracing::warn!(listener, %error, times, "a connection could not be accepted; this is the last of them");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_as_many_as_files_allow() {
        let wanted = Room { public: 10_000, decisions: 1_000 };
        assert_eq!(wanted.needs(), 21_000);
        assert_eq!(wanted.shrunk(2_100), Room { public: 1_000, decisions: 100 });
        assert_eq!(wanted.shrunk(0), Room { public: 1, decisions: 1 });
        let alone = Room { public: 10_000, decisions: 0 };
        assert_eq!(alone.shrunk(768).public, 384);
        let few = Descriptors(1_024);
        assert!(!few.is_short(895) && few.is_short(896));
        // So few that the reserve is more than all: some get in all the same.
        assert!(!Descriptors(100).is_short(49) && Descriptors(100).is_short(50));
    }
}
