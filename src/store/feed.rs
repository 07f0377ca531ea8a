//! The change feed: one task that keeps what this process believes close behind what the database says.
//!
//! Both databases are polled for the number of the last change; SQLite through `PRAGMA data_version` on a connection
//! of its own (cheap enough for every 100 ms), Postgres at each heartbeat and at every notice, so that a notice that got
//! lost costs one heartbeat. Freshness is the *start* time of the last poll that succeeded: whatever was committed
//! before it is known. A poll that fails or hangs, and every new connection, ends in a restart: nothing that was read
//! through the old connection is believed behind the new one.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use prometheus::Histogram;
use sqlx::{
    Acquire, Connection, Row as _, SqliteConnection,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::{sync::watch, time::timeout};

use super::{
    Database, StoreError,
    admin::{CHANNEL, Touch},
    changes::Changes,
    database::Backend,
    portfolio::{Loaded, SuspendedSubjects, load_suspended},
    sql::{Conn, Row, SqliteConn, Value},
    sqlite::SqliteFiles,
};
use crate::{
    config::settings::LinkSettings,
    domain::{Millis, PartnerId},
};

/// How often SQLite is asked whether anything was committed.
const SQLITE_POLL: Duration = Duration::from_millis(100);
/// Rows of the change log read at once; behind by more, everything is reloaded instead.
const MOST_LOGGED: i64 = 4_096;
/// Wait between attempts to reach a database that is away.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What the feed knows; shared with the directory.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) changes: Changes,
    /// `None` until they were read for the first time.
    suspended: ArcSwapOption<Loaded<SuspendedSubjects>>,
    /// Serialises replacing them, so that an older read never replaces a newer one.
    replacing: Mutex<()>,
    started: Instant,
    /// Nanoseconds after `started` at which the last successful poll began; 0: none yet.
    polled: AtomicU64,
    max_staleness: Duration,
    /// From a change's time to its being known here.
    pub(crate) latency: OnceLock<Histogram>,
}

impl Known {
    pub(crate) fn new(max_staleness: Duration) -> Self {
        Self {
            changes: Changes::default(),
            suspended: ArcSwapOption::empty(),
            replacing: Mutex::new(()),
            // So that a poll that begins at once is not mistaken for none.
            started: Instant::now().checked_sub(Duration::from_millis(1)).unwrap_or_else(Instant::now),
            polled: AtomicU64::new(0),
            max_staleness,
            latency: OnceLock::new(),
        }
    }

    /// Whether a poll that succeeded began within the staleness bound.
    pub(crate) fn is_fresh(&self) -> bool {
        let polled = self.polled.load(Ordering::Acquire);
        polled != 0 && self.started.elapsed().saturating_sub(Duration::from_nanos(polled)) <= self.max_staleness
    }

    fn stamp(&self, began: Instant) {
        let after = began.saturating_duration_since(self.started).as_nanos();
        self.polled.store(u64::try_from(after).unwrap_or(u64::MAX).max(1), Ordering::Release);
    }

    /// How old changes are when they are known, each once. By the clocks of whoever wrote them and of this machine: where
    /// they differ, so does this.
    fn observe(&self, rows: &[Row], now: Millis) {
        let Some(latency) = self.latency.get() else { return };
        let mut told = None;
        for row in rows {
            // One change may have several rows.
            let (Ok(seq), Ok(at)) = (row.int(0), row.int(5)) else { continue };
            if told.replace(seq) != Some(seq) {
                latency.observe(now.0.saturating_sub(at).max(0) as f64 / 1_000.0);
            }
        }
    }

    /// Before they were read once, everyone counts as suspended.
    pub(crate) fn is_suspended(&self, issuer: &str, sub: &str, session: Option<&str>, jti: Option<&str>) -> bool {
        self.suspended.load().as_ref().is_none_or(|loaded| loaded.value.covers(issuer, sub, session, jti))
    }

    pub(crate) fn is_suspended_token(&self, id: &str) -> bool {
        self.suspended.load().as_ref().is_none_or(|loaded| loaded.value.covers_token(id))
    }

    /// Reads the suspended subjects anew. `restart`: what stands there may be of another database.
    pub(crate) async fn reload_suspended(&self, db: &Database, restart: bool) -> Result<(), StoreError> {
        let loaded = load_suspended(db).await?;
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = self.suspended.load().as_ref().is_none_or(|standing| standing.as_of <= loaded.as_of);
        if newer || restart {
            self.suspended.store(Some(Arc::new(loaded)));
        }
        Ok(())
    }
}

