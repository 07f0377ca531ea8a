//! Audit journals in Postgres: where `audit::mirror` keeps what is written, and where a replica without a volume finds it.
//!
//! A server takes a chain by an advisory lock on a connection of its own, which is free again the moment that its holder dies,
//! and raises the chain's epoch. Each run of lines is added by that connection, in a transaction that looks at the epoch: a
//! server that only believes that it still holds the chain adds nothing. Runs stay until the index has their lines; a journal
//! is put together again from both.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    time::Duration,
};

use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{runtime::Handle, sync::Mutex};
use uuid::Uuid;

use super::{
    AuditStore, Database, StoreError,
    audit_evidence::{COLUMNS, kept},
    audit_index::{signed, unsigned},
    database::Backend,
    sql::{Conn, Tx, Value, composed},
};
use crate::audit::{
    ChainId,
    encode::FORMAT,
    evidence::{Kept, shelf::Shelf},
    mirror::{Depot, TakenOver},
    reader::{CHAIN_FILE, ChainFile, segment_path},
};

/// Longest wait for one run to be on stable storage; whoever waits for it gave up long before.
const KEEP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server waits for the chain that it held before: its last connection may not have ended yet.
const OWN_CHAIN: Duration = Duration::from_secs(2);
/// A chain whose server was heard of by the database so lately, in milliseconds, is taken by nobody but itself: that its
/// connection broke does not mean that it is gone.
const HEARD_MS: i64 = 15_000;
/// How often it is noted that a server is there.
const BEAT: Duration = Duration::from_secs(3);
/// The database's clock, for all servers the same.
const CLOCK: &str = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";
/// Rows read at once: a chunk has eight mebibytes at most.
const ROWS_AT_ONCE: i64 = 4;

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
    held: Mutex<Option<Held>>,
}

/// The connection that adds, and whether it has the lock.
struct Held {
    conn: PgConnection,
    locked: bool,
    beat: tokio::time::Instant,
}

async fn lock(conn: &mut PgConnection, chain: Uuid) -> Result<bool, sqlx::Error> {
    let sql = "SELECT pg_try_advisory_lock(hashtextextended('linkgate audit journal ' || CAST($1 AS TEXT), 0))";
    let row = Conn::Postgres(conn).row(sql, &[chain.into()]).await?;
    row.ok_or(sqlx::Error::RowNotFound)?.flag(0)
}

impl PostgresDepot {
    /// Takes a chain whose server is gone, rather the one that `holder` had before, or begins a new one. Called on the
    /// runtime that stays.
    pub async fn claim(db: &Database, holder: &str) -> Result<Self, DepotError> {
        let Backend::Postgres { options, .. } = &*db.backend else { return Err(DepotError::NoPostgres) };
        let options = PgConnectOptions::clone(options);
        let mut conn = options.connect().await?;
        let chain = match Self::orphan(&mut conn, holder).await? {
            Some(chain) => chain,
            None => Uuid::new_v4(),
        };
        let locked = lock(&mut conn, chain).await?;
        let sql = format!(
            "INSERT INTO audit_journals (chain_id, epoch, holder, taken_at) VALUES ($1, 1, $2, {CLOCK}) \
             ON CONFLICT (chain_id) DO UPDATE SET epoch = audit_journals.epoch + 1, holder = excluded.holder, \
             taken_at = excluded.taken_at RETURNING epoch"
        );
        let row = Conn::Postgres(&mut conn).row(composed(sql), &[chain.into(), Value::Text(holder)]).await?;
        let epoch = row.ok_or(sqlx::Error::RowNotFound)?.int(0)?;
        let held = Mutex::new(Some(Held { conn, locked, beat: tokio::time::Instant::now() }));
        Ok(Self { options, runtime: Handle::current(), chain: ChainId(chain), epoch, held })
    }

