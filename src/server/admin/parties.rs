//! Tenants, partners and partner users: list, show, add, change.

use http::StatusCode;

use super::{
    answer::{Answer, List, store_problem},
    ask::{Ask, Input, page},
    desk::Desk,
    table::Operation,
};
use crate::{
    domain::{PartnerId, TenantId},
    portal::Problem,
    store::{
        PartnerRecord, TenantRecord, UserRecord,
        admin::{PartnerInput, TenantInput, UserInput},
    },
};

impl Input for TenantInput {}
impl Input for PartnerInput {}
impl Input for UserInput {}

pub(super) async fn tenants(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    let id = || TenantId::new(&ask.param).map_err(|_| ask.unknown());
    match ask.spec.operation {
        Operation::ListTenants => {
            let mut params = ask.params();
            let paging = params.paging();
            params.finish()?;
            let rows = desk.admin.tenants(page(paging)).await.map_err(|error| store_problem(ask, error))?;
            Answer::ok(&List::of(rows, paging))
        }
        Operation::CreateTenant => {
            ask.no_query()?;
            let input: TenantInput = ask.input()?;
            let written = desk.admin.create_tenant(&desk.actor, &input).await;
            tenant(StatusCode::CREATED, &desk.done(ask, written).await?)
        }
        Operation::UpdateTenant => {
            ask.no_query()?;
            let (id, expected, input) = (id()?, ask.expected()?, ask.input::<TenantInput>()?);
            let written = desk.admin.update_tenant(&desk.actor, &id, expected.version(), &fixed(ask, input)?).await;
            tenant(StatusCode::OK, &desk.done(ask, written).await?)
        }
        _ => {
            ask.no_query()?;
            let found = desk.admin.tenant(&id()?).await.map_err(|error| store_problem(ask, error))?;
            tenant(StatusCode::OK, &found)
        }
    }
}

/// The id is what a tenant is: another one in the body would be ignored.
fn fixed(ask: &Ask, input: TenantInput) -> Result<TenantInput, Problem> {
    match &input.tenant_id {
        Some(id) if *id != ask.param => Err(is_fixed("tenant_id")),
        _ => Ok(input),
    }
}

fn is_fixed(field: &str) -> Problem {
    let message = "is fixed: leave it out".into();
    Problem::invalid(vec![crate::domain::link_rules::FieldError { field: field.into(), message }])
}

fn tenant(status: StatusCode, record: &TenantRecord) -> Result<Answer, Problem> {
    Answer::versioned(status, record.stamps.version, record)
}

pub(super) async fn partners(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    match ask.spec.operation {
        Operation::ListPartners => {
            let mut params = ask.params();
            let paging = params.paging();
            params.finish()?;
            let rows = desk.admin.partners(page(paging)).await.map_err(|error| store_problem(ask, error))?;
            Answer::ok(&List::of(rows, paging))
        }
        Operation::CreatePartner => {
            ask.no_query()?;
            let input: PartnerInput = ask.input()?;
            let written = desk.admin.create_partner(&desk.actor, &input).await;
            partner(StatusCode::CREATED, &desk.done(ask, written).await?)
        }
        Operation::UpdatePartner => {
            ask.no_query()?;
            let (id, expected, input) = (ask.partner()?, ask.expected()?, ask.input::<PartnerInput>()?);
            if input.partner_id.as_deref().is_some_and(|other| other.parse() != Ok(id)) {
                return Err(is_fixed("partner_id"));
            }
            let written = desk.admin.update_partner(&desk.actor, id, expected.version(), &input).await;
            partner(StatusCode::OK, &desk.done(ask, written).await?)
        }
        _ => {
            ask.no_query()?;
            let found = desk.admin.partner(ask.partner()?).await.map_err(|error| store_problem(ask, error))?;
            partner(StatusCode::OK, &found)
        }
    }
}

fn partner(status: StatusCode, record: &PartnerRecord) -> Result<Answer, Problem> {
    Answer::versioned(status, record.stamps.version, record)
}

pub(super) async fn users(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    match ask.spec.operation {
        Operation::ListUsers => {
            let mut params = ask.params();
            let paging = params.paging();
            let partner = params.parsed::<PartnerId>("partner_id", "a UUID");
            let issuer = params.text("issuer");
            let sub = params.text("sub");
            if sub.is_none() && issuer.is_some() {
                params.fail("issuer", "goes with `sub`");
            }
            params.finish()?;
            let rows = match sub {
                // What a token says names one user at most.
                Some(sub) => {
                    let issuer = issuer.as_deref().unwrap_or_default();
                    let found = desk.admin.user_by_subject(issuer, &sub).await;
                    let found = found.map_err(|error| store_problem(ask, error))?;
                    let rows =
                        found.into_iter().filter(|user| partner.is_none_or(|partner| user.partner_id == partner));
                    rows.skip(usize::try_from(paging.offset).unwrap_or(usize::MAX)).collect()
                }
                None => desk.admin.users(partner, page(paging)).await.map_err(|error| store_problem(ask, error))?,
            };
            Answer::ok(&List::of(rows, paging))
        }
        Operation::CreateUser => {
            ask.no_query()?;
            let input: UserInput = ask.input()?;
            let written = desk.admin.create_user(&desk.actor, &input).await;
            user(StatusCode::CREATED, &desk.done(ask, written).await?)
        }
        Operation::UpdateUser => {
            ask.no_query()?;
            let (id, expected, input) = (ask.id()?, ask.expected()?, ask.input::<UserInput>()?);
            let written = desk.admin.update_user(&desk.actor, id, expected.version(), &input).await;
            user(StatusCode::OK, &desk.done(ask, written).await?)
        }
        _ => {
            ask.no_query()?;
            let found = desk.admin.user(ask.id()?).await.map_err(|error| store_problem(ask, error))?;
            user(StatusCode::OK, &found)
        }
    }
}

fn user(status: StatusCode, record: &UserRecord) -> Result<Answer, Problem> {
    Answer::versioned(status, record.stamps.version, record)
}
