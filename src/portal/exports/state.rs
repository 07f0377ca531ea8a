//! `GET /billing/exports/{export_id}`: how a job stands, and a fresh link to its file.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::token::LINK_MS;
use crate::{
    domain::Millis,
    portal::{Call, Portal, Prepared, Problem, Question, Reply, query::Params},
    store::{ExportJob, JobState},
};

/// Why a job failed; the fields of the answer are fixed.
const WHY: HeaderName = HeaderName::from_static("x-export-error");

struct State;

pub(in crate::portal) fn prepare(question: &Question<'_>) -> Result<Box<dyn Prepared>, Problem> {
    Params::new(question.query).finish()?;
    Ok(Box::new(State))
}

/// The state as clients know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "ExportStatus")]
#[serde(rename_all = "lowercase")]
pub(in crate::portal) enum Status {
    Processing,
    Completed,
    Failed,
    Expired,
}

/// By the clock, whether or not the background has come by.
pub(super) fn status<R>(job: &ExportJob<R>, now: Millis) -> Status {
    match job.state {
        _ if job.expires_at <= now => Status::Expired,
        JobState::Queued | JobState::Running => Status::Processing,
        JobState::Completed => Status::Completed,
        JobState::Failed => Status::Failed,
        JobState::Expired => Status::Expired,
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ExportState")]
pub(in crate::portal) struct Answer {
    export_id: Uuid,
    status: Status,
    format: &'static str,
    file_size_bytes: Option<i64>,
    /// While the job runs: as many as are written by now.
    row_count: Option<i64>,
    download_url: Option<String>,
    created_at: Millis,
    completed_at: Option<Millis>,
    expires_at: Millis,
}

impl Prepared for State {
    fn answer(self: Box<Self>, portal: Arc<Portal>, call: Call) -> BoxFuture<'static, Result<Reply, Problem>> {
        async move {
            let (owner, job) = portal.exports.own(&call).await?;
            let now = Millis::now();
            let status = status(&job, now);
            let download_url = (status == Status::Completed).then(|| {
                let until = Millis(now.0.saturating_add(LINK_MS).min(job.expires_at.0));
                let token = portal.exports.links.issue(job.id, &owner, until);
                let base = portal.bases.partner.first().map_or("", String::as_str);
                format!("{base}/billing/exports/{}/download?token={token}", job.id)
            });
            let answer = Answer {
                export_id: job.id,
                status,
                format: job.request.content.format.as_str(),
                file_size_bytes: job.file_size.filter(|_| status == Status::Completed),
                row_count: (!matches!(job.state, JobState::Queued | JobState::Failed)).then_some(job.row_count),
                download_url,
                created_at: job.created_at,
                completed_at: job.completed_at,
                expires_at: job.expires_at,
            };
            let mut reply = Reply::json(200, &answer)?;
            if let Some(why) = job.error.as_deref().and_then(header) {
                reply.headers.insert(WHY, why);
            }
            Ok(reply)
        }
        .boxed()
    }
}

/// Text as a header's value: visible ASCII and spaces.
fn header(text: &str) -> Option<HeaderValue> {
    let visible: String = text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    HeaderValue::from_str(visible.trim()).ok()
}
