//! A Postgres database for one test, on the server that `tests/run` starts; dropped with the test.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: what fails here fails the test")]

use linkgate::domain::Millis;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

/// The URL of the test server.
pub fn server() -> String {
    std::env::var("LINKGATE_TEST_POSTGRES").unwrap_or_else(|_| {
        panic!("LINKGATE_TEST_POSTGRES is not set: run the tests with `tests/run`, which starts a Postgres for them")
    })
}

pub struct PostgresDatabase {
    server: String,
    name: String,
    pub url: String,
}

impl PostgresDatabase {
    pub fn make(server: &str) -> Self {
        let name = format!("made_{}_{}", std::process::id(), Millis::now().0);
        execute(server, format!("CREATE DATABASE {name}"));
        let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
        Self { server: server.to_owned(), name, url }
    }
}

impl Drop for PostgresDatabase {
    fn drop(&mut self) {
        execute(&self.server, format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

fn execute(server: &str, sql: String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut conn = PgConnection::connect(server).await.unwrap();
        conn.execute(AssertSqlSafe(sql)).await.unwrap();
        conn.close().await.unwrap();
    });
}
