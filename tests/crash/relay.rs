//! Between the gateway and Postgres: passes bytes on, or holds them back while connections stay open, as a server does
//! that was stopped in its tracks.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

pub struct Relay {
    pub address: SocketAddr,
    frozen: Arc<AtomicBool>,
}

impl Relay {
    pub fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self { address: listener.local_addr().unwrap(), frozen: Arc::default() };
        let frozen = Arc::clone(&relay.frozen);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, upstream) = (client.unwrap(), TcpStream::connect(server).unwrap());
                for (from, to) in [(client.try_clone().unwrap(), upstream.try_clone().unwrap()), (upstream, client)] {
                    let frozen = Arc::clone(&frozen);
                    thread::spawn(move || pass(from, to, &frozen));
                }
            }
        });
        relay
    }

    pub fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, frozen: &AtomicBool) {
    to.set_nodelay(true).unwrap();
    let mut space = [0u8; 16384];
    while let Ok(count @ 1..) = from.read(&mut space) {
        while frozen.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        if to.write_all(&space[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}
