//! Where a client is and which scheme it uses, behind proxies that are trusted to say so.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};

use super::{
    headers::{Single, single},
    peer::Peer,
    worker::Worker,
};

/// As the proxy before us names the client's scheme.
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The peer's address or, behind trusted proxies, the rightmost untrusted entry of `X-Forwarded-For`.
pub fn client_address(worker: &Worker, peer: &Peer, headers: &HeaderMap) -> IpAddr {
    let address = peer.ip.to_canonical();
    let trusted = |ip: &IpAddr| worker.gateway.settings.listen.trusted_proxies.iter().any(|net| net.contains(ip));
    if !trusts(worker, peer) {
        return address;
    }
    let mut last = address;
    for value in headers.get_all("x-forwarded-for").iter().rev() {
        for entry in value.as_bytes().rsplit(|byte| *byte == b',') {
            let parsed = std::str::from_utf8(entry).ok().and_then(|text| address_in(text.trim()));
            // An entry that is no address cannot be walked past: whoever wrote it is the one we know last.
            let Some(ip) = parsed else { return last };
            last = ip;
            if !trusted(&ip) {
                return ip;
            }
        }
    }
    last
}

/// `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]`, `[::1]:5`.
pub fn address_in(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>()
        .or_else(|_| text.parse::<std::net::SocketAddr>().map(|address| address.ip()))
        .ok()
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
        .map(|ip: IpAddr| ip.to_canonical())
}

/// Whether this peer's `X-Forwarded-*` are believed.
pub fn trusts(worker: &Worker, peer: &Peer) -> bool {
    let address = peer.ip.to_canonical();
    let by_address = || worker.gateway.settings.listen.trusted_proxies.iter().any(|net| net.contains(&address));
    let by_certificate = || {
        peer.certificate.as_ref().filter(|shown| shown.is_trusted_proxy() && !worker.suspends(Some(shown))).is_some()
    };
    by_address() || by_certificate()
}

/// The scheme that clients use: as a trusted proxy says, else as configured. `None` where a trusted proxy says it twice or
/// in no form that is known: then nothing may rest on it.
pub fn client_scheme<'h>(worker: &'h Worker, peer: &Peer, headers: &'h HeaderMap) -> Option<&'h str> {
    let configured = Some(worker.gateway.settings.listen.public_scheme.as_str());
    if !trusts(worker, peer) {
        return configured;
    }
    match single(headers, FORWARDED_PROTO) {
        Single::Absent => configured,
        Single::One(value) => {
            ["https", "http"].into_iter().find(|known| value.as_bytes().eq_ignore_ascii_case(known.as_bytes()))
        }
        Single::Repeated => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_every_usual_spelling() {
        for (text, expected) in [
            ("1.2.3.4", "1.2.3.4"),
            ("1.2.3.4:80", "1.2.3.4"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
        ] {
            assert_eq!(address_in(text), Some(expected.parse().unwrap()), "{text}");
        }
        assert_eq!(address_in("unknown"), None);
    }
}
