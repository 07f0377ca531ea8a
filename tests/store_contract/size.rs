//! Portfolios of size: all links are there, and a cached look-up costs the same however many there are.

use std::{sync::Arc, time::Instant};

use linkgate::store::{
    Reading,
    bulk::{Fill, fill, partner_id, tenant_id},
};

use crate::fixture::Fixture;

pub(crate) async fn a_thousand_links_and_a_hundred_thousand(f: Arc<Fixture>) {
    // 1 partner of 100,000 links and 99 more would be ten million: the second fill's partners are apart.
    let began = Instant::now();
    fill(
        &f.db,
        &Fill {
            partners: 2,
            links_per_partner: 50_000,
            tenants: 50_000,
            issuer: "i".into(),
            role: linkgate::domain::LinkRole::MspBilling,
        },
    )
    .await
    .unwrap();
    println!("fill of 100,000 links: {:?}", began.elapsed());
    let directory = f.fresh_directory().await;
    for n in 0..2 {
        let began = Instant::now();
        let portfolio = directory.portfolio(partner_id(n), Reading::Fresh).await.unwrap().unwrap();
        println!("load of 50,000 links: {:?}", began.elapsed());
        assert_eq!(portfolio.links.len(), 50_000);
        assert!(portfolio.link(tenant_id(49_999).unwrap().as_str()).is_some());
        assert!(directory.is_fresh(), "the feed goes on under a big load");
        assert!(Arc::ptr_eq(&portfolio, &directory.portfolio_cached(partner_id(n)).unwrap()));
    }
    let member = directory.member("i", "user-1", Reading::Fresh).await.unwrap().unwrap();
    assert_eq!(member.partner_id, partner_id(1));

    // One partner of exactly 1,000 beside them, imported the usual way round.
    let (partner, _) = (f.partner("thousand").await, ());
    let rows = (0..1_000).map(|n| {
        let input = crate::fixture::link(partner, &tenant_id(n as u32).unwrap(), "auditor");
        Ok(linkgate::store::admin::ImportRow {
            line: n,
            input: Ok(linkgate::store::admin::ImportInput::Link(Box::new(input))),
        })
    });
    let began = Instant::now();
    let report = f.admin.import(&f.actor, rows, |_| (), |_| ()).await.unwrap();
    println!("import of 1,000 links: {:?}", began.elapsed());
    assert_eq!((report.imported, report.refused_rows), (1_000, 0));
    let began = Instant::now();
    let portfolio = directory.portfolio(partner, Reading::Fresh).await.unwrap().unwrap();
    println!("load of 1,000 links: {:?}", began.elapsed());
    assert_eq!(portfolio.links.len(), 1_000);
}
