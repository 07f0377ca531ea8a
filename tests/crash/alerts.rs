//! Alerts over three replicas: each link is looked at by one of them, and those of a replica that died by another.

use std::time::Duration;

use sqlx::{Connection, PgConnection, Row};

use crate::{
    consolidated::Consolidated,
    gateway::{House, Setup, eventually},
    postgres_support::PostgresDatabase,
    service::Chaos,
};

const TENANTS: usize = 14;
/// What a look for SLA alerts asks a service once.
const LOOK: &str = "breaches";

/// Of those rows.
const OURS: &str =
    "kind = 'sla' AND link_id IN (SELECT id FROM partner_tenant_links WHERE managed_tenant_id LIKE 'e-%')";

/// A link on the schedule: new ones want SLA alerts.
struct Scheduled {
    tenant: String,
    owner: Option<String>,
    /// Milliseconds since the epoch; 0: at once.
    due_at: i64,
}

fn schedule(house: &House, made: &PostgresDatabase) -> Vec<Scheduled> {
    house.block_on(async {
        let mut conn = PgConnection::connect(&made.url).await.unwrap();
        let sql = "SELECT l.managed_tenant_id, e.lease_owner, e.due_at FROM alert_evaluations e \
             JOIN partner_tenant_links l ON l.id = e.link_id WHERE e.kind = 'sla' AND l.managed_tenant_id LIKE 'e-%'";
        let rows = sqlx::query(sql).fetch_all(&mut conn).await.unwrap();
        conn.close().await.unwrap();
        rows.iter().map(|row| Scheduled { tenant: row.get(0), owner: row.get(1), due_at: row.get(2) }).collect()
    })
}

/// Changes those rows; how many.
fn change(house: &House, made: &PostgresDatabase, what: &str) -> u64 {
    let sql = sqlx::AssertSqlSafe(format!("UPDATE alert_evaluations SET {what} AND {OURS}"));
    house.block_on(async {
        let mut conn = PgConnection::connect(&made.url).await.unwrap();
        let done = sqlx::query(sql).execute(&mut conn).await.unwrap().rows_affected();
        conn.close().await.unwrap();
        done
    })
}

#[test]
fn three_replicas_look_at_each_link_once() {
    let (house, _relay, made) = crate::database::on_postgres();
    let portal = Consolidated::over(house, TENANTS, 1);
    let house = &portal.house;
    let tenants = &portal.tenants[..TENANTS];
    // One link at a time, so that nobody takes all of them.
    let more = portal.setup.more.replace("background = false", "interval = \"1m\"\nconcurrency = 1\n");
    let start = |journal| house.start(&Setup { journal, more: more.clone(), ..portal.setup.clone() });
    let asked = || -> Vec<usize> { tenants.iter().map(|tenant| portal.service.asked(tenant, LOOK)).collect() };
    let settled = || {
        let all = schedule(house, &made);
        all.len() == TENANTS && all.iter().all(|link| link.owner.is_none() && link.due_at > 0)
    };
    let replicas = ["audit", "second", "third"].map(start);
    eventually("every link was looked at", || settled() && asked().iter().all(|often| *often > 0));
    assert_eq!(asked(), [1; TENANTS], "once each");

    // The next time each holds some when one dies.
    for tenant in tenants {
        portal.service.misbehave(tenant, LOOK, Some(Chaos::Slow(Duration::from_secs(3))));
    }
    assert_eq!(change(house, &made, "due_at = 1 WHERE true"), TENANTS as u64);
    let owners = || {
        let mut owners: Vec<_> = schedule(house, &made).into_iter().filter_map(|link| link.owner).collect();
        owners.sort();
        owners.dedup();
        owners
    };
    eventually("each works on some", || owners().len() == 3);
    let [one, other, third] = replicas;
    other.kill();
    for tenant in tenants {
        portal.service.misbehave(tenant, LOOK, None);
    }
    eventually("the others finish theirs", || {
        let left = schedule(house, &made);
        owners().len() == 1 && left.iter().all(|link| link.owner.is_some() || link.due_at > 1)
    });
    let left: Vec<String> =
        schedule(house, &made).into_iter().filter(|link| link.owner.is_some()).map(|link| link.tenant).collect();
    // Nobody touches them while their lease lasts; here it ends early.
    let ended = change(house, &made, "leased_until = 1 WHERE lease_owner IS NOT NULL");
    assert_eq!(ended, left.len() as u64);
    eventually("another looks at what the dead one left", settled);
    for (tenant, often) in tenants.iter().zip(asked()) {
        // The dead one may have been asking.
        let most = if left.contains(tenant) { 3 } else { 2 };
        assert!((2..=most).contains(&often), "{tenant} was looked at {often} times");
    }
    drop((one, third));
}
