//! The client's side: connections that each send a ready request, wait for the whole answer, and send the next.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    task::LocalSet,
};
use tokio_rustls::TlsConnector;

/// How much, and by whom.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    /// Of so many connections one sends requests, the first of them; the others stay open and silent.
    pub(crate) busy_one_in: usize,
    /// Each request on a connection of its own.
    pub(crate) reconnect: bool,
    /// Ends after so many requests.
    pub(crate) most: Option<usize>,
    /// Ends after so long.
    pub(crate) time: Duration,
}

impl Load {
    /// 64 connections, all busy.
    pub(crate) fn lasting(time: Duration) -> Self {
        Self { connections: 64, busy_one_in: 1, reconnect: false, most: None, time }
    }

    pub(crate) fn of(requests: usize) -> Self {
        Self { most: Some(requests), ..Self::lasting(Duration::from_secs(600)) }
    }
}

/// What came of it.
pub(crate) struct Driven {
    pub(crate) requests: usize,
    pub(crate) elapsed: Duration,
    /// Of each request, ascending.
    pub(crate) latencies: Vec<Duration>,
}

impl Driven {
    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn latency(&self, thousandths: usize) -> Duration {
        self.latencies[(self.latencies.len() * thousandths / 1000).min(self.latencies.len() - 1)]
    }
}

/// Ready request bytes, one for each token.
pub(crate) fn heads(tokens: &[String], tenants: &[String], paths: usize) -> Vec<Vec<u8>> {
    tokens
        .iter()
        .enumerate()
        .map(|(at, token)| {
            format!(
                "GET /api/items/{} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\nX-Active-Tenant-Id: {}\r\n\
                 User-Agent: bench/1\r\nAccept: application/json\r\n\r\n",
                at % paths,
                tenants[at % tenants.len()]
            )
            .into_bytes()
        })
        .collect()
}

/// Connections in turn over all heads. Any answer but 200 stops the bench.
pub(crate) fn drive(address: SocketAddr, heads: &[Vec<u8>], load: Load) -> Driven {
    drive_over(None, address, heads, load)
}

/// As `drive`, over TLS where it is given.
pub(crate) fn drive_over(
    tls: Option<&Arc<ClientConfig>>,
    address: SocketAddr,
    heads: &[Vec<u8>],
    load: Load,
) -> Driven {
    let tls = tls.map(|config| TlsConnector::from(Arc::clone(config)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let next = Rc::new(Cell::new(0usize));
    let latencies = Rc::new(RefCell::new(Vec::new()));
    let heads: Rc<[Vec<u8>]> = heads.into();
    let started = Instant::now();
    let until = started + load.time;
    LocalSet::new().block_on(&runtime, async {
        let mut tasks = Vec::new();
        let mut silent = Vec::new();
        for at in 0..load.connections {
            // In order, so that which connection is busy is known.
            let stream = connect(tls.as_ref(), address).await;
            if at % load.busy_one_in != 0 {
                silent.push(stream);
                continue;
            }
            let tls = tls.clone();
            let (next, heads, latencies) = (Rc::clone(&next), Rc::clone(&heads), Rc::clone(&latencies));
            tasks.push(tokio::task::spawn_local(async move {
                let mut stream = stream;
                let mut space = vec![0u8; 16 * 1024];
                let mut begun = Instant::now();
                while begun < until {
                    let at = next.get();
                    if load.most.is_some_and(|most| at >= most) {
                        return;
                    }
                    next.set(at + 1);
                    if load.reconnect {
                        stream = connect(tls.as_ref(), address).await;
                    }
                    stream.write_all(&heads[at % heads.len()]).await.unwrap();
                    stream.flush().await.unwrap();
                    answer(&mut stream, &mut space).await;
                    let ended = Instant::now();
                    latencies.borrow_mut().push(ended - begun);
                    begun = ended;
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
    let elapsed = started.elapsed();
    let mut latencies = latencies.take();
    latencies.sort_unstable();
    Driven { requests: next.get(), elapsed, latencies }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

async fn connect(tls: Option<&TlsConnector>, address: SocketAddr) -> Box<dyn Stream> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    match tls {
        None => Box::new(stream),
        Some(tls) => Box::new(tls.connect("gateway".try_into().unwrap(), stream).await.unwrap()),
    }
}

async fn answer(stream: &mut Box<dyn Stream>, space: &mut [u8]) {
    let mut filled = 0;
    loop {
        let count = stream.read(&mut space[filled..]).await.unwrap();
        assert!(count > 0, "the connection ended");
        filled += count;
        let Some(end) = space[..filled].windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&space[..end]).unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{}", String::from_utf8_lossy(&space[..filled]));
        let length: usize = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length:").map(|text| text.trim().parse().unwrap())
            })
            .expect("a length");
        if filled >= end + 4 + length {
            return;
        }
    }
}
