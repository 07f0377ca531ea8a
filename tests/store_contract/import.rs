//! Importing rows.

use std::sync::Arc;

use linkgate::{
    audit::{ChainId, OutboxSource},
    domain::link_rules::Refusal,
    store::{
        AuditStore, StoreError,
        admin::{ImportInput, ImportRow, LinkFilter, Page, Stop, TenantInput},
    },
};

use serde_json::json;
use uuid::Uuid;

use crate::fixture::{Fixture, link};

pub(crate) async fn a_refused_row_does_not_stop_the_others(f: Arc<Fixture>) {
    let partner = f.partner("p").await;
    let mut rows = Vec::new();
    for n in 0..500_u64 {
        let id = format!("t{n}");
        let tenant = linkgate::domain::TenantId::new(&id).unwrap();
        if n % 7 != 0 {
            f.tenant(&id).await;
        }
        let input = match n {
            11 => Err(Refusal::field("row", "access_role", "cannot be read")),
            // The same pair once more.
            12 => Ok(ImportInput::Link(Box::new(link(
                partner,
                &linkgate::domain::TenantId::new("t10").unwrap(),
                "auditor",
            )))),
            13 => {
                let mut input = link(partner, &tenant, "auditor");
                input.start_date = Some("soon".into());
                input.sla_response_hours = Some(Some(-1));
                Ok(ImportInput::Link(Box::new(input)))
            }
            _ => Ok(ImportInput::Link(Box::new(link(partner, &tenant, "auditor")))),
        };
        rows.push(Ok(ImportRow { line: n + 2, input }));
    }
    let before = f.count("SELECT seq FROM change_counter").await;
    let (mut told, mut changes) = (Vec::new(), 0);
    let report = f.admin.import(&f.actor, rows, |read| told.push(read), |_| changes += 1).await.unwrap();
    let unknown = (0..500).filter(|n| n % 7 == 0).count() as u64;
    assert_eq!(report.refused_rows, unknown + 3);
    assert_eq!(report.imported, 500 - unknown - 3);
    assert_eq!(told.last(), Some(&500));
    let all = f.admin.links(&LinkFilter::default(), Page { limit: 1000, offset: 0 }).await.unwrap();
    assert_eq!(all.len() as u64, report.imported);
    assert_eq!(f.count("SELECT count(*) FROM link_history").await as u64, report.imported);
    assert_eq!(f.count("SELECT seq FROM change_counter").await, before + changes);

    let of_line = |line: u64| report.refused.iter().filter(move |row| row.line == line).collect::<Vec<_>>();
    assert_eq!(of_line(2)[0].code, "TENANT_NOT_FOUND");
    assert_eq!(of_line(13)[0].field.as_deref(), Some("access_role"));
    assert_eq!(of_line(14)[0].code, "CONFLICT");
    let fields: Vec<_> = of_line(15).iter().filter_map(|row| row.field.as_deref()).collect();
    assert_eq!(fields, ["start_date", "sla_response_hours"]);
}

/// The database goes away between two batches: what was taken stays and is told, and what was not looked at is not counted.
pub(crate) async fn an_import_that_stops_tells_what_it_took(f: Arc<Fixture>) {
    let before = f.count("SELECT count(*) FROM tenants").await;
    let other = Arc::clone(&f);
    let rows = (0..500_u64).map(move |n| {
        // The first of the second batch: the first one is committed by then.
        if n == 200 {
            let other = Arc::clone(&other);
            let gone = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(other.raw("ALTER TABLE tenants RENAME TO tenants_gone")).unwrap();
            });
            gone.join().unwrap();
        }
        let input = TenantInput { tenant_id: Some(format!("s{n}")), ..TenantInput::default() };
        let unreadable = || Err(Refusal::field("row", "name", "cannot be read"));
        Ok(ImportRow { line: n + 2, input: if n % 100 == 7 { unreadable() } else { Ok(ImportInput::Tenant(input)) } })
    });
    let mut changes = 0;
    let stopped = f.admin.import(&f.actor, rows, |_| (), |_| changes += 1).await.unwrap_err();
    assert!(matches!(stopped.error, Stop::Database(StoreError::Unavailable(_))), "{stopped:?}");
    assert_eq!((stopped.report.imported, stopped.report.refused_rows), (198, 2));
    let lines: Vec<u64> = stopped.report.refused.iter().map(|row| row.line).collect();
    // The rows, and the record of how many.
    assert_eq!((lines, changes, stopped.recorded), (vec![9, 109], 2, true));
    f.raw("ALTER TABLE tenants_gone RENAME TO tenants").await.unwrap();
    assert_eq!(f.count("SELECT count(*) FROM tenants").await, before + 198);
    let outbox = AuditStore::new(&f.db, f.dir.path()).claim(ChainId(Uuid::now_v7()), 1_000).await.unwrap();
    let counts: Vec<_> = outbox.iter().map(|one| &one.change).filter(|record| record.action == "import").collect();
    let told = json!({
        "tenants": 198, "partners": 0, "users": 0, "links": 0, "refused_rows": 2, "stopped": true,
    });
    assert_eq!((counts.len(), &counts[0].after), (1, &Some(told)));
}
