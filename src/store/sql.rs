//! The thin layer over both databases: values in, rows out, one transaction type.
//!
//! It exists so that a statement is written once. It knows how the two store the types that differ (uuids, booleans,
//! JSON) and nothing else; there is no query builder here, and no statement is put together from input.

use serde::de::DeserializeOwned;
use sqlx::{
    Arguments, AssertSqlSafe, ColumnIndex, Executor, PgConnection, Postgres, Row as _, SqlSafeStr, Sqlite,
    SqliteConnection, Transaction,
    postgres::{PgArguments, PgRow},
    sqlite::{SqliteArguments, SqliteRow},
    types::Json,
};
use uuid::Uuid;

use super::sqlite_fault::SqliteFile;

/// A bound value. Postgres wants to know the type of a null as well.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Text(&'a str),
    MaybeText(Option<&'a str>),
    Int(i64),
    MaybeInt(Option<i64>),
    Flag(bool),
    Id(Uuid),
    MaybeId(Option<Uuid>),
    Json(&'a serde_json::Value),
    MaybeJson(Option<&'a serde_json::Value>),
    Bytes(&'a [u8]),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value<'_> {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl From<bool> for Value<'_> {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<Uuid> for Value<'_> {
    fn from(id: Uuid) -> Self {
        Self::Id(id)
    }
}

/// A count, place or sequence number: both databases store signed numbers only.
pub(crate) fn signed(number: u64) -> Value<'static> {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

/// As [`signed`] stored it.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn encoding(error: sqlx::error::BoxDynError) -> sqlx::Error {
    sqlx::Error::Encode(error)
}

fn sqlite_arguments(values: &[Value<'_>]) -> Result<SqliteArguments, sqlx::Error> {
    let mut arguments = SqliteArguments::default();
    for value in values {
        match *value {
            Value::Text(text) => Arguments::add(&mut arguments, text),
            Value::MaybeText(text) => Arguments::add(&mut arguments, text),
            Value::Int(int) => Arguments::add(&mut arguments, int),
            Value::MaybeInt(int) => Arguments::add(&mut arguments, int),
            Value::Flag(flag) => Arguments::add(&mut arguments, flag),
            Value::Id(id) => Arguments::add(&mut arguments, id.hyphenated()),
            Value::MaybeId(id) => Arguments::add(&mut arguments, id.map(Uuid::hyphenated)),
            Value::Json(json) => Arguments::add(&mut arguments, json.to_string()),
            Value::MaybeJson(json) => Arguments::add(&mut arguments, json.map(ToString::to_string)),
            Value::Bytes(bytes) => Arguments::add(&mut arguments, bytes),
        }
        .map_err(encoding)?;
    }
    Ok(arguments)
}

fn postgres_arguments(values: &[Value<'_>]) -> Result<PgArguments, sqlx::Error> {
    let mut arguments = PgArguments::default();
    for value in values {
        match *value {
            Value::Text(text) => arguments.add(text),
            Value::MaybeText(text) => arguments.add(text),
            Value::Int(int) => arguments.add(int),
            Value::MaybeInt(int) => arguments.add(int),
            Value::Flag(flag) => arguments.add(flag),
            Value::Id(id) => arguments.add(id),
            Value::MaybeId(id) => arguments.add(id),
            Value::Json(json) => arguments.add(Json(json)),
            Value::MaybeJson(json) => arguments.add(json.map(Json)),
            Value::Bytes(bytes) => arguments.add(bytes),
        }
        .map_err(encoding)?;
    }
    Ok(arguments)
}

/// A connection to a file of SQLite, whose errors name the file.
pub(crate) struct SqliteConn<'c> {
    pub(crate) conn: &'c mut SqliteConnection,
    file: &'c SqliteFile,
    writes: bool,
}

impl<'c> SqliteConn<'c> {
    pub(crate) fn new(conn: &'c mut SqliteConnection, file: &'c SqliteFile) -> Self {
        Self { conn, file, writes: false }
    }

    pub(crate) fn fault(&self, error: sqlx::Error) -> sqlx::Error {
        if self.writes { self.file.failed_write(error) } else { self.file.fault(error) }
    }
}

/// A connection of either database, borrowed for some statements.
pub(crate) enum Conn<'c> {
    Sqlite(SqliteConn<'c>),
    Postgres(&'c mut PgConnection),
}

impl Conn<'_> {
    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Runs a statement and tells how many rows it changed.
    pub(crate) async fn execute(&mut self, sql: impl SqlSafeStr, values: &[Value<'_>]) -> Result<u64, sqlx::Error> {
        match self {
            Self::Sqlite(sqlite) => {
                let query = sqlx::query_with(sql, sqlite_arguments(values)?);
                let done = sqlite.conn.execute(query).await;
                done.map(|done| done.rows_affected()).map_err(|error| sqlite.fault(error))
            }
            Self::Postgres(conn) => {
                let query = sqlx::query_with(sql, postgres_arguments(values)?);
                conn.execute(query).await.map(|done| done.rows_affected())
            }
        }
    }

    pub(crate) async fn rows(&mut self, sql: impl SqlSafeStr, values: &[Value<'_>]) -> Result<Vec<Row>, sqlx::Error> {
        match self {
            Self::Sqlite(sqlite) => {
                let query = sqlx::query_with(sql, sqlite_arguments(values)?);
                let rows = sqlite.conn.fetch_all(query).await.map_err(|error| sqlite.fault(error))?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Self::Postgres(conn) => {
                let query = sqlx::query_with(sql, postgres_arguments(values)?);
                Ok(conn.fetch_all(query).await?.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    pub(crate) async fn row(&mut self, sql: impl SqlSafeStr, values: &[Value<'_>]) -> Result<Option<Row>, sqlx::Error> {
        match self {
            Self::Sqlite(sqlite) => {
                let query = sqlx::query_with(sql, sqlite_arguments(values)?);
                let row = sqlite.conn.fetch_optional(query).await.map_err(|error| sqlite.fault(error))?;
                Ok(row.map(Row::Sqlite))
            }
            Self::Postgres(conn) => {
                let query = sqlx::query_with(sql, postgres_arguments(values)?);
                Ok(conn.fetch_optional(query).await?.map(Row::Postgres))
            }
        }
    }

    /// Several statements without values, such as `SAVEPOINT row`; not prepared.
    pub(crate) async fn batch(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(sqlite) => {
                let done = sqlite.conn.execute(sqlx::raw_sql(sql)).await;
                done.map(drop).map_err(|error| sqlite.fault(error))
            }
            Self::Postgres(conn) => conn.execute(sqlx::raw_sql(sql)).await.map(drop),
        }
    }
}

/// Marks a statement put together from constant pieces only; every value in it is bound.
pub(crate) fn composed(sql: impl Into<String>) -> AssertSqlSafe<String> {
    AssertSqlSafe(sql.into())
}

/// A transaction on a file of SQLite.
pub(crate) struct SqliteTx {
    tx: Transaction<'static, Sqlite>,
    file: SqliteFile,
    writes: bool,
}

impl SqliteTx {
    pub(crate) fn new(tx: Transaction<'static, Sqlite>, file: &SqliteFile, writes: bool) -> Self {
        Self { tx, file: file.clone(), writes }
    }

    async fn commit(self) -> Result<(), sqlx::Error> {
        match self.tx.commit().await {
            Ok(()) => {
                if self.writes {
                    self.file.wrote();
                }
                Ok(())
            }
            Err(error) => Err(if self.writes { self.file.failed_write(error) } else { self.file.fault(error) }),
        }
    }
}

/// A transaction of either database; dropped without `commit` it is rolled back.
pub(crate) enum Tx {
    Sqlite(SqliteTx),
    Postgres(Transaction<'static, Postgres>),
}

impl Tx {
    pub(crate) fn conn(&mut self) -> Conn<'_> {
        match self {
            Self::Sqlite(SqliteTx { tx, file, writes }) => {
                Conn::Sqlite(SqliteConn { conn: &mut *tx, file, writes: *writes })
            }
            Self::Postgres(tx) => Conn::Postgres(&mut *tx),
        }
    }

    pub(crate) async fn execute(&mut self, sql: impl SqlSafeStr, values: &[Value<'_>]) -> Result<u64, sqlx::Error> {
        self.conn().execute(sql, values).await
    }

    pub(crate) async fn rows(&mut self, sql: impl SqlSafeStr, values: &[Value<'_>]) -> Result<Vec<Row>, sqlx::Error> {
        self.conn().rows(sql, values).await
    }

    pub(crate) async fn row(&mut self, sql: impl SqlSafeStr, values: &[Value<'_>]) -> Result<Option<Row>, sqlx::Error> {
        self.conn().row(sql, values).await
    }

    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::Postgres(tx) => tx.commit().await,
        }
    }
}

/// A row of either database, read by position or by name.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// What a column can be asked by on both databases.
pub(crate) trait Column: ColumnIndex<SqliteRow> + ColumnIndex<PgRow> + Copy {}
impl<T: ColumnIndex<SqliteRow> + ColumnIndex<PgRow> + Copy> Column for T {}

macro_rules! getters {
    ($($name:ident: $type:ty),+ $(,)?) => {
        $(pub(crate) fn $name(&self, column: impl Column) -> Result<$type, sqlx::Error> {
            match self {
                Self::Sqlite(row) => row.try_get(column),
                Self::Postgres(row) => row.try_get(column),
            }
        })+
    };
}

impl Row {
    getters! {
        text: String,
        maybe_text: Option<String>,
        int: i64,
        maybe_int: Option<i64>,
        flag: bool,
        bytes: Vec<u8>,
    }

    /// Borrowed text, for values that are only looked at.
    pub(crate) fn str(&self, column: impl Column) -> Result<&str, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    pub(crate) fn id(&self, column: impl Column) -> Result<Uuid, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get::<uuid::fmt::Hyphenated, _>(column).map(Uuid::from),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    pub(crate) fn maybe_id(&self, column: impl Column) -> Result<Option<Uuid>, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get::<Option<uuid::fmt::Hyphenated>, _>(column).map(|id| id.map(Uuid::from)),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, column: impl Column) -> Result<T, sqlx::Error> {
        match self {
            Self::Sqlite(row) => {
                let text: &str = row.try_get(column)?;
                serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(Box::new(error)))
            }
            Self::Postgres(row) => row.try_get::<Json<T>, _>(column).map(|json| json.0),
        }
    }

    pub(crate) fn maybe_json<T: DeserializeOwned>(&self, column: impl Column) -> Result<Option<T>, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row
                .try_get::<Option<&str>, _>(column)?
                .map(|text| serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(Box::new(error))))
                .transpose(),
            Self::Postgres(row) => row.try_get::<Option<Json<T>>, _>(column).map(|json| json.map(|json| json.0)),
        }
    }
}
