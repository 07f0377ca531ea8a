//! A rolling upgrade: replicas of this version beside a newer one that has migrated the database.

use sqlx::{Connection, Executor, PgConnection};

use crate::{
    client::Request,
    database::on_postgres,
    gateway::{Setup, eventually},
    ledger::Ledger,
    load::{Due, Load, Mix, reconcile},
    postgres_support::PostgresDatabase,
};

/// As `linkgate migrate` of a newer version does it: as a whole, with its number and name.
const EXPAND: &str = "BEGIN; \
    CREATE TABLE later_things (id UUID NOT NULL PRIMARY KEY, link_id UUID REFERENCES partner_tenant_links (id)); \
    ALTER TABLE partner_tenant_links ADD COLUMN later TEXT, ADD COLUMN later_flag BOOLEAN NOT NULL DEFAULT false; \
    ALTER TABLE partners ADD COLUMN later JSONB; ALTER TABLE tenants ADD COLUMN later BIGINT NOT NULL DEFAULT 7; \
    ALTER TABLE audit_chunks ADD COLUMN later BIGINT; ALTER TABLE audit_outbox ADD COLUMN later TEXT; \
    CREATE INDEX later_links ON partner_tenant_links (later); \
    INSERT INTO _sqlx_migrations VALUES (9001, 'expand later things', now(), true, '\\x00', 1); \
    COMMIT";
const CONTRACT: &str = "INSERT INTO _sqlx_migrations VALUES (9002, 'contract later things', now(), true, '\\x00', 1)";

fn replica(journal: &'static str) -> Setup {
    Setup { journal, ..Setup::default() }
}

#[test]
fn replicas_go_on_and_start_while_a_newer_version_expands_the_schema() {
    let (house, _relay, made) = on_postgres();
    let run = |made: &PostgresDatabase, sql: &'static str| {
        house.block_on(async {
            let mut conn = PgConnection::connect(&made.url).await.unwrap();
            conn.execute(sqlx::raw_sql(sql)).await.unwrap();
            conn.close().await.unwrap();
        });
    };
    let mut gateways = vec![house.start(&replica("audit")), house.start(&replica("second"))];
    let loads: Vec<_> = gateways.iter().map(|gateway| Load::start(&Mix::of(&house), gateway.public, 3)).collect();
    let go_on =
        || loads.iter().for_each(|load| load.until(load.answers.load(std::sync::atomic::Ordering::SeqCst) + 50));
    go_on();
    run(&made, EXPAND);
    go_on();

    // A change by this version on the newer schema, seen by replicas from before it and after it.
    gateways.push(house.start(&replica("third")));
    let warned = house.log_text().contains("the database has migrations of a newer linkgate");
    assert!(warned, "{}", house.log_text());
    let link = house.add_tenant("t-upgraded");
    let request = Request::get("/api/invoices").tenant("t-upgraded").bearer(&house.token1());
    let all = |status: u16| gateways.iter().all(|gateway| gateway.ask(&request).status == status);
    eventually("the link is known", || all(200));
    house.revoke(link);
    eventually("the link is revoked", || all(403));

    // What takes away is for later: nobody of this version starts on it, and those that run are not thrown out.
    run(&made, CONTRACT);
    let (status, log) = house.refused_start(&replica("fourth"));
    assert_eq!(status.code(), Some(7), "{log}");
    assert!(log.contains("9002") && log.contains("update this binary"), "{log}");
    go_on();

    let told: Vec<_> = loads.into_iter().flat_map(Load::stop).collect();
    for one in told.iter().filter(|one| one.due == Due::Allowed) {
        assert!(one.status < 400 || ["LINKS_STALE", "UPSTREAM_UNAVAILABLE"].contains(&&*one.code), "{one:?}");
    }
    let mut ledgers: Vec<_> = ["audit", "second", "third"].map(|name| Ledger::new(house.dir.path().join(name))).into();
    eventually("every record is completed", || {
        ledgers.iter_mut().for_each(Ledger::read);
        ledgers.iter().flat_map(|ledger| ledger.records.values()).all(|entry| entry.completion.is_some())
    });
    reconcile(&house, &Ledger::union(&ledgers), &told, 0);
    for ledger in &ledgers {
        ledger.agrees_with_index(&house, linkgate::domain::Millis(0), 0);
    }
}