/// Why the feed has to connect anew.
#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error("the database did not answer within {0:?}")]
    Hangs(Duration),
    #[error("the connection that notices come through was lost")]
    Lost,
    #[error("the change counter went back from {0} to {1}: the database was replaced")]
    Rewound(u64, u64),
    #[error("the database file was replaced or moved away")]
    Replaced,
    #[error("it is to end")]
    Stopped,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for FeedError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

pub(crate) struct Feed {
    pub(crate) db: Database,
    pub(crate) known: Arc<Known>,
    pub(crate) settings: LinkSettings,
    /// Turns true when it is to end.
    pub(crate) stop: watch::Receiver<bool>,
    /// Closed when it has ended, however it did.
    pub(crate) _over: watch::Sender<()>,
}

impl Feed {
    /// Runs until it is told to end; its connection is closed then.
    pub(crate) async fn run(self) {
        let mut wait = BACKOFF.0;
        loop {
            let connected = Instant::now();
            let Err(error) = self.follow().await;
            if matches!(error, FeedError::Stopped) {
                return;
            }
            if connected.elapsed() > BACKOFF.1 * 4 {
                wait = BACKOFF.0;
            }
            tracing::warn!(error = &error as &dyn std::error::Error, ?wait, "the link change feed is down");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stopped() => return,
            }
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    async fn stopped(&self) {
        // Nobody is left to say so: that is the end as well.
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }

    /// The longest that one poll may take: a slower one would be stale when it ends.
    fn patience(&self) -> Duration {
        self.settings.max_staleness.max(Duration::from_millis(100))
    }

    async fn follow(&self) -> Result<std::convert::Infallible, FeedError> {
        match &*self.db.backend {
            Backend::Sqlite(files) => self.follow_sqlite(files).await,
            Backend::Postgres { options, .. } => tokio::select! {
                ended = self.follow_postgres(options) => ended,
                () = self.stopped() => Err(FeedError::Stopped),
            },
        }
    }

    async fn follow_sqlite(&self, files: &SqliteFiles) -> Result<std::convert::Infallible, FeedError> {
        let identity = file_identity(files.store.path())?;
        let mut conn = files.connect_reader().await?;
        let ended = tokio::select! {
            ended = self.poll_sqlite(files, identity, &mut conn) => ended,
            () = self.stopped() => Err(FeedError::Stopped),
        };
        // Waited for: the last connection of a file takes its log into it.
        if let Err(error) = self.bounded(conn.close()).await {
            tracing::debug!(%error, "the connection of the change feed did not close well");
        }
        ended
    }

    async fn poll_sqlite(
        &self,
        files: &SqliteFiles,
        identity: (u64, u64),
        conn: &mut SqliteConnection,
    ) -> Result<std::convert::Infallible, FeedError> {
        let mut version = data_version(conn).await?;
        files.renew_pools();
        let mut last = self.restart(&mut Conn::Sqlite(SqliteConn::new(conn, &files.store))).await?;
        let every = SQLITE_POLL.min(self.settings.heartbeat);
        loop {
            tokio::time::sleep(every).await;
            let began = Instant::now();
            // Written to the old file, changes would never be seen here; read from a new one, nothing seen counts.
            if file_identity(files.store.path())? != identity {
                return Err(FeedError::Replaced);
            }
            let found = self.bounded(data_version(conn)).await?;
            if found != version {
                last = self.catch_up(&mut Conn::Sqlite(SqliteConn::new(conn, &files.store)), last).await?;
                version = found;
            }
            self.known.stamp(began);
        }
    }

    async fn follow_postgres(&self, options: &PgConnectOptions) -> Result<std::convert::Infallible, FeedError> {
        let pool =
            PgPoolOptions::new().max_connections(1).acquire_timeout(self.patience()).connect_lazy_with(options.clone());
        let mut listener = self.bounded(PgListener::connect_with(&pool)).await?;
        listener.eager_reconnect(false);
        self.bounded(listener.listen(CHANNEL)).await?;
        let mut last = self.restart(&mut Conn::Postgres(listener.acquire().await?)).await?;
        loop {
            match timeout(self.settings.heartbeat, listener.try_recv()).await {
                Ok(Ok(Some(_))) => while listener.next_buffered().is_some() {},
                Ok(Ok(None)) => return Err(FeedError::Lost),
                Ok(Err(error)) => return Err(error.into()),
                Err(_heartbeat) => {}
            }
            let began = Instant::now();
            last = self.catch_up(&mut Conn::Postgres(listener.acquire().await?), last).await?;
            self.known.stamp(began);
        }
    }

    /// Believes the database behind a new connection, from its present state on.
    async fn restart(&self, conn: &mut Conn<'_>) -> Result<u64, FeedError> {
        let began = Instant::now();
        let seq = self.bounded(read_counter(conn)).await?;
        // The epoch grows last: whoever keeps answers of their own must not find the old suspensions under the new epoch.
        self.bounded(self.known.reload_suspended(&self.db, true)).await?;
        self.known.changes.restart(seq);
        self.known.stamp(began);
        tracing::info!(seq, "the link change feed is up");
        Ok(seq)
    }

    /// Applies everything after change `last`.
    async fn catch_up(&self, conn: &mut Conn<'_>, last: u64) -> Result<u64, FeedError> {
        let now = self.bounded(read_counter(conn)).await?;
        if now < last {
            return Err(FeedError::Rewound(last, now));
        }
        if now == last {
            return Ok(last);
        }
        let rows = self.bounded(read_log(conn, last, now)).await?;
        let touched = touched_by(&rows, last, now)?;
        if touched.iter().any(|(_, touch)| matches!(touch, Touch::Suspensions | Touch::All)) {
            self.bounded(self.known.reload_suspended(&self.db, false)).await?;
        }
        for (seq, touch) in &touched {
            self.known.changes.note(*seq, [touch]);
        }
        self.known.observe(&rows, Millis::now());
        Ok(now)
    }

    async fn bounded<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, FeedError>
    where
        FeedError: From<E>,
    {
        let patience = self.patience();
        Ok(timeout(patience, work).await.map_err(|_| FeedError::Hangs(patience))??)
    }
}

/// Which file it is, beyond its name.
fn file_identity(path: &Path) -> Result<(u64, u64), FeedError> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).map(|file| (file.dev(), file.ino())).map_err(|_| FeedError::Replaced)
}

