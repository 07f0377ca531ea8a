//! Three replicas on one Postgres and one Redis, and clients at each of them.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use sqlx::{Connection, PgConnection, Row};

use crate::{
    client::Request,
    database::on_server,
    gateway::{Gateway, House, Setup, eventually},
    ledger::Ledger,
    load::{Load, Mix, Told},
    own_postgres::OwnPostgres,
    policies::policies,
    postgres_support::{PostgresDatabase, server},
    redis_support::Redis,
    relay::Relay,
};

/// The URL of their Redis.
const REDIS: &str = "LINKGATE_CRASH_REDIS";
/// Folders of their journals.
pub const JOURNALS: [&str; 3] = ["replica-0", "replica-1", "replica-2"];
/// Within which a change is in force on every replica (I4): `links.max_staleness`.
pub const BOUND: Duration = Duration::from_secs(1);
/// Requests an hour, of a limited tenant: while a test runs, next to nothing comes back.
pub const LIMIT: usize = 60;
/// Clients of each replica, and the pause of each between two requests: a load that leaves the machine room to breathe.
const CLIENTS: usize = 3;
pub const PAUSE: Duration = Duration::from_millis(20);

const HARMLESS: &str = "@id(\"test.own\")\nforbid (principal, action, resource) when { context.method == \"BREW\" };\n";
const NO_PUT: &str = "@id(\"test.own\")\nforbid (principal, action, resource) when { context.method == \"PUT\" };\n";

pub struct Three {
    pub gateways: Vec<Gateway>,
    addresses: Vec<Arc<Mutex<SocketAddr>>>,
    setups: Vec<Setup>,
    pub house: Arc<House>,
    /// Between the replicas and Postgres; the test itself goes past it, as the command line of another machine does.
    pub relay: Relay,
    pub redis: Redis,
    made: PostgresDatabase,
    /// Last: what is on it goes before.
    pub postgres: Option<OwnPostgres>,
}

impl Three {
    /// `limited`: tenants, linked to partner 1, of which [`LIMIT`] requests an hour are allowed.
    pub fn start(limited: &[&str]) -> Self {
        Self::on(&server(), None, limited)
    }

    /// The same on a Postgres that may be restarted.
    pub fn on_their_own(limited: &[&str]) -> Self {
        let postgres = OwnPostgres::start();
        let url = postgres.url.clone();
        Self::on(&url, Some(postgres), limited)
    }

    fn on(server: &str, postgres: Option<OwnPostgres>, limited: &[&str]) -> Self {
        let (house, relay, made) = on_server(server);
        let redis = Redis::start();
        policies(&house.dir.path().join("policies"), &[("own.cedar", HARMLESS.to_owned())]);
        let mut limits = format!("redis_url_env = \"{REDIS}\"\n[limits.links]\n");
        for tenant in limited {
            limits.push_str(&format!("\"{}\" = \"{LIMIT}/h\"\n", house.add_tenant(tenant)));
        }
        let setup = |journal| Setup {
            journal,
            limits: limits.clone(),
            more: "[policy]\ndir = \"policies\"\n".to_owned(),
            environment: vec![(REDIS, redis.url().into())],
            ..Setup::default()
        };
        let setups: Vec<_> = JOURNALS.into_iter().map(setup).collect();
        let gateways: Vec<_> = setups.iter().map(|setup| house.start(setup)).collect();
        let addresses = gateways.iter().map(|gateway| Arc::new(Mutex::new(gateway.public))).collect();
        let three = Self { gateways, addresses, setups, house: Arc::new(house), relay, redis, made, postgres };
        three.recovered();
        three
    }

    pub fn load(&self, mix: &Mix) -> Vec<Load> {
        self.addresses.iter().map(|address| Load::follow(mix, address, CLIENTS)).collect()
    }

    /// Dies, and is started again on its journal.
    pub fn kill_and_start(&mut self, number: usize) {
        let dead = self.gateways.remove(number);
        dead.kill();
        let gateway = self.house.start(&self.setups[number]);
        *self.addresses[number].lock().unwrap() = gateway.public;
        self.gateways.insert(number, gateway);
    }

    /// What each answers to this request of partner 1's user: nothing where it is let through, or the error's code.
    pub fn answers(&self, request: &Request) -> Vec<String> {
        let request = request.clone().bearer(&self.house.token1());
        let told = |gateway: &Gateway| {
            let answer = gateway.ask(&request);
            if answer.status == 200 { String::new() } else { answer.error() }
        };
        self.gateways.iter().map(told).collect()
    }

    pub fn all_answer(&self, what: &str, request: &Request, expected: &str) {
        eventually(what, || self.answers(request).iter().all(|told| told == expected));
    }

    /// How many of so many requests to a limited tenant the replica lets through; the others it must limit.
    pub fn take(&self, number: usize, tenant: &str, requests: usize) -> usize {
        let request = Request::get("/api/invoices").tenant(tenant).bearer(&self.house.token1());
        let allowed = (0..requests).filter(|_| {
            let mut answer = self.gateways[number].ask(&request);
            // On a machine that stood still for a second, links are stale for a moment.
            eventually("links are fresh", || {
                if answer.status == 503 {
                    answer = self.gateways[number].ask(&request);
                }
                answer.status != 503
            });
            assert!(answer.status == 200 || answer.status == 429, "{}: {}", answer.status, answer.text());
            answer.status == 200
        });
        allowed.count()
    }

    pub fn are_shared(&self, shared: bool) {
        eventually("limits are shared, or are not", || {
            let told =
                |gateway: &Gateway| gateway.metric("linkgate_limits_shared") == Some(f64::from(u8::from(shared)));
            self.gateways.iter().all(told)
        });
    }

    /// All of them work as on the first day, without a hand.
    pub fn recovered(&self) {
        eventually("every replica is ready", || self.gateways.iter().all(|gateway| gateway.ready().0 == 200));
        self.all_answer("links are fresh", &Request::get("/api/invoices").tenant("t-full"), "");
        self.are_shared(true);
    }

    /// From now on no `PUT`.
    pub fn forbid_put(&self) {
        std::fs::write(self.house.dir.path().join("policies/guardrails/own.cedar"), NO_PUT).unwrap();
    }

    /// Once nothing is under way any more: one for each replica.
    pub fn ledgers(&self) -> Vec<Ledger> {
        let mut ledgers: Vec<_> =
            JOURNALS.iter().map(|journal| Ledger::new(self.house.dir.path().join(journal))).collect();
        eventually("every record is completed", || {
            ledgers.iter_mut().for_each(Ledger::read);
            ledgers.iter().flat_map(|ledger| ledger.records.values()).all(|entry| entry.completion.is_some())
        });
        ledgers
    }

    /// Ids of every change that was committed; all of them are chained when this returns.
    pub fn changes(&self) -> Vec<String> {
        let mut ids = Vec::new();
        eventually("every change is chained", || {
            let rows = self.house.block_on(async {
                let mut conn = PgConnection::connect(&self.made.url).await.unwrap();
                let sql = "SELECT id::text, chained_at FROM audit_outbox ORDER BY seq";
                let rows = sqlx::query(sql).fetch_all(&mut conn).await.unwrap();
                conn.close().await.unwrap();
                rows
            });
            ids = rows.iter().map(|row| row.get::<String, _>(0)).collect();
            rows.iter().all(|row| row.get::<Option<i64>, _>(1).is_some())
        });
        ids
    }
}

pub fn stop(load: Vec<Load>) -> Vec<Told> {
    load.into_iter().flat_map(Load::stop).collect()
}
