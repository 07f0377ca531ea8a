//! `POST /billing/invoices/export`: queues a job.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::{
    KEEP_MS, owner,
    request::{self, Content, ExportRequest, Format, Rights},
    store_problem,
};
use crate::{
    domain::{Denial, ErrorCode, Millis, Permission, Reason, TenantId},
    portal::{Call, Narrow, Portal, Prepared, Problem, Question, Reply, Slice, query::Params},
};

/// A guess, for a progress bar: what a job takes beside its tenants, and what one of them takes.
const ESTIMATE_BASE_MS: i64 = 3_000;
const ESTIMATE_TENANT_MS: i64 = 400;

struct Create {
    content: Content,
    tenants: Option<Vec<TenantId>>,
}

pub(in crate::portal) fn prepare(question: &Question<'_>) -> Result<Box<dyn Prepared>, Problem> {
    Params::new(question.query).finish()?;
    let (content, tenants) = request::read(question.body, question.now)?;
    Ok(Box::new(Create { content, tenants }))
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "StartedExport")]
pub(in crate::portal) struct Answer {
    export_id: Uuid,
    status: &'static str,
    estimated_completion: Millis,
    download_url: Option<String>,
    expires_at: Millis,
}

impl Prepared for Create {
    fn narrow(&self) -> Narrow<'_> {
        (&self.tenants).into()
    }

    fn answer(self: Box<Self>, portal: Arc<Portal>, call: Call) -> BoxFuture<'static, Result<Reply, Problem>> {
        async move {
            let tenants = allowed(&call, self.tenants.is_some())?;
            let (owner, asking) = (owner(&call)?, call.partner()?);
            let exports = &portal.exports;
            let waiting = exports.jobs.unfinished(owner.partner_id).await.map_err(|error| store_problem(&error))?;
            if waiting >= exports.settings.queue_per_partner {
                return Err(Problem::new(
                    ErrorCode::Conflict,
                    format!("{waiting} exports of your organisation are not finished yet: wait for one of them"),
                ));
            }
            let rights = Rights {
                holds: asking.user.holds.iter().map(|permission| Permission::name(permission).to_owned()).collect(),
                ip: call.asker.ip,
                mfa: call.asker.mfa,
            };
            let work = i64::try_from(tenants.len()).unwrap_or(i64::MAX).saturating_mul(ESTIMATE_TENANT_MS);
            let slower = if self.content.format == Format::Pdf { 2 } else { 1 };
            let now = Millis::now();
            let answer = Answer {
                export_id: Uuid::now_v7(),
                status: "processing",
                estimated_completion: Millis(now.0.saturating_add(ESTIMATE_BASE_MS + work.saturating_mul(slower))),
                download_url: None,
                expires_at: Millis(now.0.saturating_add(KEEP_MS)),
            };
            let request = ExportRequest { content: self.content, tenants, rights };
            let created = exports.jobs.create(answer.export_id, &owner, &request, now, answer.expires_at);
            created.await.map_err(|error| store_problem(&error))?;
            exports.queued.notify_one();
            Reply::json(202, &answer)
        }
        .boxed()
    }
}

/// The tenants of the file. One that was asked for by name and is not allowed refuses the whole: a file must not lack
/// what its reader thinks is in it.
fn allowed(call: &Call, by_name: bool) -> Result<Vec<TenantId>, Problem> {
    let forbidden = call.slices.iter().find_map(|slice| match slice {
        Slice::Forbidden { denial, .. } => Some(*denial),
        Slice::Live(_) | Slice::Granted(_) => None,
    });
    let tenants: Vec<TenantId> = call.granted().map(|slice| slice.tenant().clone()).collect();
    match forbidden {
        Some(denial) if by_name || tenants.is_empty() => Err(denial.into()),
        _ if tenants.is_empty() => Err(Denial::new(ErrorCode::Forbidden, Reason::Permission).into()),
        _ => Ok(tenants),
    }
}
