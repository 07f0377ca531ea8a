//! The TLS handshake of a client: bounded in time, in number and in what it takes of a worker.
//!
//! The client's first message is awaited without any arithmetic. Then it is one handshake's turn: its expensive step (key
//! exchange, signature) is done, the worker looks after everything else that is ready, and only then the next one has its
//! turn. So a storm of new connections makes handshakes wait, not requests. What does not speak TLS gets an alert and is
//! closed.

use std::{
    future::poll_fn,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::{
    Error, HandshakeKind, ServerConnection,
    pki_types::CertificateDer,
    server::{Acceptor, ServerConfig},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use crate::{
    domain::Millis,
    tls::{H2, ServerTls},
};

/// One worker's gate to its TLS connections; or a whole listener's, where there are no workers.
#[derive(Debug)]
pub struct Gate {
    tls: Arc<ServerTls>,
    /// Shared by all gates of a listener.
    in_progress: Arc<AtomicUsize>,
    turn: Semaphore,
}

/// A finished handshake.
#[derive(Debug)]
pub struct Secured<T> {
    pub stream: TlsStream<T>,
    /// ALPN chose HTTP/2. Otherwise it is HTTP/1: without ALPN there is no HTTP/2 over TLS (RFC 9113, section 3.2).
    pub http2: bool,
    /// The client's verified chain; empty: it showed none.
    pub chain: Vec<CertificateDer<'static>>,
    /// The load of files by which the chain was judged, and until when that holds, in seconds since 1970: no time at all where
    /// a session of before goes on, in which it was not judged anew.
    pub judged: (u64, i64),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("too many handshakes are in progress")]
    Limit,
    #[error("the handshake took too long")]
    Timeout,
    #[error("the handshake failed")]
    Failed(#[from] io::Error),
}

impl Refused {
    /// The word for the metric: one of a few.
    pub fn label(&self) -> &'static str {
        let error = match self {
            Self::Limit => return "limit",
            Self::Timeout => return "timeout",
            Self::Failed(error) => error,
        };
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match tls {
            Some(Error::InvalidMessage(_)) => "not_tls",
            Some(
                Error::InvalidCertificate(_) | Error::NoCertificatesPresented | Error::InvalidCertRevocationList(_),
            ) => "client_certificate",
            // The client does not like our certificate, or wants none of what we offer.
            Some(Error::AlertReceived(_)) => "client_refused",
            Some(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => "incompatible",
            Some(_) => "misbehaved",
            None => "broken_off",
        }
    }
}

/// Every result that is counted.
pub const RESULTS: [&str; 9] = [
    "ok",
    "limit",
    "timeout",
    "not_tls",
    "client_certificate",
    "client_refused",
    "incompatible",
    "misbehaved",
    "broken_off",
];

/// Counts a handshake in progress down, however it ends.
struct InProgress(Arc<AtomicUsize>);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    pub fn new(tls: Arc<ServerTls>, in_progress: Arc<AtomicUsize>) -> Self {
        Self { tls, in_progress, turn: Semaphore::new(1) }
    }

    /// Whether a chain that was good when its connection began still is: by the clock, roots and revocation lists of now.
    pub fn still_trusts(&self, chain: &[CertificateDer<'_>]) -> bool {
        chain.is_empty() || self.tls.current().still_trusts(chain).is_ok()
    }

    /// Makes a connection secure, or ends it.
    pub async fn pass<T: AsyncRead + AsyncWrite + Unpin>(&self, io: T) -> Result<Secured<T>, Refused> {
        let before = self.in_progress.fetch_add(1, Ordering::Relaxed);
        let _counted = InProgress(Arc::clone(&self.in_progress));
        if before >= self.tls.settings().max_handshakes {
            return Err(Refused::Limit);
        }
        let timeout = self.tls.settings().handshake_timeout;
        tokio::time::timeout(timeout, self.shake(io)).await.map_err(|_| Refused::Timeout)?
    }

    async fn shake<T: AsyncRead + AsyncWrite + Unpin>(&self, io: T) -> Result<Secured<T>, Refused> {
        let greeted = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
        let loaded = self.tls.current();
        // Before the chain is judged: what ends meanwhile must not be taken for what ended before.
        let begun = Millis::now().0.div_euclid(1000);
        let stream = self.in_turn(greeted.into_stream(Arc::<ServerConfig>::clone(&loaded.config))).await?;
        let (_, session): (_, &ServerConnection) = stream.get_ref();
        let http2 = session.alpn_protocol() == Some(H2);
        let chain = session.peer_certificates().unwrap_or_default();
        let chain: Vec<CertificateDer<'static>> = chain.iter().map(|one| one.clone().into_owned()).collect();
        let until = match session.handshake_kind() {
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) => loaded.holds_until(&chain, begun),
            Some(HandshakeKind::Resumed) | None => i64::MIN,
        };
        Ok(Secured { http2, chain, judged: (loaded.generation, until), stream })
    }

    /// The first step of the handshake alone, then all others.
    async fn in_turn<T>(&self, handshake: tokio_rustls::Accept<T>) -> io::Result<TlsStream<T>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let mut handshake = pin!(handshake);
        let turn = self.turn.acquire().await.map_err(io::Error::other)?;
        let first = poll_fn(|cx| std::task::Poll::Ready(handshake.as_mut().poll(cx))).await;
        if let std::task::Poll::Ready(done) = first {
            return done;
        }
        tokio::task::yield_now().await;
        drop(turn);
        handshake.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_of_a_handshake_has_its_word() {
        let failed = |error: Error| Refused::Failed(io::Error::new(io::ErrorKind::InvalidData, error)).label();
        assert_eq!(failed(Error::NoCertificatesPresented), "client_certificate");
        assert_eq!(failed(Error::AlertReceived(rustls::AlertDescription::UnknownCA)), "client_refused");
        assert_eq!(failed(Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)), "not_tls");
        assert_eq!(Refused::Failed(io::ErrorKind::UnexpectedEof.into()).label(), "broken_off");
        assert_eq!(Refused::Limit.label(), "limit");
        assert_eq!(Refused::Timeout.label(), "timeout");
        assert_eq!(failed(Error::NoApplicationProtocol), "incompatible");
        assert_eq!(failed(Error::DecryptError), "misbehaved");
        assert!(RESULTS.contains(&failed(Error::General(String::new()))));
    }
}
