//! `link list --expiring DAYS`: links that end soon, by their own end or a parent's.

use serde::Serialize;

use super::super::{outcome::Failure, store_context::StoreContext};
use crate::{
    domain::{Millis, PartnerId, TenantId},
    store::{admin::Page, ending::Ending},
};

/// `30d` or `30`, as in the configuration.
pub(super) fn parse_days(text: &str) -> Result<u32, String> {
    let days = text.strip_suffix('d').unwrap_or(text).parse().ok();
    days.filter(|days| (1..=3_650).contains(days)).ok_or_else(|| format!("`{text}`: write days from 1d to 3650d"))
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    link: Ending,
    /// Begun days count.
    days_left: i64,
}

pub(super) fn list(
    days: u32,
    partner: Option<PartnerId>,
    tenant: Option<TenantId>,
    page: Page,
    context: &StoreContext<'_>,
) -> Result<(), Failure> {
    let now = Millis::now();
    let found = context.with(|admin| async move { Ok(admin.ending(days, now).await?) })?;
    let rows: Vec<Row> = found
        .into_iter()
        .filter(|link| partner.is_none_or(|id| id == link.partner_id))
        .filter(|link| tenant.as_ref().is_none_or(|id| *id == link.managed_tenant_id))
        .skip(usize::try_from(page.offset).unwrap_or(usize::MAX))
        .take(usize::try_from(page.limit).unwrap_or(usize::MAX))
        .map(|link| Row { days_left: link.days_left(now), link })
        .collect();
    context.console.list(&rows, &["link", "partner", "tenant", "ends", "days left"], |row| {
        vec![
            row.link.link_id.to_string(),
            row.link.partner_id.to_string(),
            row.link.managed_tenant_id.to_string(),
            row.link.end_date.to_string(),
            row.days_left.to_string(),
        ]
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn days_are_whole_and_bounded() {
        let parsed = ["30d", "7", "0d", "4000d", "1h", ""].map(|text| super::parse_days(text).ok());
        assert_eq!(parsed, [Some(30), Some(7), None, None, None, None]);
    }
}
