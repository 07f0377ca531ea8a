//! `GET /me`: who the caller is and where they may work, for a tenant selector.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Call, Portal, Prepared, Problem, Question, Reply, query::Params};
use crate::domain::{Permission, PermissionSet};

struct Me;

pub(super) fn prepare(question: &Question<'_>) -> Result<Box<dyn Prepared>, Problem> {
    Params::new(question.query).finish()?;
    Ok(Box::new(Me))
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Me")]
pub(super) struct Answer<'a> {
    user_id: &'a str,
    username: Option<&'a str>,
    partner: PartnerView<'a>,
    user_permissions: Vec<&'static str>,
    tenants: Vec<TenantView<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MePartner")]
struct PartnerView<'a> {
    partner_id: String,
    name: &'a str,
    status: &'static str,
    home_tenant_id: &'a str,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MeTenant")]
struct TenantView<'a> {
    tenant_id: &'a str,
    name: &'a str,
    slug: Option<&'a str>,
    status: &'a str,
    link_id: String,
    access_role: &'static str,
    start_date: String,
    end_date: Option<String>,
    permissions: Vec<&'static str>,
}

fn names(set: PermissionSet) -> Vec<&'static str> {
    set.iter().map(Permission::name).collect()
}

impl Prepared for Me {
    fn answer(self: Box<Self>, portal: Arc<Portal>, call: Call) -> BoxFuture<'static, Result<Reply, Problem>> {
        async move {
            let asking = call.partner()?;
            let portfolio = &asking.portfolio;
            let managed = portal.managed.of(portfolio).await?;
            let roles = portal.policies.current();
            let tenants = call.slices.iter().filter_map(|slice| {
                let facts = slice.link();
                let found = managed.get(&facts.link.tenant_id)?;
                // What is told is what the decisions read: the chain's window, not the row's alone.
                let (start, end) = facts.window();
                Some(TenantView {
                    tenant_id: facts.link.tenant_id.as_str(),
                    name: &found.tenant.name,
                    slug: found.tenant.slug.as_deref(),
                    status: &found.tenant.status,
                    link_id: facts.link.id.to_string(),
                    access_role: facts.link.role.as_str(),
                    start_date: start.to_string(),
                    end_date: end.map(|end| end.to_string()),
                    permissions: names(asking.user.holds.intersection(facts.effective(roles.roles()))),
                })
            });
            let answer = Answer {
                user_id: &call.asker.user_id,
                username: call.asker.username.as_deref(),
                partner: PartnerView {
                    partner_id: portfolio.partner.id.to_string(),
                    name: &portfolio.partner.name,
                    status: if portfolio.partner.active { "active" } else { "inactive" },
                    home_tenant_id: portfolio.partner.home_tenant_id.as_str(),
                },
                user_permissions: names(asking.user.holds),
                tenants: tenants.collect(),
            };
            Reply::json(200, &answer)
        }
        .boxed()
    }
}
