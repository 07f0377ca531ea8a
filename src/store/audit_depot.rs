//! Audit journals in Postgres: where `audit::mirror` keeps what is written, and where a replica without a volume finds it.
//!
//! A server takes a chain by an advisory lock on a connection of its own, which is free again the moment that its holder dies,
//! and raises the chain's epoch. Each run of lines is added by that connection, in a transaction that looks at the epoch: a
//! server that only believes that it still holds the chain adds nothing. It looks for the run before as well: a database that
//! lost what it had confirmed (a failover to a standby that was behind) gets nothing more. Runs stay until the index has
//! their lines; a journal is put together again from both (`audit_rebuild`).

use std::{io, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{runtime::Handle, sync::Mutex};
use uuid::Uuid;

use super::{
    Database, StoreError,
    database::Backend,
    sql::{Conn, Value, composed, signed, unsigned},
};
use crate::audit::{
    ChainId,
    mirror::{Depot, Lost, TakenOver},
};

/// Longest wait for one run to be on stable storage; whoever waits for it gave up long before.
const KEEP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server waits for the chain that it held before: its last connection may not have ended yet.
const OWN_CHAIN: Duration = Duration::from_secs(2);
/// A chain whose server was heard of by the database so lately is taken by nobody but itself: that its connection broke does
/// not mean that it is gone.
pub const HEARD: Duration = Duration::from_secs(15);
/// How often it is noted that a server is there.
const BEAT: Duration = Duration::from_secs(3);
/// The database's clock, for all servers the same.
pub(super) const CLOCK: &str = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";

/// Why a journal cannot be taken or put together.
#[derive(Debug, thiserror::Error)]
pub enum DepotError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("`audit.store = \"postgres\"` needs a Postgres database")]
    NoPostgres,
    #[error("`{path}` cannot be written: {source}")]
    Folder { path: std::path::PathBuf, source: io::Error },
}

impl From<sqlx::Error> for DepotError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// The chain that this server holds.
pub struct PostgresDepot {
    options: PgConnectOptions,
    runtime: Handle,
    chain: ChainId,
    epoch: i64,
    held: Mutex<Held>,
}

/// The connection that adds, and what is known of what it did.
#[derive(Default)]
struct Held {
    /// `None`: it broke.
    link: Option<Link>,
    /// The last run that the database confirmed.
    last: Option<Run>,
}

struct Link {
    conn: PgConnection,
    /// Whether it has the lock.
    locked: bool,
    beat: tokio::time::Instant,
}

#[derive(Clone)]
struct Run {
    segment: u64,
    start: u64,
    end: u64,
    hash: Vec<u8>,
}

/// What the database said to a run.
enum Said {
    Kept,
    TakenOver,
    /// What it confirmed before is not there.
    Lost,
}

/// What stands for a chain among the database's advisory locks.
const LOCK: &str = "hashtextextended('linkgate audit journal ' || CAST($1 AS TEXT), 0)";

async fn lock(conn: &mut PgConnection, chain: Uuid) -> Result<bool, sqlx::Error> {
    let sql = composed(format!("SELECT pg_try_advisory_lock({LOCK})"));
    let row = Conn::Postgres(conn).row(sql, &[chain.into()]).await?;
    row.ok_or(sqlx::Error::RowNotFound)?.flag(0)
}

/// Until the transaction ends; `false`: somebody has the chain.
pub(super) async fn lock_for_now(conn: &mut Conn<'_>, chain: ChainId) -> Result<bool, sqlx::Error> {
    let sql = composed(format!("SELECT pg_try_advisory_xact_lock({LOCK})"));
    conn.row(sql, &[chain.0.into()]).await?.ok_or(sqlx::Error::RowNotFound)?.flag(0)
}

