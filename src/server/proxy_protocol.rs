//! PROXY protocol, version 2: a load balancer's word on whose connection this is, before its first byte.
//!
//! Taken only from trusted addresses, and needed from them: a connection from elsewhere, or one that begins with anything
//! else, is closed. Exactly the header's bytes are read, so that what follows is whole for whoever reads next. What it says
//! beyond the addresses (TLVs) is skipped.

use std::{io, net::SocketAddr};

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Signature, version and command, family, length.
const FIXED_BYTES: usize = 16;
/// Longest rest: addresses, and room for what load balancers add.
const MAX_REST_BYTES: usize = 2 * 1024;

/// The header is none that may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    #[error("the connection does not begin with a PROXY header of version 2")]
    NotVersion2,
    #[error("the PROXY header is longer than {MAX_REST_BYTES} bytes")]
    TooLong,
    #[error("the PROXY header is malformed")]
    Malformed,
    #[error("the PROXY header names no TCP address")]
    NoAddress,
}

/// Reads the header; the client's address, or `peer` where the load balancer speaks for itself (LOCAL: its health check).
pub async fn read<T: AsyncRead + Unpin>(io: &mut T, peer: SocketAddr) -> io::Result<SocketAddr> {
    let mut fixed = [0u8; FIXED_BYTES];
    io.read_exact(&mut fixed).await?;
    let rest = rest_bytes(&fixed).map_err(invalid)?;
    let mut all = fixed.to_vec();
    all.resize(FIXED_BYTES + rest, 0);
    if let Some(space) = all.get_mut(FIXED_BYTES..) {
        io.read_exact(space).await?;
    }
    Ok(address(&all).map_err(invalid)?.unwrap_or(peer))
}

fn invalid(bad: BadHeader) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, bad)
}

const SIGNATURE: &[u8] = b"\r\n\r\n\x00\r\nQUIT\n";

fn rest_bytes(fixed: &[u8; FIXED_BYTES]) -> Result<usize, BadHeader> {
    let [.., command, _, high, low] = *fixed;
    if !fixed.starts_with(SIGNATURE) || command >> 4 != 2 {
        return Err(BadHeader::NotVersion2);
    }
    let rest = usize::from(u16::from_be_bytes([high, low]));
    if rest > MAX_REST_BYTES { Err(BadHeader::TooLong) } else { Ok(rest) }
}

/// Of one whole header. `None`: it speaks for the load balancer itself.
fn address(header: &[u8]) -> Result<Option<SocketAddr>, BadHeader> {
    const LOCAL: u8 = 0x20;
    let config = ParseConfig { include_tlvs: false, allow_v1: false, allow_v2: true };
    let (parsed, length) = ProxyHeader::parse(header, config).map_err(|_| BadHeader::Malformed)?;
    if length != header.len() {
        return Err(BadHeader::Malformed);
    }
    if header.get(SIGNATURE.len()) == Some(&LOCAL) {
        return Ok(None);
    }
    match parsed.proxied_address() {
        Some(named) if named.protocol == Protocol::Stream => Ok(Some(named.source)),
        _ => Err(BadHeader::NoAddress),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: &str = "192.0.2.9:9";

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    const V4: [u8; 12] = [203, 0, 113, 7, 10, 0, 0, 1, 0x1f, 0x90, 0, 80];

    /// The address, and what is left behind the header.
    fn read_all(mut bytes: &[u8]) -> io::Result<(SocketAddr, Vec<u8>)> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let address = runtime.block_on(read(&mut bytes, PEER.parse().unwrap()))?;
        Ok((address, bytes.to_vec()))
    }

    #[test]
    fn addresses_are_read_and_what_follows_is_left() {
        let v6 = [[0x20, 1, 0xd, 0xb8].as_slice(), &[0; 11], &[7], &[0; 16], &[0x1f, 0x90, 0, 80]].concat();
        let tlvs = [&V4[..], &[4, 0, 3, 1, 2, 3, 0xe0, 0, 0]].concat();
        for (bytes, expected) in [
            (header(0x21, 0x11, &V4), "203.0.113.7:8080"),
            (header(0x21, 0x11, &tlvs), "203.0.113.7:8080"),
            (header(0x21, 0x21, &v6), "[2001:db8::7]:8080"),
            (header(0x20, 0x00, &[]), PEER),
            (header(0x20, 0x11, &V4), PEER),
        ] {
            let (address, left) = read_all(&[&bytes, &b"GET /"[..]].concat()).unwrap();
            assert_eq!((address.to_string().as_str(), left.as_slice()), (expected, &b"GET /"[..]));
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for (bytes, what) in [
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), "HTTP"),
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 8080 80\r\n".to_vec(), "version 1"),
            (header(0x31, 0x11, &V4), "another version"),
            (header(0x22, 0x11, &V4), "another command"),
            (header(0x21, 0x12, &V4), "UDP"),
            (header(0x21, 0x31, &[0; 216]), "a local socket"),
            (header(0x21, 0x00, &[]), "no family"),
            (header(0x21, 0x11, &V4[..8]), "cut off addresses"),
            (header(0x21, 0x11, &[0; MAX_REST_BYTES + 1]), "too long"),
            (header(0x21, 0x11, &V4)[..20].to_vec(), "cut off"),
        ] {
            assert!(read_all(&bytes).is_err(), "{what}");
        }
    }

    proptest! {
        /// Whatever comes: an address or an error, never a panic, and never more bytes than the header has.
        #[test]
        fn no_bytes_do_harm(command in 0u8.., family in 0u8.., rest in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..320) {
            let mut bytes = header(command, family, &rest);
            bytes.truncate(cut.max(1));
            let whole = bytes.len() == FIXED_BYTES + rest.len();
            bytes.extend_from_slice(if whole { b"tail" } else { b"" });
            if let Ok((_, left)) = read_all(&bytes) {
                prop_assert!(whole);
                prop_assert_eq!(left, b"tail".to_vec());
            }
        }

        #[test]
        fn noise_is_no_header(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(bytes.starts_with(SIGNATURE) || read_all(&bytes).is_err());
        }
    }
}
