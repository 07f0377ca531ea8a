//! Fills the demo's database through the operations that the command line uses too: no rule is stepped around.

use std::{collections::BTreeMap, sync::Arc};

use super::world::{ISSUER, Link, State, World};
use crate::{
    cli::outcome::Failure,
    config::Config,
    domain::{LinkId, Millis, RoleTable, link_rules::LinkInput},
    store::{
        Actor, Admin, Database,
        admin::{PartnerInput, TenantInput, UserInput},
    },
};

/// In whole units of any currency.
const BILLING_THRESHOLD: i64 = 1_000;
const MONTH_MS: i64 = 30 * 86_400_000;

/// Creates everything; the ids of the links stand in the order of `world.links`.
pub(super) async fn fill(config: &Config, roles: &RoleTable, world: &World) -> Result<Vec<LinkId>, Failure> {
    let database = Database::open(&config.database).await?;
    database.migrate().await?;
    let admin = Admin::new(&database, Arc::new(roles.clone()), config.links.approvals);
    let actor = Actor::new("cli:demo");

    for tenant in &world.tenants {
        let input = TenantInput {
            tenant_id: Some(tenant.id.clone()),
            name: Some(tenant.name.clone()),
            ..TenantInput::default()
        };
        admin.create_tenant(&actor, &input).await?;
    }
    for partner in &world.partners {
        let input = PartnerInput {
            partner_id: Some(partner.id.to_string()),
            name: Some(partner.name.to_owned()),
            home_tenant_id: Some(partner.home.clone()),
            ..PartnerInput::default()
        };
        admin.create_partner(&actor, &input).await?;
    }
    for user in &world.users {
        let Some(partner) = user.partner.and_then(|at| world.partners.get(at)) else { continue };
        let input = UserInput {
            issuer: Some(ISSUER.to_owned()),
            sub: Some(user.sub.clone()),
            partner_id: Some(partner.id.to_string()),
            username: Some(user.name.to_owned()),
            ..UserInput::default()
        };
        admin.create_user(&actor, &input).await?;
    }
    let now = Millis::now();
    let mut ids = Vec::with_capacity(world.links.len());
    for link in &world.links {
        let created = admin.create_link(&actor, &input(world, link, now)).await?.value;
        if link.state == State::Revoked {
            admin.revoke_link(&actor, created.id, None).await?;
        }
        ids.push(created.id);
    }
    database.close().await;
    Ok(ids)
}

fn input(world: &World, link: &Link, now: Millis) -> LinkInput {
    let months = |number: i64| Millis(now.0 + number * MONTH_MS).to_string();
    let (start, end) = match link.state {
        State::Expired => (months(-12), Some(months(-1))),
        State::NotStarted => (months(1), Some(months(13))),
        State::Active | State::Revoked | State::Pending => (months(-12), None),
    };
    let overrides: BTreeMap<String, bool> =
        link.overrides.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    LinkInput {
        partner_id: world.partners.get(link.partner).map(|partner| partner.id.to_string()),
        managed_tenant_id: Some(link.tenant.clone()),
        access_role: Some(link.role.as_str().to_owned()),
        custom_permissions: Some(overrides),
        start_date: Some(start),
        end_date: Some(end),
        // Low enough that the sample services give every partner something to be alerted of.
        billing_alert_threshold: Some(Some(BILLING_THRESHOLD.into())),
        sla_uptime_target: Some(Some("99.90".into())),
        approval: (link.state == State::Pending).then(|| "pending".to_owned()),
        ..LinkInput::default()
    }
}
