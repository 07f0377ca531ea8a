//! The sockets of a gateway: handed over by whoever starts it, or opened.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::error::AppError;
use crate::{config::settings::Config, server::inherited::Inherited};

/// Where the running gateway listens.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    pub public: SocketAddr,
    pub health: Option<SocketAddr>,
    pub decision: Option<SocketAddr>,
    pub admin: Option<SocketAddr>,
}

/// What is listened at.
pub(super) struct Listeners {
    pub(super) public: TcpListener,
    pub(super) health: Option<TcpListener>,
    pub(super) decision: Option<TcpListener>,
    pub(super) admin: Option<TcpListener>,
}

impl Listeners {
    pub(super) async fn open(config: &Config, mut sockets: Inherited) -> Result<Self, AppError> {
        let open = async |handed: Option<std::net::TcpListener>, address: SocketAddr| {
            let listener = match handed {
                Some(handed) => TcpListener::from_std(handed),
                None => TcpListener::bind(address).await,
            };
            listener.map_err(|source| AppError::Listen { address, source })
        };
        let address = config.listen.address;
        let public = open(sockets.public(address)?, address).await?;
        let handed = sockets.health(config.health)?;
        let health = match config.health {
            Some(address) => Some(open(handed, address).await?),
            None => None,
        };
        let decision = match &config.decision {
            Some(settings) => Some(open(None, settings.address).await?),
            None => None,
        };
        let admin = match &config.admin {
            Some(settings) => Some(open(None, settings.address).await?),
            None => None,
        };
        Ok(Self { public, health, decision, admin })
    }

    pub(super) fn addresses(&self) -> Result<Listening, AppError> {
        let address =
            |listener: &Option<TcpListener>| listener.as_ref().and_then(|listener| listener.local_addr().ok());
        Ok(Listening {
            public: self.public.local_addr().map_err(AppError::Runtime)?,
            health: address(&self.health),
            decision: address(&self.decision),
            admin: address(&self.admin),
        })
    }
}
