//! Listening sockets that were handed over at the start: socket activation, as systemd does it.
//!
//! Whoever hands them over keeps them open while the gateway restarts, so that clients which connect meanwhile wait in the
//! socket's queue instead of being refused. A socket is known by its name (`FileDescriptorName=`): `public` or `health`.
//! It must listen where the configuration says: rules of the configuration depend on the address (a development key needs
//! a loopback one), and a socket from outside must not get round them.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use listenfd::ListenFd;

/// The variable with the names of the sockets, joined by colons.
const NAMES: &str = "LISTEN_FDNAMES";

/// Why sockets that were handed over cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    #[error("a socket named `{0}` was handed over: say `FileDescriptorName=public` or `health` in the socket unit")]
    Unknown(String),
    #[error("{sockets} sockets were handed over with {names} names")]
    Unnamed { sockets: usize, names: usize },
    #[error("two sockets named `{0}` were handed over")]
    Twice(String),
    #[error("the socket `{name}` that was handed over is no listening TCP socket")]
    Unusable { name: String, source: io::Error },
    #[error(
        "the socket `{name}` that was handed over listens on `{found}`, and the configuration says `{configured}`: make them equal"
    )]
    Elsewhere { name: &'static str, found: SocketAddr, configured: SocketAddr },
    #[error("a socket `health` was handed over, and `health.enabled` is false")]
    HealthDisabled,
}

/// What was handed over; empty where nothing was.
#[derive(Debug, Default)]
pub struct Inherited {
    public: Option<TcpListener>,
    health: Option<TcpListener>,
}

impl Inherited {
    /// Takes what the environment tells of. Once, and before any thread is started: the variables are removed, so that
    /// no program that is started later takes them for its own.
    pub fn from_env() -> Result<Self, InheritError> {
        let names = std::env::var(NAMES).unwrap_or_default();
        let mut sockets = ListenFd::from_env();
        let names: Vec<&str> = names.split(':').filter(|name| !name.is_empty()).collect();
        if sockets.len() == 0 {
            return Ok(Self::default());
        }
        if sockets.len() != names.len() {
            return Err(InheritError::Unnamed { sockets: sockets.len(), names: names.len() });
        }
        let mut inherited = Self::default();
        for (at, name) in names.into_iter().enumerate() {
            let place = match name {
                "public" => &mut inherited.public,
                "health" => &mut inherited.health,
                other => return Err(InheritError::Unknown(other.to_owned())),
            };
            if place.is_some() {
                return Err(InheritError::Twice(name.to_owned()));
            }
            let unusable = |source| InheritError::Unusable { name: name.to_owned(), source };
            *place = sockets.take_tcp_listener(at).map_err(unusable)?;
        }
        Ok(inherited)
    }

    /// The socket of the public listener, if there is one; the configuration says where it must listen.
    pub fn public(&mut self, configured: SocketAddr) -> Result<Option<TcpListener>, InheritError> {
        usable("public", self.public.take(), configured)
    }

    /// The socket of the health listener; `None` in the configuration: there is to be none.
    pub fn health(&mut self, configured: Option<SocketAddr>) -> Result<Option<TcpListener>, InheritError> {
        match (self.health.take(), configured) {
            (None, _) => Ok(None),
            (Some(_), None) => Err(InheritError::HealthDisabled),
            (socket, Some(configured)) => usable("health", socket, configured),
        }
    }
}

fn usable(
    name: &'static str,
    socket: Option<TcpListener>,
    configured: SocketAddr,
) -> Result<Option<TcpListener>, InheritError> {
    let Some(socket) = socket else { return Ok(None) };
    let unusable = |source| InheritError::Unusable { name: name.to_owned(), source };
    let found = socket.local_addr().map_err(unusable)?;
    if found != configured {
        return Err(InheritError::Elsewhere { name, found, configured });
    }
    socket.set_nonblocking(true).map_err(unusable)?;
    Ok(Some(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[test]
    fn a_socket_must_listen_where_the_configuration_says() {
        let ((listener, address), (_, other)) = (listening(), listening());
        let mut inherited = Inherited { public: Some(listener), health: None };
        assert!(matches!(inherited.public(other), Err(InheritError::Elsewhere { found, .. }) if found == address));

        let (listener, address) = listening();
        let mut inherited = Inherited { public: Some(listener), health: None };
        assert_eq!(inherited.public(address).unwrap().unwrap().local_addr().unwrap(), address);
        assert!(inherited.public(address).unwrap().is_none() && inherited.health(Some(address)).unwrap().is_none());
    }

    #[test]
    fn a_health_socket_is_refused_where_there_is_to_be_no_health_listener() {
        let mut inherited = Inherited { public: None, health: Some(listening().0) };
        assert!(matches!(inherited.health(None), Err(InheritError::HealthDisabled)));
    }
}
