//! A database that hangs or is away.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use linkgate::{
    config::settings::DatabaseSettings,
    domain::{Gate, Millis, Secret},
    store::{Database, Directory, LinksUnavailable, Reading},
};
use tokio::net::{TcpListener, TcpStream};

use crate::fixture::{Fixture, Kind, eventually, link_settings};

/// Between us and Postgres: passes bytes on, or holds them back while connections stay open, as a stopped server does.
struct Between {
    port: u16,
    frozen: Arc<AtomicBool>,
}

impl Between {
    async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let frozen = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&frozen);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (flag, server) = (Arc::clone(&flag), server.clone());
                tokio::spawn(async move {
                    let upstream = TcpStream::connect(server).await.unwrap();
                    let (client_in, client_out) = client.into_split();
                    let (server_in, server_out) = upstream.into_split();
                    tokio::join!(pass(client_in, server_out, &flag), pass(server_in, client_out, &flag));
                });
            }
        });
        Self { port, frozen }
    }

    fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::SeqCst);
    }
}

async fn pass(from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, frozen: &AtomicBool) {
    use tokio::io::AsyncWriteExt;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        from.readable().await.unwrap();
        let read = match from.try_read(&mut buffer) {
            Ok(0) | Err(_) if !would_block(&from, &mut buffer) => return,
            Ok(read) => read,
            Err(_) => continue,
        };
        while frozen.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Told apart from an end: nothing there yet.
fn would_block(from: &tokio::net::tcp::OwnedReadHalf, buffer: &mut [u8]) -> bool {
    matches!(from.try_read(buffer), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

pub(crate) async fn a_database_that_is_away_shows_as_stale_and_comes_back(f: Arc<Fixture>) {
    let (partner, tenant) = (f.partner("p").await, f.tenant("t").await);
    f.user("i", "u", partner).await;
    let link = f.granted(partner, &tenant, "auditor").await;
    let between = match f.kind {
        Kind::Postgres => {
            let address = f.url().split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
            Some((Between::start(address.clone()).await, address))
        }
        Kind::Sqlite => None,
    };
    let db = match &between {
        Some((between, address)) => {
            let url = f.url().replace(address.as_str(), &format!("127.0.0.1:{}", between.port));
            let settings = DatabaseSettings::Postgres { url: Secret::new(url.into_bytes()), max_connections: 4 };
            Database::open(&settings).await.unwrap()
        }
        None => f.db.clone(),
    };
    let path = f.dir.path().join("linkgate.db");
    let aside = f.dir.path().join("aside.db");
    let away = |away: bool| match &between {
        Some((between, _)) => between.freeze(away),
        None if away => std::fs::rename(&path, &aside).unwrap(),
        None => std::fs::rename(&aside, &path).unwrap(),
    };

    let directory = Directory::start(&db, &link_settings());
    eventually("fresh", || directory.is_fresh()).await;
    let portfolio = directory.portfolio(partner, Reading::Fresh).await.unwrap().unwrap();
    directory.member("i", "u", Reading::Fresh).await.unwrap().unwrap();

    away(true);
    let began = Instant::now();
    eventually("stale", || !directory.is_fresh()).await;
    assert!(began.elapsed() <= Duration::from_millis(1_200), "stale after {:?}", began.elapsed());
    assert!(directory.portfolio_cached(partner).is_none());
    let refusal = directory.portfolio(partner, Reading::Fresh).await.unwrap_err();
    assert!(matches!(refusal, LinksUnavailable::Stale), "{refusal}");
    // Home requests go on with what was known last.
    let last = directory.portfolio(partner, Reading::HomeOnly).await.unwrap().unwrap();
    assert!(Arc::ptr_eq(&portfolio, &last));
    assert!(directory.member("i", "u", Reading::HomeOnly).await.unwrap().is_some());
    // Who was not known before gets an answer in bounded time.
    let asked = Instant::now();
    let unknown = directory.member("i", "someone", Reading::HomeOnly).await;
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    match f.kind {
        Kind::Postgres => assert!(unknown.is_err()),
        // Open connections still read the file that was moved away; but no empty one is made in its place.
        Kind::Sqlite => assert!(!path.exists()),
    }
    assert!(!directory.is_fresh());

    if f.kind == Kind::Postgres {
        // Changed by someone whose way to the database is not cut.
        f.revoke(link.id).await;
    }
    away(false);
    eventually("fresh again", || directory.is_fresh()).await;
    let after = directory.portfolio(partner, Reading::Fresh).await.unwrap().unwrap();
    if f.kind == Kind::Postgres {
        assert_eq!(after.link("t").unwrap().closed_gate(Millis::now()), Some(Gate::Active));
    }
    drop(directory);
    if between.is_some() {
        db.close().await;
    }
}
