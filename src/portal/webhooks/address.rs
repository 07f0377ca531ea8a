//! Where a delivery may go: public addresses, and private ones where the operator allows them.
//!
//! An address is judged, never a name: whatever a name resolves to is judged here, and the connection is made to the
//! address that was judged. IPv6 is a list of what is allowed (global unicast less what is special in it), so that a
//! range that is given a meaning later is not open by oversight.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why nothing is sent to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is {0}")]
pub struct Forbidden(pub &'static str);

/// What an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Public,
    /// This machine or this site: allowed by `webhooks.allow_private`.
    Private(&'static str),
    /// Never: nothing that listens there is a webhook receiver.
    Special(&'static str),
}

/// Judges an address that a delivery is about to be sent to.
pub fn judge(ip: IpAddr, allow_private: bool) -> Result<(), Forbidden> {
    match reach(ip) {
        Reach::Public => Ok(()),
        Reach::Private(_) if allow_private => Ok(()),
        Reach::Private(what) | Reach::Special(what) => Err(Forbidden(what)),
    }
}

fn reach(ip: IpAddr) -> Reach {
    match ip {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or_else(|| v6(ip), v4),
    }
}

fn v4(ip: Ipv4Addr) -> Reach {
    match ip.octets() {
        [0, ..] => Reach::Special("an address of this network (0.0.0.0/8)"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Reach::Private("a private address"),
        [100, 64..=127, ..] => Reach::Private("a shared address of carriers (100.64.0.0/10)"),
        [127, ..] => Reach::Private("a loopback address"),
        [169, 254, ..] => Reach::Special("a link-local address"),
        [192, 0, 0, _] => Reach::Special("an address of protocol assignments (192.0.0.0/24)"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Reach::Special("an address of documentation"),
        [192, 88, 99, _] => Reach::Special("a 6to4 relay address"),
        [198, 18..=19, ..] => Reach::Special("an address of benchmarks (198.18.0.0/15)"),
        [224..=239, ..] => Reach::Special("a multicast address"),
        [240..=255, ..] => Reach::Special("a reserved or broadcast address"),
        _ => Reach::Public,
    }
}

fn v6(ip: Ipv6Addr) -> Reach {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Private("a loopback address"),
        [0xfc00..=0xfdff, ..] => Reach::Private("a unique local address"),
        [0xfe80..=0xfebf, ..] => Reach::Special("a link-local address"),
        [0xff00..=0xffff, ..] => Reach::Special("a multicast address"),
        [0x0064, 0xff9b, ..] => Reach::Special("a NAT64 address"),
        [0x2001, 0..=0x01ff, ..] => Reach::Special("an address of protocol assignments (2001::/23, Teredo)"),
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => Reach::Special("an address of documentation"),
        [0x2002, ..] => Reach::Special("a 6to4 address"),
        [0x2000..=0x3fff, ..] => Reach::Public,
        _ => Reach::Special("no global unicast address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_open() {
        let table = [
            ("93.184.215.14", "public"),
            ("1.1.1.1", "public"),
            ("100.63.255.255", "public"),
            ("100.128.0.0", "public"),
            ("172.15.255.255", "public"),
            ("172.32.0.0", "public"),
            ("192.0.1.1", "public"),
            ("198.17.255.255", "public"),
            ("198.20.0.0", "public"),
            ("223.255.255.255", "public"),
            ("2606:4700:4700::1111", "public"),
            ("2a00:1450:4001::200e", "public"),
            ("2001:200::1", "public"),
            ("3ffe::1", "public"),
            ("::ffff:1.1.1.1", "public"),
            ("10.0.0.0", "private"),
            ("10.255.255.255", "private"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.168.1.1", "private"),
            ("100.64.0.0", "private"),
            ("100.127.255.255", "private"),
            ("127.0.0.1", "private"),
            ("127.255.255.254", "private"),
            ("::1", "private"),
            ("fc00::1", "private"),
            ("fdff:ffff::1", "private"),
            ("::ffff:127.0.0.1", "private"),
            ("::ffff:10.1.2.3", "private"),
            ("::ffff:192.168.0.1", "private"),
            ("0.0.0.0", "special"),
            ("0.1.2.3", "special"),
            ("169.254.169.254", "special"),
            ("::ffff:169.254.169.254", "special"),
            ("192.0.0.1", "special"),
            ("192.0.0.170", "special"),
            ("192.0.2.1", "special"),
            ("198.51.100.7", "special"),
            ("203.0.113.9", "special"),
            ("192.88.99.1", "special"),
            ("198.18.0.1", "special"),
            ("198.19.255.255", "special"),
            ("224.0.0.1", "special"),
            ("239.255.255.255", "special"),
            ("240.0.0.1", "special"),
            ("255.255.255.255", "special"),
            ("::", "special"),
            // The old form of IPv4 in IPv6, and the one that translators use.
            ("::127.0.0.1", "special"),
            ("::ffff:0:127.0.0.1", "special"),
            ("64:ff9b::127.0.0.1", "special"),
            ("64:ff9b::8.8.8.8", "special"),
            ("64:ff9b:1::10.0.0.1", "special"),
            ("100::1", "special"),
            ("2001::1", "special"),
            ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "special"),
            ("2001:10::1", "special"),
            ("2001:20::1", "special"),
            ("2001:db8::1", "special"),
            ("3fff:fff::1", "special"),
            ("2002:7f00:1::", "special"),
            ("2002:c0a8:101::1", "special"),
            ("4000::1", "special"),
            ("5f00::1", "special"),
            ("fe80::1", "special"),
            ("febf::1", "special"),
            ("fec0::1", "special"),
            ("ff02::1", "special"),
            ("ff0e::1", "special"),
        ];
        for (text, expected) in table {
            let ip: IpAddr = text.parse().unwrap();
            let found = match (judge(ip, false), judge(ip, true)) {
                (Ok(()), Ok(())) => "public",
                (Err(_), Ok(())) => "private",
                (Err(_), Err(_)) => "special",
                (Ok(()), Err(_)) => "absurd",
            };
            assert_eq!(found, expected, "{text}");
        }
    }
}
