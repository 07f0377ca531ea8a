//! Between the gateway and a server (Postgres, Redis): passes bytes on; holds them back while connections stay open, as a
//! server does that was stopped in its tracks; or breaks every connection, as one does that is restarted.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

pub struct Relay {
    pub address: SocketAddr,
    frozen: Arc<AtomicBool>,
    away: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    pub fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let relay = Self { address, frozen: Arc::default(), away: Arc::default(), open: Arc::default() };
        let (frozen, away, open) = (Arc::clone(&relay.frozen), Arc::clone(&relay.away), Arc::clone(&relay.open));
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                // One lock over look and entry: none slips in behind `break_all`.
                let mut open = open.lock().unwrap();
                if away.load(Ordering::SeqCst) {
                    continue;
                }
                // The server may be down itself.
                let Ok(upstream) = TcpStream::connect(server) else { continue };
                open.extend([client.try_clone().unwrap(), upstream.try_clone().unwrap()]);
                drop(open);
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

    /// While it is away, every connection is broken, and every new one at once.
    pub fn away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
        if away {
            self.break_all();
        }
    }

    /// Breaks every connection; new ones are welcome. How many there were.
    pub fn break_all(&self) -> usize {
        let broken = std::mem::take(&mut *self.open.lock().unwrap());
        // One that ended by itself is not connected any more.
        let alive = broken.iter().filter(|stream| stream.shutdown(std::net::Shutdown::Both).is_ok());
        alive.count() / 2
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
