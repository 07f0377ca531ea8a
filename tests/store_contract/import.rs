//! Importing rows.

use std::sync::Arc;

use linkgate::{
    domain::link_rules::Refusal,
    store::admin::{ImportInput, ImportRow, LinkFilter, Page},
};

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
            11 => Err(Refusal::field("access_role", "cannot be read")),
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
        rows.push(ImportRow { line: n + 2, input });
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