/// Changes whenever another connection has committed.
async fn data_version(conn: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query("PRAGMA data_version").fetch_one(conn).await?.try_get(0)
}

async fn read_counter(conn: &mut Conn<'_>) -> Result<u64, sqlx::Error> {
    let row = conn.row("SELECT seq FROM change_counter WHERE id = 1", &[]).await?.ok_or(sqlx::Error::RowNotFound)?;
    Ok(u64::try_from(row.int(0)?).unwrap_or_default())
}

async fn read_log(conn: &mut Conn<'_>, after: u64, upto: u64) -> Result<Vec<Row>, sqlx::Error> {
    let number = |seq: u64| Value::Int(i64::try_from(seq).unwrap_or(i64::MAX));
    conn.rows(
        "SELECT seq, kind, partner_id, issuer, sub, at FROM change_log WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3",
        &[number(after), number(upto), Value::Int(MOST_LOGGED)],
    )
    .await
}

/// What the rows say was touched by changes `after + 1` to `upto`; everything, where they do not tell of all of them.
fn touched_by(rows: &[Row], after: u64, upto: u64) -> Result<Vec<(u64, Touch)>, FeedError> {
    let everything = vec![(upto, Touch::All)];
    let mut touched = Vec::with_capacity(rows.len());
    let mut expected = after;
    for row in rows {
        let seq = u64::try_from(row.int(0)?).unwrap_or_default();
        if seq != expected && seq != expected + 1 {
            return Ok(everything);
        }
        expected = seq;
        let touch = match row.str(1)? {
            "none" => continue,
            "partner" => row.maybe_id(2)?.map(|id| Touch::Partner(PartnerId(id))),
            "member" => match (row.maybe_text(3)?, row.maybe_text(4)?) {
                (Some(issuer), Some(sub)) => Some(Touch::Member { issuer, sub }),
                _ => None,
            },
            "suspension" => Some(Touch::Suspensions),
            // Also a kind that a newer version writes.
            _ => Some(Touch::All),
        };
        touched.push((seq, touch.unwrap_or(Touch::All)));
    }
    let cut_off = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= MOST_LOGGED;
    Ok(if cut_off || expected != upto { everything } else { touched })
}
