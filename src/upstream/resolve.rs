//! Host names to addresses. Production asks the system's resolver; tests bring one of their own.

use std::{fmt::Debug, io, net::SocketAddr, time::Duration};

use futures_util::future::{BoxFuture, FutureExt};

use super::settings::Origin;

/// Looks host names up.
pub trait Resolve: Debug + Send + Sync {
    /// All addresses that the name has now, with the port put to them.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
}

/// As the system does it: hosts file, then DNS.
#[derive(Clone, Copy, Debug)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }.boxed()
    }
}

/// Most addresses of one name that are used: memory and metrics are bounded by configuration, not by what a name server says.
const MAX_ADDRESSES: usize = 64;

/// Longest wait for one name.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// The addresses of the origin's name now: sorted, at least one, at most [`MAX_ADDRESSES`].
pub(super) async fn addresses(resolver: &dyn Resolve, origin: &Origin) -> io::Result<Vec<SocketAddr>> {
    let resolving = resolver.resolve(origin.host(), origin.port());
    let resolved = tokio::time::timeout(LOOKUP_TIMEOUT, resolving).await;
    let mut found = resolved.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))??;
    found.sort_unstable();
    found.dedup();
    if found.len() > MAX_ADDRESSES {
        tracing::warn!(%origin, addresses = found.len(), used = MAX_ADDRESSES, "a name has more addresses than are used");
        found.truncate(MAX_ADDRESSES);
    }
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(found)
}