fn millis(time: Duration) -> Value<'static> {
    Value::Int(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

fn options(db: &Database) -> Result<PgConnectOptions, DepotError> {
    let Backend::Postgres { options, .. } = &*db.backend else { return Err(DepotError::NoPostgres) };
    Ok(PgConnectOptions::clone(options))
}

impl PostgresDepot {
    /// Takes a chain whose server is gone, rather the one that `holder` had before, or begins a new one. Called on the
    /// runtime that stays.
    pub async fn claim(db: &Database, holder: &str) -> Result<Self, DepotError> {
        let options = options(db)?;
        let mut conn = options.connect().await?;
        let chain = match Self::orphan(&mut conn, holder).await? {
            Some(chain) => chain,
            None => Uuid::new_v4(),
        };
        let locked = lock(&mut conn, chain).await?;
        let sql = format!(
            "INSERT INTO audit_journals (chain_id, epoch, holder, taken_at) VALUES ($1, 1, $2, {CLOCK}) \
             ON CONFLICT (chain_id) DO UPDATE SET epoch = audit_journals.epoch + 1, holder = excluded.holder, \
             taken_at = excluded.taken_at, ended_seq = NULL RETURNING epoch"
        );
        let row = Conn::Postgres(&mut conn).row(composed(sql), &[chain.into(), Value::Text(holder)]).await?;
        let epoch = row.ok_or(sqlx::Error::RowNotFound)?.int(0)?;
        Ok(Self::holding(options, conn, locked, ChainId(chain), epoch))
    }

    /// Takes this chain on behalf of a server that is gone, to end what that left: the chain stays its own. `None`: the
    /// database heard of its server within `silent`, or somebody has it.
    pub async fn adopt(db: &Database, chain: ChainId, silent: Duration) -> Result<Option<Self>, DepotError> {
        let options = options(db)?;
        let mut conn = options.connect().await?;
        if !lock(&mut conn, chain.0).await? {
            return Ok(None);
        }
        let sql = format!(
            "UPDATE audit_journals SET epoch = epoch + 1 \
             WHERE chain_id = $1 AND taken_at < {CLOCK} - $2 AND fault IS NULL RETURNING epoch"
        );
        let row = Conn::Postgres(&mut conn).row(composed(sql), &[chain.0.into(), millis(silent)]).await?;
        let Some(row) = row else { return Ok(None) };
        let epoch = row.int(0)?;
        Ok(Some(Self::holding(options, conn, true, chain, epoch)))
    }

    fn holding(options: PgConnectOptions, conn: PgConnection, locked: bool, chain: ChainId, epoch: i64) -> Self {
        let link = Link { conn, locked, beat: tokio::time::Instant::now() };
        let held = Mutex::new(Held { link: Some(link), last: None });
        Self { options, runtime: Handle::current(), chain, epoch, held }
    }

    /// A chain that nobody holds; its lock is taken.
    async fn orphan(conn: &mut PgConnection, holder: &str) -> Result<Option<Uuid>, sqlx::Error> {
        let until = tokio::time::Instant::now() + OWN_CHAIN;
        loop {
            let sql = format!(
                "SELECT chain_id, holder = $1 FROM audit_journals \
                 WHERE (holder = $1 OR taken_at < {CLOCK} - $2) AND fault IS NULL \
                 ORDER BY holder <> $1, taken_at DESC"
            );
            let rows = Conn::Postgres(conn).rows(composed(sql), &[Value::Text(holder), millis(HEARD)]).await?;
            let own = rows.first().map_or(Ok(false), |row| row.flag(1))?;
            let patient = own && tokio::time::Instant::now() < until;
            for row in &rows {
                if patient && !row.flag(1)? {
                    break;
                }
                let chain = row.id(0)?;
                if lock(conn, chain).await? {
                    return Ok(Some(chain));
                }
            }
            if !patient {
                return Ok(None);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn chain(&self) -> ChainId {
        self.chain
    }

    /// How often the chain was taken: who took it before changes nothing of it any more.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Adds a run, if there is one.
    async fn add(&self, run: Option<(u64, u64, &[u8])>) -> Result<Said, sqlx::Error> {
        let mut held = self.held.lock().await;
        // Taken out: a connection of which it is not known what it did is closed.
        let mut link = match held.link.take() {
            Some(link) => link,
            None => {
                let (conn, now) = (self.options.connect().await?, tokio::time::Instant::now());
                Link { conn, locked: false, beat: now.checked_sub(BEAT).unwrap_or(now) }
            }
        };
        if !link.locked {
            // Of this server's own last connection, which the database may not have missed yet. The epoch decides.
            link.locked = lock(&mut link.conn, self.chain.0).await?;
        }
        let mut tx = link.conn.begin().await?;
        let mut conn = Conn::Postgres(&mut tx);
        // Whatever the server's default is.
        conn.batch("SET LOCAL synchronous_commit = on").await?;
        let own = "SELECT epoch FROM audit_journals WHERE chain_id = $1 FOR UPDATE";
        let epoch = conn.row(own, &[self.chain.0.into()]).await?.map(|row| row.int(0)).transpose()?;
        let said = match epoch {
            Some(epoch) if epoch > self.epoch => Said::TakenOver,
            Some(epoch) if epoch == self.epoch && self.is_there(&mut conn, held.last.as_ref()).await? => Said::Kept,
            _ => Said::Lost,
        };
        let beats = matches!(said, Said::Kept) && link.beat.elapsed() >= BEAT;
        if beats {
            let sql = format!("UPDATE audit_journals SET taken_at = {CLOCK} WHERE chain_id = $1");
            conn.execute(composed(sql), &[self.chain.0.into()]).await?;
        }
        let mut added = None;
        if matches!(said, Said::Kept)
            && let Some((segment, start, bytes)) = run
        {
            let end = start.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            let sql = "INSERT INTO audit_journal_runs (chain_id, segment, segment_start, segment_end, lines) \
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT (chain_id, segment, segment_start) \
                 DO UPDATE SET segment_end = excluded.segment_end, lines = excluded.lines \
                 WHERE excluded.segment_end > audit_journal_runs.segment_end";
            let values = [self.chain.0.into(), signed(segment), signed(start), signed(end), Value::Bytes(bytes)];
            conn.execute(sql, &values).await?;
            added = Some(Run { segment, start, end, hash: digest(&SHA256, bytes).as_ref().to_vec() });
        }
        tx.commit().await?;
        if beats {
            link.beat = tokio::time::Instant::now();
        }
        held.last = added.or(held.last.take());
        held.link = Some(link);
        Ok(said)
    }

    /// Whether the database still has the run that it confirmed last, as a run or in the index.
    async fn is_there(&self, conn: &mut Conn<'_>, last: Option<&Run>) -> Result<bool, sqlx::Error> {
        let Some(Run { segment, start, end, hash }) = last else { return Ok(true) };
        let sql = "SELECT 1 FROM audit_journal_runs WHERE chain_id = $1 AND segment = $2 AND segment_start = $3 \
                 AND segment_end = $4 AND sha256(lines) = $5 \
             UNION ALL SELECT 1 FROM audit_positions WHERE chain_id = $1 \
                 AND (segment > $2 OR (segment = $2 AND segment_offset >= $4)) LIMIT 1";
        let values = [self.chain.0.into(), signed(*segment), signed(*start), signed(*end), Value::Bytes(hash)];
        Ok(conn.row(sql, &values).await?.is_some())
    }
}

impl Depot for PostgresDepot {
    fn keep(&self, segment: u64, start: u64, bytes: &[u8]) -> io::Result<()> {
        self.added(Some((segment, start, bytes)))
    }

    fn hold(&self) -> io::Result<()> {
        self.added(None)
    }
}

impl PostgresDepot {
    fn added(&self, run: Option<(u64, u64, &[u8])>) -> io::Result<()> {
        // The timer is made within the runtime.
        let added = self.runtime.block_on(async { tokio::time::timeout(KEEP_TIMEOUT, self.add(run)).await });
        match added {
            Ok(Ok(Said::Kept)) => Ok(()),
            Ok(Ok(Said::TakenOver)) => Err(io::Error::other(TakenOver)),
            Ok(Ok(Said::Lost)) => Err(io::Error::other(Lost)),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the database does not answer")),
        }
    }
}

/// Whether this is still the chain's server, until the transaction ends. Runs in every transaction that changes what belongs
/// to a chain in its server's name.
pub(super) async fn is_own(conn: &mut Conn<'_>, chain: ChainId, epoch: i64) -> Result<bool, sqlx::Error> {
    let sql = "SELECT chain_id FROM audit_journals WHERE chain_id = $1 AND epoch = $2 FOR UPDATE";
    Ok(conn.row(sql, &[chain.0.into(), epoch.into()]).await?.is_some())
}

/// The number of the segment up to which a chain was given up, and of the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Floor {
    pub(super) segment: u64,
    pub(super) last_seq: u64,
}

impl Floor {
    pub(super) async fn of(conn: &mut Conn<'_>, chain: ChainId) -> Result<Self, sqlx::Error> {
        let sql = "SELECT segment, last_seq FROM audit_floors WHERE chain_id = $1";
        let Some(row) = conn.row(sql, &[chain.0.into()]).await? else { return Ok(Self::default()) };
        Ok(Self { segment: unsigned(row.int(0)?), last_seq: unsigned(row.int(1)?) })
    }
}
