//! `GET /links` and `PATCH /links/{link_id}`: the links to my tenant, and my word on them.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use http::HeaderMap;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    home,
    review::{EffectiveView, Reviews, UsageView},
    store_problem,
};
use crate::{
    domain::{
        ErrorCode, LinkId, Permission,
        link_rules::{FieldError, LinkInput},
    },
    portal::{
        Call, Portal, Prepared, Problem, Question, Reply,
        body::Fields,
        query::{Paging, Params},
    },
    store::{Actor, Admin, StoreError, TenantLink, TenantLinkFilter, tenant_link, tenant_links},
};

struct List {
    filter: TenantLinkFilter,
    /// How far back use is looked for.
    usage_days: Option<u32>,
    paging: Paging,
}

pub(in crate::portal) fn list(question: &Question<'_>) -> Result<Box<dyn Prepared>, Problem> {
    let mut params = Params::new(question.query);
    let filter = TenantLinkFilter {
        approval: params
            .word("approval", &[("pending", "pending"), ("approved", "approved"), ("rejected", "rejected")]),
        is_active: params.word("is_active", &[("true", true), ("false", false)]),
    };
    let usage_days = u32::try_from(params.integer("usage_days", 0..=365, 0)).ok().filter(|days| *days > 0);
    let paging = params.paging();
    params.finish()?;
    Ok(Box::new(List { filter, usage_days, paging }))
}

/// A link for the tenant that it leads to. Never `notes` and `metadata`: they are the operator's.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TenantLink")]
pub(in crate::portal) struct LinkView {
    link_id: String,
    partner_id: String,
    partner_name: String,
    partner_is_active: bool,
    access_role: &'static str,
    relationship_type: &'static str,
    start_date: String,
    end_date: Option<String>,
    approval: &'static str,
    is_active: bool,
    custom_permissions: BTreeMap<String, bool>,
    /// What role and overrides allow together; the parents of a delegated link may allow less.
    permissions: Vec<&'static str>,
    allowed_cidrs: Vec<String>,
    require_mfa: bool,
    parent_link_id: Option<String>,
    /// Who let the present terms in, and when; null while they wait.
    approved_by: Option<String>,
    approved_at: Option<String>,
    version: i64,
    created_at: String,
    updated_at: String,
    /// Who created it, and who created or widened it since it was last approved; null: not recorded.
    created_by: String,
    widened_by: Option<Vec<String>>,
    /// Whether it gives access now; `closed` is the first gate that does not let it.
    live: bool,
    closed: Option<&'static str>,
    /// What its users may do now, its parents and the security policies heard.
    effective: Vec<EffectiveView>,
    /// Null where `usage_days` does not ask for it.
    usage: Option<UsageView>,
}

