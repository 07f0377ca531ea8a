//! One address behind an upstream: what it is called, where it is, how busy and how well it is.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
};

use http::HeaderValue;

use super::{outlier::Outlier, settings::Origin};
use crate::tls;

/// One address of one configured endpoint. Shared by all workers, and by the configurations of before and after a reload.
#[derive(Debug)]
pub struct Endpoint {
    /// Another one for each endpoint that there ever was: connections are kept by it, so that none serves another origin,
    /// another address or another tenant's endpoint.
    id: u64,
    origin: Origin,
    address: SocketAddr,
    host: HeaderValue,
    /// Requests under way, where there is a choice between endpoints.
    active: AtomicUsize,
    pub(super) outlier: Outlier,
    pub(super) checked: Checked,
}

impl Endpoint {
    pub fn new(origin: &Origin, address: SocketAddr) -> Arc<Self> {
        // The configuration has tested the authority; an empty `Host` would be refused by every service.
        let host = HeaderValue::from_str(&origin.authority).unwrap_or(HeaderValue::from_static(""));
        Arc::new(Self {
            id: tls::unique(),
            origin: origin.clone(),
            address,
            host,
            active: AtomicUsize::new(0),
            outlier: Outlier::default(),
            checked: Checked::default(),
        })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// As configured.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The value of `Host`.
    pub fn host(&self) -> &HeaderValue {
        &self.host
    }

    pub(super) fn active(&self) -> usize {
        self.active.load(Relaxed)
    }

    /// Neither ejected nor found unhealthy.
    pub(super) fn is_available(&self, now: u64) -> bool {
        !self.checked.is_unhealthy() && !self.outlier.is_ejected(now)
    }
}

/// The endpoint chosen for one request; counted among its requests under way until dropped.
#[derive(Debug)]
pub struct Picked {
    endpoint: Arc<Endpoint>,
    /// Whether there was a choice: only then is anything counted.
    weighed: bool,
}

impl Picked {
    /// The only one that there is.
    pub(super) fn only(endpoint: &Arc<Endpoint>) -> Self {
        Self { endpoint: Arc::clone(endpoint), weighed: false }
    }

    pub(super) fn weighed(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.active.fetch_add(1, Relaxed);
        Self { endpoint: Arc::clone(endpoint), weighed: true }
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn is_weighed(&self) -> bool {
        self.weighed
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        if self.weighed {
            self.endpoint.active.fetch_sub(1, Relaxed);
        }
    }
}

/// What active checks found. Written by one task at a time.
#[derive(Debug, Default)]
pub(super) struct Checked {
    unhealthy: AtomicBool,
    /// Somebody checks it: what a check of before finds after the last one was told to end says nothing.
    watched: AtomicBool,
    /// Checks in a row that contradict it.
    against: AtomicU32,
}

impl Checked {
    pub(super) fn is_unhealthy(&self) -> bool {
        self.unhealthy.load(Relaxed) && self.watched.load(Relaxed)
    }

    /// From now on somebody checks it.
    pub(super) fn watch(&self) {
        if !self.watched.swap(true, Relaxed) {
            self.unhealthy.store(false, Relaxed);
        }
    }

    /// Takes a check's result in. True: the endpoint's state has changed.
    pub(super) fn found(&self, good: bool, healthy_threshold: u32, unhealthy_threshold: u32) -> bool {
        let unhealthy = self.is_unhealthy();
        if good != unhealthy {
            self.against.store(0, Relaxed);
            return false;
        }
        let needed = if unhealthy { healthy_threshold } else { unhealthy_threshold };
        if self.against.fetch_add(1, Relaxed).saturating_add(1) < needed {
            return false;
        }
        self.against.store(0, Relaxed);
        self.unhealthy.store(!unhealthy, Relaxed);
        true
    }

    /// Nobody checks any more.
    pub(super) fn forget(&self) {
        self.watched.store(false, Relaxed);
        self.unhealthy.store(false, Relaxed);
        self.against.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_in_a_row_change_the_state_and_one_between_them_does_not() {
        let checked = Checked::default();
        checked.watch();
        let found = |good| (checked.found(good, 2, 3), checked.is_unhealthy());
        assert_eq!(found(false), (false, false));
        assert_eq!(found(false), (false, false));
        assert_eq!(found(true), (false, false));
        assert_eq!([found(false), found(false)], [(false, false); 2], "counted from the beginning");
        assert_eq!(found(false), (true, true));
        assert_eq!([found(true), found(false), found(true)], [(false, true); 3]);
        assert_eq!(found(true), (true, false));
    }

    #[test]
    fn a_check_that_ends_after_the_last_one_was_called_off_says_nothing() {
        let checked = Checked::default();
        checked.watch();
        assert!(checked.found(false, 1, 1) && checked.is_unhealthy());
        checked.forget();
        checked.found(false, 1, 1);
        assert!(!checked.is_unhealthy());
        checked.watch();
        assert!(!checked.is_unhealthy(), "nor to whoever checks next");
    }
}
