//! Worker threads and the acceptor that feeds them.
//!
//! One acceptor hands each connection to a worker with the fewest open ones, which of several being left to chance:
//! where connections come in a pattern, such as a busy one and an idle one in turn, a fixed choice would give all busy
//! ones to one worker. With SO_REUSEPORT the kernel would spread by hash: counts drift apart, a second gateway on the
//! same port would take half of the connections without a word, and those that wait at a listener that closes are lost.
//! `benches/README.md` has the figures.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::LocalSet,
};

use super::{
    connection::{self, Arrived},
    guard,
    handshake::{self, Gate},
};
use crate::proxy::{
    watch::{self as streams, ConnectionSwitch},
    worker::{Gateway, Worker},
};

/// Connections accepted and not yet taken over by their worker.
const HANDOVER_QUEUE: usize = 1024;

/// How often idle upstream connections are looked through.
const POOL_SWEEP: Duration = Duration::from_secs(5);

type Handed = (std::net::TcpStream, SocketAddr);

/// One worker as the acceptor sees it.
#[derive(Debug)]
struct Seat {
    queue: mpsc::Sender<Handed>,
    open: Arc<AtomicUsize>,
}

/// All workers of a listener.
#[derive(Debug)]
pub struct Workers {
    seats: Vec<Seat>,
    /// Decides between workers with as many connections.
    chance: ahash::RandomState,
    accepted: AtomicUsize,
    threads: Vec<thread::JoinHandle<()>>,
    draining: watch::Sender<bool>,
}

/// Starts the threads. A worker whose thread cannot start ends the start.
pub fn start(gateway: &Arc<Gateway>) -> io::Result<Workers> {
    let configured = gateway.settings.listen.workers;
    let count = if configured == 0 { thread::available_parallelism()?.get() } else { configured };
    let (draining, _) = watch::channel(false);
    let mut workers = Workers {
        seats: Vec::new(),
        chance: ahash::RandomState::new(),
        accepted: AtomicUsize::new(0),
        threads: Vec::new(),
        draining,
    };
    let handshakes = Arc::new(AtomicUsize::new(0));
    if gateway.tls.is_some() {
        for result in handshake::RESULTS {
            // From zero on, so that the first one is seen as growth.
            gateway.metrics.handshakes.with_label_values(&[result]);
        }
    }
    for index in 0..count {
        let (queue, intake) = mpsc::channel(HANDOVER_QUEUE);
        let open = Arc::new(AtomicUsize::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (gateway, drain, seat_open) = (Arc::clone(gateway), workers.draining.subscribe(), Arc::clone(&open));
        let gate = gateway.tls.clone().map(|tls| Gate::new(tls, Arc::clone(&handshakes)));
        let body = move || LocalSet::new().block_on(&runtime, run(gateway, intake, drain, seat_open, gate));
        workers.threads.push(thread::Builder::new().name(format!("worker-{index}")).spawn(body)?);
        workers.seats.push(Seat { queue, open });
    }
    Ok(workers)
}

impl Workers {
    fn open(&self) -> usize {
        self.seats.iter().map(|seat| seat.open.load(Ordering::Relaxed)).sum()
    }

    /// Accepts until told to drain. Runs on the service runtime.
    pub async fn accept(&self, gateway: &Gateway, listener: TcpListener) {
        let mut draining = self.draining.subscribe();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = draining.wait_for(|draining| *draining) => return,
            };
            match accepted {
                Ok((stream, address)) => self.hand_over(gateway, stream, address),
                Err(error) => {
                    // Out of file descriptors, most likely: wait for some to come back instead of spinning.
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn hand_over(&self, gateway: &Gateway, stream: TcpStream, address: SocketAddr) {
        if self.open() >= gateway.settings.listen.max_connections {
            gateway.metrics.connections_refused.inc();
            return;
        }
        let Some(seat) = self.seat() else { return };
        let Ok(stream) = stream.into_std() else { return };
        seat.open.fetch_add(1, Ordering::Relaxed);
        if seat.queue.try_send((stream, address)).is_err() {
            seat.open.fetch_sub(1, Ordering::Relaxed);
            gateway.metrics.connections_refused.inc();
        }
    }

    /// One of those with the fewest connections.
    fn seat(&self) -> Option<&Seat> {
        let number = self.accepted.fetch_add(1, Ordering::Relaxed);
        let chance = |at: usize| self.chance.hash_one((number, at));
        let seats = self.seats.iter().enumerate();
        seats.min_by_key(|(at, seat)| (seat.open.load(Ordering::Relaxed), chance(*at))).map(|(_, seat)| seat)
    }

    /// Lets open requests finish until the deadline. Returns how many connections were still open then.
    pub async fn drain(&self, timeout: Duration) -> usize {
        self.draining.send_replace(true);
        let deadline = tokio::time::Instant::now() + timeout;
        while self.open() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.open()
    }

    /// Ends the threads; connections still open are closed.
    pub fn stop(self) {
        drop(self.seats);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker ended by a panic");
            }
        }
    }

    pub fn draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Whether every worker still runs.
    pub fn alive(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }
}

/// Counts an open connection down, however it ends.
struct Open(Arc<AtomicUsize>, prometheus::IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        self.1.dec();
    }
}

