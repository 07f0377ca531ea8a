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
    os::fd::AsRawFd,
    rc::{Rc, Weak},
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
    decision::Door,
    descriptors::{Descriptors, Unaccepted},
    guard,
    handshake::{self, Gate},
};
use crate::proxy::{
    peer::ConnectionSwitch,
    watch as streams,
    worker::{Duty, Gateway, Live, Worker},
};

/// Connections accepted and not yet taken over by their worker.
const HANDOVER_QUEUE: usize = 1024;

/// How often idle upstream connections are looked through, and metrics told of the caches.
const POOL_SWEEP: Duration = Duration::from_secs(5);

/// As the supervision calls it.
const STREAM_SWEEP: &str = "stream_sweep";

type Handed = (std::net::TcpStream, SocketAddr, Door, Place);

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
    /// Open connections of each listener.
    open_at: [Arc<AtomicUsize>; 2],
    descriptors: Descriptors,
    threads: Vec<thread::JoinHandle<()>>,
    draining: watch::Sender<bool>,
}

/// Starts the threads. A worker whose thread cannot start ends the start.
pub fn start(live: &Live) -> io::Result<Workers> {
    let configured = live.current().settings.listen.workers;
    let count = if configured == 0 { thread::available_parallelism()?.get() } else { configured };
    let (draining, _) = watch::channel(false);
    let mut workers = Workers {
        seats: Vec::new(),
        chance: ahash::RandomState::new(),
        accepted: AtomicUsize::new(0),
        open_at: Default::default(),
        descriptors: Descriptors::of_this_process(),
        threads: Vec::new(),
        draining,
    };
    let handshakes = Arc::new(AtomicUsize::new(0));
    let gateway = live.current();
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
        let (gateways, drain) = (live.follow(), workers.draining.subscribe());
        let gate = live.current().tls.clone().map(|tls| Gate::new(tls, Arc::clone(&handshakes)));
        let body = move || LocalSet::new().block_on(&runtime, run(gateways, intake, drain, gate));
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
    pub async fn accept(&self, live: &Live, listener: TcpListener, door: Door) {
        let mut draining = self.draining.subscribe();
        let unaccepted = Unaccepted::at(door.name());
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = draining.wait_for(|draining| *draining) => return,
            };
            match accepted {
                Ok((stream, address)) => self.hand_over(&live.current(), stream, address, door),
                Err(error) => unaccepted.one_more(&error).await,
            }
        }
    }

    fn hand_over(&self, gateway: &Gateway, stream: TcpStream, address: SocketAddr, door: Door) {
        // Each listener has its own bound: whoever fills the public one keeps no proxy from asking.
        let ([public, decisions], room) = (&self.open_at, self.descriptors.room(&gateway.settings));
        let (open_at, most) = match door {
            Door::Public => (public, room.public),
            Door::Decisions => (decisions, room.decisions),
        };
        // Closed at once, so that nobody waits in the queue of the socket for what will not come.
        if open_at.load(Ordering::Relaxed) >= most || self.descriptors.is_short(stream.as_raw_fd()) {
            gateway.metrics.connections_refused.inc();
            return;
        }
        let Some(seat) = self.seat() else { return };
        let Ok(stream) = stream.into_std() else { return };
        let place = Place::take([&seat.open, open_at]);
        if seat.queue.try_send((stream, address, door, place)).is_err() {
            gateway.metrics.connections_refused.inc();
        }
    }

    /// Connections that wait for their worker, where most do, and how many may.
    pub fn handed_over(&self) -> (usize, usize) {
        let waiting = |seat: &Seat| seat.queue.max_capacity() - seat.queue.capacity();
        (self.seats.iter().map(waiting).max().unwrap_or(0), HANDOVER_QUEUE)
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

/// A connection's place among those of its worker and of its listener, given back however it ends.
#[derive(Debug)]
struct Place([Arc<AtomicUsize>; 2]);

impl Place {
    fn take(counts: [&Arc<AtomicUsize>; 2]) -> Self {
        Self(counts.map(|count| {
            count.fetch_add(1, Ordering::Relaxed);
            Arc::clone(count)
        }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for count in &self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Counts an open connection down, however it ends.
struct Open(#[expect(dead_code, reason = "held until the end")] Place, prometheus::IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.1.dec();
    }
}

async fn run(
    mut gateways: watch::Receiver<Arc<Gateway>>,
    mut intake: mpsc::Receiver<Handed>,
    draining: watch::Receiver<bool>,
    gate: Option<Gate>,
) {
    let gate = gate.map(Rc::new);
    let duty = Duty::of(begin(Arc::clone(&gateways.borrow_and_update())));
    let connections = Rc::new(Connections::default());
    let vitals = duty.worker().gateway.vitals.clone();
    tokio::task::spawn_local(vitals.watch("configurations", follow(gateways, Rc::clone(&duty)), || true));
    tokio::task::spawn_local(drain(draining, Rc::clone(&connections)));
    while let Some((stream, address, door, place)) = intake.recv().await {
        let gauge = duty.worker().gateway.metrics.connections.clone();
        gauge.inc();
        let counted = Open(place, gauge);
        let stream = match stream.set_nodelay(true).and_then(|()| TcpStream::from_std(stream)) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection could not be taken over");
                continue;
            }
        };
        let switch = Rc::new(ConnectionSwitch::new(counted));
        let listed = connections.list(&switch);
        let (duty, gate) = (Rc::clone(&duty), gate.clone().filter(|_| door == Door::Public));
        // What hangs on a handshake or on a load balancer's word is boxed apart: the way of a plain request is short.
        match (door, gate) {
            (Door::Public, Some(gate)) => tokio::task::spawn_local(async move {
                let worker = duty.worker();
                if let Some((stream, address)) = connection::introduced(&worker, stream, address, &switch).await {
                    drop(worker);
                    connection::serve_tls(duty, stream, &gate, address, switch).await;
                }
                drop(listed);
            }),
            (Door::Public, None) => tokio::task::spawn_local(async move {
                let worker = duty.worker();
                if let Some((stream, address)) = connection::introduced(&worker, stream, address, &switch).await {
                    drop(worker);
                    let arrived = Arrived { address, http2: None, certificate: None };
                    connection::serve(duty, stream, arrived, switch, door).await;
                }
                drop(listed);
            }),
            (Door::Decisions, _) => tokio::task::spawn_local(async move {
                let arrived = Arrived { address, http2: None, certificate: None };
                connection::serve(duty, stream, arrived, switch, door).await;
                drop(listed);
            }),
        };
    }
}

/// A worker with what sweeps after it, as long as anybody uses it.
fn begin(gateway: Arc<Gateway>) -> Rc<Worker> {
    let worker = Worker::new(gateway, guard::refusal_of);
    tokio::task::spawn_local(sweep_streams(Rc::clone(&worker)));
    tokio::task::spawn_local(sweep_pool(Rc::downgrade(&worker)));
    worker
}

/// With each configuration a worker of its own takes over: what was kept under the one before (sessions, signatures,
/// connections to upstreams) is kept for the requests that began under it, and goes with them.
async fn follow(mut gateways: watch::Receiver<Arc<Gateway>>, duty: Rc<Duty>) {
    while gateways.changed().await.is_ok() {
        let gateway = Arc::clone(&gateways.borrow_and_update());
        duty.hand_over(begin(gateway));
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

/// As long as anybody else has the worker or one of its streams is open: those of a configuration that is no longer in
/// force are cut like all others.
async fn sweep_streams(worker: Rc<Worker>) {
    let vitals = worker.gateway.vitals.clone();
    vitals.announce(STREAM_SWEEP);
    while Rc::strong_count(&worker) > 1 || !worker.streams.is_empty() {
        tokio::time::sleep(streams::SWEEP_INTERVAL).await;
        if !worker.streams.is_empty() && vitals.round(STREAM_SWEEP, streams::sweep(&worker)).await.is_none() {
            // Of none of them is it known any more whether it may go on.
            worker.streams.kill_all();
        }
    }
}

async fn sweep_pool(worker: Weak<Worker>) {
    loop {
        tokio::time::sleep(POOL_SWEEP).await;
        let Some(worker) = worker.upgrade() else { return };
        let longest = worker.gateway.upstreams.iter().map(|upstream| upstream.settings.pool_idle_timeout).max();
        worker.pool.sweep(longest.unwrap_or(POOL_SWEEP));
        worker.tell_caches();
    }
}