    /// A chain that nobody holds; its lock is taken.
    async fn orphan(conn: &mut PgConnection, holder: &str) -> Result<Option<Uuid>, sqlx::Error> {
        let until = tokio::time::Instant::now() + OWN_CHAIN;
        loop {
            let sql = format!(
                "SELECT chain_id, holder = $1 FROM audit_journals WHERE holder = $1 OR taken_at < {CLOCK} - {HEARD_MS} \
                 ORDER BY holder <> $1, taken_at DESC"
            );
            let rows = Conn::Postgres(conn).rows(composed(sql), &[Value::Text(holder)]).await?;
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

    /// Adds a run, if there is one. `false`: the chain is another server's.
    async fn add(&self, run: Option<(u64, u64, &[u8])>) -> Result<bool, sqlx::Error> {
        let mut slot = self.held.lock().await;
        // Taken out: a connection of which it is not known what it did is closed.
        let mut held = match slot.take() {
            Some(held) => held,
            None => {
                let (conn, now) = (self.options.connect().await?, tokio::time::Instant::now());
                Held { conn, locked: false, beat: now.checked_sub(BEAT).unwrap_or(now) }
            }
        };
        if !held.locked {
            // Of this server's own last connection, which the database may not have missed yet. The epoch decides.
            held.locked = lock(&mut held.conn, self.chain.0).await?;
        }
        let mut tx = held.conn.begin().await?;
        let mut conn = Conn::Postgres(&mut tx);
        // Whatever the server's default is.
        conn.batch("SET LOCAL synchronous_commit = on").await?;
        let own = "SELECT chain_id FROM audit_journals WHERE chain_id = $1 AND epoch = $2 FOR UPDATE";
        let is_own = conn.row(own, &[self.chain.0.into(), self.epoch.into()]).await?.is_some();
        let beats = is_own && held.beat.elapsed() >= BEAT;
        if beats {
            let sql = format!("UPDATE audit_journals SET taken_at = {CLOCK} WHERE chain_id = $1");
            conn.execute(composed(sql), &[self.chain.0.into()]).await?;
        }
        if is_own && let Some((segment, start, bytes)) = run {
            let end = start.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            let sql = "INSERT INTO audit_journal_runs (chain_id, segment, segment_start, segment_end, lines) \
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT (chain_id, segment, segment_start) \
                 DO UPDATE SET segment_end = excluded.segment_end, lines = excluded.lines \
                 WHERE excluded.segment_end > audit_journal_runs.segment_end";
            let values = [self.chain.0.into(), signed(segment), signed(start), signed(end), Value::Bytes(bytes)];
            conn.execute(sql, &values).await?;
        }
        tx.commit().await?;
        if beats {
            held.beat = tokio::time::Instant::now();
        }
        *slot = Some(held);
        Ok(is_own)
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
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(io::Error::other(TakenOver)),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the database does not answer")),
        }
    }
}

/// A segment that is put together from what the database has of it.
struct Rebuilt {
    dir: std::path::PathBuf,
    open: Option<(u64, File)>,
}

impl Rebuilt {
    fn put(&mut self, segment: u64, start: u64, bytes: &[u8]) -> Result<(), DepotError> {
        let path = segment_path(&self.dir, segment);
        let failed = |source| DepotError::Folder { path: path.clone(), source };
        let file = match &self.open {
            Some((number, file)) if *number == segment => file,
            _ => {
                let mut options = OpenOptions::new();
                let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
                &self.open.insert((segment, file)).1
            }
        };
        file.write_all_at(bytes, start).map_err(failed)
    }
}

impl AuditStore {
    /// The chains that are kept here.
    pub async fn kept_chains(&self) -> Result<Vec<ChainId>, StoreError> {
        if !self.db.is_postgres() {
            return Ok(Vec::new());
        }
        let sql = "SELECT chain_id FROM audit_journals ORDER BY taken_at, chain_id";
        let rows = self.db.begin_audit_read().await?.rows(sql, &[]).await?;
        rows.iter().map(|row| Ok(ChainId(row.id(0)?))).collect()
    }

    /// Targets of shipping that have something of this chain.
    pub async fn kept_targets(&self, chain: ChainId) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT target FROM audit_journal_targets WHERE chain_id = $1";
        let rows = self.db.begin_audit_read().await?.rows(sql, &[chain.0.into()]).await?;
        Ok(rows.iter().map(|row| row.text(0)).collect::<Result<_, _>>()?)
    }

