//! Smoke.

use linkgate::portal::sources::{InvoiceFilter, TicketFilter};

use crate::rig::{Rig, site, soon};

#[tokio::test]
async fn smoke() {
    let rig = Rig::new().await;
    let site = site("t1");
    let tenant = rig.sources.tenant(&site, soon()).await.unwrap();
    println!("{tenant:?}");
    println!("{:?}", rig.sources.metrics(&site, soon()).await.unwrap());
    let mut rows = Vec::new();
    let filter = InvoiceFilter { line_items: true, ..InvoiceFilter::default() };
    rig.sources.invoices(&site, &filter, soon(), &mut |row| rows.push(row)).await.unwrap();
    println!("{} {:?}", rows.len(), rows[0]);
    let mut rows = Vec::new();
    rig.sources.tickets(&site, &TicketFilter::default(), soon(), &mut |row| rows.push(row)).await.unwrap();
    println!("{} {:?}", rows.len(), rows[0]);
}
