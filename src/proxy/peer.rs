//! The connection that a request came on: who is at its other end, and the switch that ends it from outside.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    task::{Context, Waker},
};

use http::HeaderValue;

use super::certificate::ClientCertificate;

/// The connection that a request came on.
#[derive(Clone, Debug)]
pub struct Peer {
    pub ip: IpAddr,
    /// The address as `X-Forwarded-For` has it.
    pub forwarded_for: HeaderValue,
    pub switch: Rc<ConnectionSwitch>,
    /// What the client showed, where TLS ends here.
    pub certificate: Option<Rc<ClientCertificate>>,
}

/// Ends a client connection from outside. A tunnel holds it for as long as it uses the connection.
///
/// All of it is one thread's own: to look at it is to read a cell, which the connection does whenever it is polled.
#[derive(Debug)]
pub struct ConnectionSwitch {
    asked: Cell<Asked>,
    waker: RefCell<Option<Waker>>,
    /// Given back when nobody uses the connection any more: its place among the open ones.
    _place: Box<dyn std::any::Any>,
}

/// What a connection is asked to do; it never takes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    Nothing,
    /// Finish what is open and end.
    Drain,
    /// End at once.
    End,
}

impl ConnectionSwitch {
    pub fn new(place: impl std::any::Any) -> Self {
        Self { asked: Cell::new(Asked::Nothing), waker: RefCell::default(), _place: Box::new(place) }
    }

    pub fn kill(&self) {
        self.ask(Asked::End);
    }

    pub fn drain(&self) {
        self.ask(Asked::Drain);
    }

    fn ask(&self, what: Asked) {
        self.asked.set(self.asked.get().max(what));
        let waker = self.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What is asked now. The task is woken when more is; only the connection's own task calls this.
    pub fn asked(&self, cx: &Context<'_>) -> Asked {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.asked.get()
    }
}