async fn run(
    gateway: Arc<Gateway>,
    mut intake: mpsc::Receiver<Handed>,
    draining: watch::Receiver<bool>,
    open: Arc<AtomicUsize>,
    gate: Option<Gate>,
) {
    let gate = gate.map(Rc::new);
    let worker = Worker::new(gateway, guard::refusal_of);
    let connections = Rc::new(Connections::default());
    tokio::task::spawn_local(sweep_streams(Rc::clone(&worker)));
    tokio::task::spawn_local(sweep_pool(Rc::clone(&worker)));
    tokio::task::spawn_local(drain(draining, Rc::clone(&connections)));
    while let Some((stream, address)) = intake.recv().await {
        let gauge = worker.gateway.metrics.connections.clone();
        gauge.inc();
        let counted = Open(Arc::clone(&open), gauge);
        let stream = match stream.set_nodelay(true).and_then(|()| TcpStream::from_std(stream)) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection could not be taken over");
                continue;
            }
        };
        let switch = Rc::new(ConnectionSwitch::new(counted));
        let listed = connections.list(&switch);
        let worker = Rc::clone(&worker);
        match gate.clone() {
            Some(gate) => tokio::task::spawn_local(async move {
                if let Some((stream, address)) = connection::introduced(&worker, stream, address, &switch).await {
                    connection::serve_tls(worker, stream, &gate, address, switch).await;
                }
                drop(listed);
            }),
            None => tokio::task::spawn_local(async move {
                if let Some((stream, address)) = connection::introduced(&worker, stream, address, &switch).await {
                    let arrived = Arrived { address, http2: None, certificate: None };
                    connection::serve(worker, stream, arrived, switch).await;
                }
                drop(listed);
            }),
        };
    }
}

/// One wait of each worker for the drain, instead of one of each connection: a connection would look at it with every
/// poll, under a lock that all workers share.
async fn drain(mut draining: watch::Receiver<bool>, connections: Rc<Connections>) {
    // Nobody is left to ask for it: that is the end as well.
    let _ = draining.wait_for(|draining| *draining).await;
    connections.drain();
}

/// The connections that one worker serves.
#[derive(Default)]
struct Connections {
    draining: Cell<bool>,
    next: Cell<u64>,
    open: RefCell<HashMap<u64, Rc<ConnectionSwitch>, ahash::RandomState>>,
}

impl Connections {
    /// Told to drain when all are, at once where they were already.
    fn list(self: &Rc<Self>, switch: &Rc<ConnectionSwitch>) -> Listed {
        if self.draining.get() {
            switch.drain();
        }
        let key = self.next.get();
        self.next.set(key.wrapping_add(1));
        self.open.borrow_mut().insert(key, Rc::clone(switch));
        Listed { connections: Rc::clone(self), key }
    }

    fn drain(&self) {
        self.draining.set(true);
        for switch in self.open.borrow().values() {
            switch.drain();
        }
    }
}

/// Takes the connection off the list when dropped.
struct Listed {
    connections: Rc<Connections>,
    key: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.connections.open.borrow_mut().remove(&self.key);
    }
}

async fn sweep_streams(worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(streams::SWEEP_INTERVAL).await;
        if !worker.streams.is_empty() {
            streams::sweep(&worker).await;
        }
    }
}

async fn sweep_pool(worker: Rc<Worker>) {
    let longest = worker.gateway.upstreams.iter().map(|upstream| upstream.settings.pool_idle_timeout).max();
    loop {
        tokio::time::sleep(POOL_SWEEP).await;
        worker.pool.sweep(longest.unwrap_or(POOL_SWEEP));
    }
}
