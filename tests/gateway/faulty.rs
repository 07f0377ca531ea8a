//! Services that are dead, each in another way.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// How a service is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing listens.
    Refuses,
    /// Takes connections and resets them.
    Resets,
    /// Takes connections and requests, and never answers.
    Hangs,
    /// Nobody even answers that there is nothing.
    Blackhole,
}

/// A dead service; its port is its own as long as it lives.
pub struct Faulty {
    pub address: SocketAddr,
    /// Connections open now and at most at once, where it takes any.
    pub open: Arc<AtomicUsize>,
    pub most: Arc<AtomicUsize>,
    _kept: Vec<TcpStream>,
    _listener: Option<TcpListener>,
}

impl Faulty {
    pub fn start(fault: Fault) -> Self {
        let socket = listening(if fault == Fault::Blackhole { 0 } else { 1_024 });
        let mut faulty = Self {
            address: socket.local_addr().unwrap(),
            open: Arc::default(),
            most: Arc::default(),
            _kept: Vec::new(),
            _listener: None,
        };
        match fault {
            Fault::Refuses => drop(socket),
            Fault::Blackhole => {
                // Its queue is filled, and nobody empties it: further attempts to connect are not answered at all.
                while let Ok(stream) = TcpStream::connect_timeout(&faulty.address, Duration::from_millis(300)) {
                    faulty._kept.push(stream);
                }
                faulty._listener = Some(socket);
            }
            Fault::Resets | Fault::Hangs => {
                let (open, most) = (Arc::clone(&faulty.open), Arc::clone(&faulty.most));
                thread::spawn(move || {
                    for stream in socket.incoming() {
                        let Ok(stream) = stream else { continue };
                        if fault == Fault::Resets {
                            reset(stream);
                            continue;
                        }
                        let (open, most) = (Arc::clone(&open), Arc::clone(&most));
                        most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::spawn(move || {
                            // Until the gateway has enough.
                            std::io::copy(&mut &stream, &mut std::io::sink()).ok();
                            open.fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                });
            }
        }
        faulty
    }
}

/// A listener with a queue of this length.
fn listening(backlog: u32) -> TcpListener {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let listener = socket.listen(backlog).unwrap().into_std().unwrap();
    listener.set_nonblocking(false).unwrap();
    listener
}

/// Ends it without a goodbye: what was received and not read makes the kernel say so.
fn reset(stream: TcpStream) {
    let mut byte = [0];
    stream.set_read_timeout(Some(Duration::from_millis(200))).ok();
    stream.peek(&mut byte).ok();
    drop(stream);
}
