//! PROXY protocol: whose word is taken, and what a connection without it gets.

use std::time::{Duration, Instant};

use super::{
    client::{Connection, Request},
    rig::{Rig, Setup},
    tls::House,
};

/// A TCP connection of 203.0.113.7.
fn header() -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    bytes.extend_from_slice(&[203, 0, 113, 7, 10, 0, 0, 1, 0x1f, 0x90, 0, 80]);
    bytes
}

fn listening(listen: &str) -> Setup {
    Setup { listen: listen.into(), ..Setup::default() }
}

#[test]
fn a_load_balancers_word_is_the_clients_address() {
    let rig = Rig::with(listening("proxy_protocol_from = [\"127.0.0.0/8\"]"));
    let ask = |header: &[u8]| {
        let mut connection = Connection::open(rig.public);
        // In two pieces, as a network may deliver it; the second with the request behind it.
        connection.write(&header[..7]);
        connection.write(&[&header[7..], &Request::get("/public/a").bytes()].concat());
        connection.answer().status
    };
    assert_eq!(ask(&header()), 200);
    assert_eq!(rig.upstream.last().one("x-forwarded-for"), "203.0.113.7");
    assert_eq!(ask(b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"), 200, "its own health check");
    assert_eq!(rig.upstream.last().one("x-forwarded-for"), "127.0.0.1");
}

#[test]
fn a_connection_without_it_or_from_elsewhere_is_closed() {
    let rig = Rig::with(listening("proxy_protocol_from = [\"127.0.0.0/8\"]\nheader_timeout = \"1s\""));
    let started = Instant::now();
    for said in [
        Request::get("/public/a").bytes(),
        b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\n".to_vec(),
        header()[..20].to_vec(),
    ] {
        let mut connection = Connection::open(rig.public);
        connection.write(&said);
        assert_eq!(connection.answer().status, 0, "{said:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(15));
    let elsewhere = Rig::with(listening("proxy_protocol_from = [\"10.0.0.0/8\"]"));
    let mut connection = Connection::open(elsewhere.public);
    let _ = connection.try_write(&[header(), Request::get("/public/a").bytes()].concat());
    assert_eq!(connection.answer().status, 0);
    assert_eq!((rig.upstream.count(), elsewhere.upstream.count()), (0, 0));
}

#[test]
fn it_stands_before_the_handshake() {
    let house = House::with("", listening("proxy_protocol_from = [\"127.0.0.0/8\"]"));
    let client = super::tls_support::Client::trusting(&house.ca);
    let stream = client.connect_behind(house.rig.public, "gateway.test", &header()).unwrap();
    let mut connection = Connection::on(stream);
    connection.write(&Request::get("/public/a").bytes());
    assert_eq!(connection.answer().status, 200);
    assert_eq!(house.rig.upstream.last().one("x-forwarded-for"), "203.0.113.7");
    assert!(client.connect(house.rig.public, "gateway.test").is_err(), "without it there is no handshake");
}