impl LinkView {
    fn of(portal: &Portal, found: TenantLink, reviews: &Reviews) -> Self {
        let TenantLink { link, partner_name, partner_is_active } = found;
        let (terms, stamps) = (link.terms, link.stamps);
        let policies = portal.policies.current();
        let permissions = terms.effective(policies.roles());
        let review = reviews.of(&policies, link.id, stamps.created_at);
        let (live, closed) = review.as_ref().map_or((false, None), |review| (review.live, review.closed));
        let (effective, usage) = review.map(|review| (review.effective, review.usage)).unwrap_or_default();
        Self {
            link_id: link.id.to_string(),
            partner_id: link.partner_id.to_string(),
            partner_name,
            partner_is_active,
            access_role: terms.access_role.as_str(),
            relationship_type: terms.relationship_type.as_str(),
            start_date: terms.start_date.to_string(),
            end_date: terms.end_date.map(|end| end.to_string()),
            approval: terms.approval.as_str(),
            is_active: terms.is_active,
            custom_permissions: terms.custom_permissions,
            permissions: permissions.iter().map(Permission::name).collect(),
            allowed_cidrs: terms.allowed_cidrs.iter().map(ToString::to_string).collect(),
            require_mfa: terms.require_mfa,
            parent_link_id: terms.parent_link_id.map(|id| id.to_string()),
            approved_by: link.sign_off.approved_by,
            approved_at: link.sign_off.approved_at.map(|at| at.to_string()),
            version: stamps.version,
            created_at: stamps.created_at.to_string(),
            updated_at: stamps.updated_at.to_string(),
            created_by: stamps.created_by,
            widened_by: link.sign_off.widened_by,
            live,
            closed,
            effective,
            usage,
        }
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TenantLinks")]
pub(in crate::portal) struct ListAnswer {
    items: Vec<LinkView>,
    total: u64,
    total_exact: bool,
    limit: u64,
    offset: u64,
    has_more: bool,
}

impl Prepared for List {
    fn answer(self: Box<Self>, portal: Arc<Portal>, call: Call) -> BoxFuture<'static, Result<Reply, Problem>> {
        async move {
            let Paging { limit, offset } = self.paging;
            let tenant = home(&call)?;
            let (links, total) =
                tenant_links(&portal.database, tenant, &self.filter, limit, offset).await.map_err(store_problem)?;
            let reviews = Reviews::read(&portal, tenant, self.usage_days).await?;
            let has_more = offset.saturating_add(links.len() as u64) < total;
            let items = links.into_iter().map(|link| LinkView::of(&portal, link, &reviews)).collect();
            Reply::json(200, &ListAnswer { items, total, total_exact: true, limit, offset, has_more })
        }
        .boxed()
    }
}

struct Approve {
    link: LinkId,
    approval: &'static str,
    /// `If-Match`: refuses where the link has changed since it was looked at.
    version: Option<i64>,
}

pub(in crate::portal) fn approve(question: &Question<'_>) -> Result<Box<dyn Prepared>, Problem> {
    Params::new(question.query).finish()?;
    let version = if_match(question.headers)?;
    let mut fields = Fields::read(question.body)?;
    let approval = fields.required_word("approval", &[("approved", "approved"), ("rejected", "rejected")]);
    fields.finish()?;
    let link = question.param.and_then(|id| id.parse().ok()).ok_or_else(unknown_link)?;
    Ok(Box::new(Approve { link, approval: approval.unwrap_or_default(), version }))
}

/// A link's `version`, with or without quotes.
fn if_match(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(value) = headers.get(http::header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim_matches('"');
    if text == "*" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let message = "must be the version of the link as it was read".into();
        Problem::invalid(vec![FieldError { field: "If-Match".into(), message }])
    })
}

/// The same whether there is no such link or it leads to another tenant.
fn unknown_link() -> Problem {
    Problem::new(ErrorCode::RouteNotFound, "your tenant has no link of this id")
}

impl Prepared for Approve {
    fn answer(self: Box<Self>, portal: Arc<Portal>, call: Call) -> BoxFuture<'static, Result<Reply, Problem>> {
        async move {
            let tenant = home(&call)?;
            let before = tenant_link(&portal.database, tenant, self.link).await.map_err(store_problem)?;
            let before = before.ok_or_else(unknown_link)?;
            let actor = Actor {
                name: call.asker.user_id.to_string(),
                username: call.asker.username.as_deref().map(str::to_owned),
                request_id: Some(call.trace.request_id.as_str().to_owned()),
                client_ip: Some(call.asker.ip),
                account: None,
            };
            let roles = Arc::new(portal.policies.current().roles().clone());
            let admin = Admin::new(&portal.database, roles, portal.approvals);
            let input = LinkInput { approval: Some(self.approval.to_owned()), ..LinkInput::default() };
            // A task of its own: a change that is committed must also be noticed here if the client leaves.
            let (directory, link, version) = (Arc::clone(&portal.directory), self.link, self.version);
            let changed = tokio::spawn(async move {
                let written = admin.update_link(&actor, link, version, &input).await?;
                directory.notice(&written.change).await;
                Ok::<_, StoreError>(written.value)
            });
            let changed = changed.await.map_err(|error| {
                tracing::error!(%error, "an approval ended by a panic");
                Problem::new(ErrorCode::InternalError, "")
            })?;
            let link = match changed {
                Ok(link) => link,
                Err(StoreError::NotFound { .. }) => return Err(unknown_link()),
                // What other rows say is not for a tenant's eyes; which rule it was is.
                Err(error) => return Err(store_problem(error)),
            };
            let reviews = Reviews::read(&portal, tenant, None).await?;
            Reply::json(200, &LinkView::of(&portal, TenantLink { link, ..before }, &reviews))
        }
        .boxed()
    }
}