    /// Writes the journal of a chain into an empty folder. `whole`: all of it; else as much as a server needs to go on.
    pub async fn rebuild(&self, chain: ChainId, dir: &Path, whole: bool) -> Result<(), DepotError> {
        let mut tx = self.db.begin_audit_read().await?;
        let from = if whole { 1 } else { needed(&mut tx, chain).await? };
        let mut rebuilt = Rebuilt { dir: dir.to_owned(), open: None };
        let mut after = Value::Int(-1);
        loop {
            let sql = "SELECT first_seq, segment, segment_start, lines FROM audit_chunks \
                 WHERE chain_id = $1 AND segment >= $2 AND first_seq > $3 ORDER BY first_seq LIMIT $4";
            let rows = tx.rows(sql, &[chain.0.into(), signed(from), after, ROWS_AT_ONCE.into()]).await?;
            for row in &rows {
                after = Value::Int(row.int(0)?);
                rebuilt.put(unsigned(row.int(1)?), unsigned(row.int(2)?), &row.bytes(3)?)?;
            }
            if rows.is_empty() {
                break;
            }
        }
        let (mut segment, mut start) = (signed(from), Value::Int(-1));
        loop {
            let sql = "SELECT segment, segment_start, lines FROM audit_journal_runs WHERE chain_id = $1 \
                 AND (segment, segment_start) > ($2, $3) ORDER BY segment, segment_start LIMIT $4";
            let rows = tx.rows(sql, &[chain.0.into(), segment, start, (ROWS_AT_ONCE * 4).into()]).await?;
            for row in &rows {
                (segment, start) = (Value::Int(row.int(0)?), Value::Int(row.int(1)?));
                rebuilt.put(unsigned(row.int(0)?), unsigned(row.int(1)?), &row.bytes(2)?)?;
            }
            if rows.is_empty() {
                break;
            }
        }
        let sql = composed(format!("SELECT {COLUMNS} FROM audit_checkpoints WHERE chain_id = $1 ORDER BY last_seq"));
        let rows = tx.rows(sql, &[chain.0.into()]).await?;
        let shelved = rows.iter().map(kept).collect::<Result<Vec<Kept>, _>>()?;
        let failed = |source| DepotError::Folder { path: dir.to_owned(), source };
        let named = serde_json::to_vec(&ChainFile { chain_id: chain, format: FORMAT }).map_err(io::Error::from);
        named.and_then(|named| std::fs::write(dir.join(CHAIN_FILE), named)).map_err(failed)?;
        Shelf::open(dir).and_then(|mut shelf| shelf.add(&shelved)).map_err(failed)?;
        let sql = "SELECT target, state FROM audit_journal_targets WHERE chain_id = $1";
        for row in tx.rows(sql, &[chain.0.into()]).await? {
            let path = dir.join(format!("ship-{}.json", row.str(0)?));
            std::fs::write(&path, row.str(1)?).map_err(|source| DepotError::Folder { path, source })?;
        }
        Ok(())
    }

    /// Notes how far targets of shipping are, and drops runs whose lines the index has.
    pub async fn tidy_journal(&self, chain: ChainId, targets: &[(String, String)]) -> Result<(), StoreError> {
        let mut tx = self.db.begin_audit_write().await?;
        for (target, position) in targets {
            let sql = "INSERT INTO audit_journal_targets (chain_id, target, state) VALUES ($1, $2, $3) \
                 ON CONFLICT (chain_id, target) DO UPDATE SET state = excluded.state";
            tx.execute(sql, &[chain.0.into(), Value::Text(target), Value::Text(position)]).await?;
        }
        let sql = "DELETE FROM audit_journal_runs USING audit_positions \
             WHERE audit_journal_runs.chain_id = $1 AND audit_positions.chain_id = $1 \
             AND (audit_journal_runs.segment < audit_positions.segment \
             OR (audit_journal_runs.segment = audit_positions.segment AND segment_end <= segment_offset))";
        tx.execute(sql, &[chain.0.into()]).await?;
        Ok(tx.commit().await?)
    }
}

/// The first segment that a server needs: the last two, and what index, checkpoints or a target have not seen.
async fn needed(tx: &mut Tx, chain: ChainId) -> Result<u64, StoreError> {
    let sql = "SELECT min(segment) FROM ( \
         SELECT max(segment) - 1 AS segment FROM ( \
             SELECT segment FROM audit_positions WHERE chain_id = $1 \
             UNION ALL SELECT max(segment) FROM audit_journal_runs WHERE chain_id = $1) last \
         UNION ALL SELECT coalesce((SELECT segment FROM audit_positions WHERE chain_id = $1), 1) \
         UNION ALL (SELECT segment FROM audit_checkpoints WHERE chain_id = $1 ORDER BY last_seq DESC LIMIT 1) \
         UNION ALL SELECT CAST(CAST(state AS JSON) ->> 'segment' AS BIGINT) FROM audit_journal_targets \
             WHERE chain_id = $1) needed";
    let row = tx.row(sql, &[chain.0.into()]).await?;
    Ok(unsigned(row.map_or(Ok(None), |row| row.maybe_int(0))?.unwrap_or(1)).max(1))
}
