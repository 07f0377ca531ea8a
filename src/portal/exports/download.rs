//! `GET /billing/exports/{export_id}/download?token=`: the file, for its owner, while they are allowed all of it.

use std::{io::Read, sync::Arc};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderMap, HeaderValue, header};
use tokio::sync::mpsc;

use super::{
    request::{Content, ExportRequest},
    state::{Status, status},
    token::BadToken,
};
use crate::{
    audit::SliceOutcome,
    domain::{Denial, ErrorCode, Gate, Millis},
    portal::{Call, Portal, Prepared, Problem, Question, Reply, ReplyBody, Slice, query::Params},
    store::ExportJob,
};

/// Bytes of one chunk, and chunks read ahead of the client.
const CHUNK: usize = 64 * 1024;
const AHEAD: usize = 4;

struct Download {
    token: String,
}

pub(in crate::portal) fn prepare(question: &Question<'_>) -> Result<Box<dyn Prepared>, Problem> {
    let mut params = Params::new(question.query);
    let token = params.search("token");
    if token.is_none() && question.query.is_empty() {
        params.fail("token", "is required: the state of the export has a link with one");
    }
    params.finish()?;
    Ok(Box::new(Download { token: token.unwrap_or_default() }))
}

impl Prepared for Download {
    fn answer(self: Box<Self>, portal: Arc<Portal>, mut call: Call) -> BoxFuture<'static, Result<Reply, Problem>> {
        async move {
            let (owner, job) = portal.exports.own(&call).await?;
            let now = Millis::now();
            portal.exports.links.check(&self.token, job.id, &owner, now).map_err(|bad| {
                let message = match bad {
                    BadToken::Wrong => "this link is not valid: ask for the state of the export, which has a new one",
                    BadToken::Expired => "this link is over: ask for the state of the export, which has a new one",
                };
                Problem::new(ErrorCode::Forbidden, message)
            })?;
            match status(&job, now) {
                Status::Completed => {}
                Status::Processing => {
                    return Err(Problem::new(ErrorCode::Conflict, "this export is not finished yet"));
                }
                Status::Failed => {
                    let why = job.error.as_deref().unwrap_or("no reason is known");
                    return Err(Problem::new(ErrorCode::Conflict, format!("this export failed: {why}")));
                }
                Status::Expired => {
                    return Err(Problem::new(ErrorCode::ExportNotFound, "this export is over: files are kept 7 days"));
                }
            }
            still_allowed(&call, &job)?;
            // The record and the watch over the stream are about the tenants in the file.
            call.slices.retain(|slice| job.request.tenants.contains(&slice.link().link.tenant_id));
            let name = job.file_name.clone().unwrap_or_default();
            let (file, bytes) = open(&portal, name).await?;
            let slices = call.granted().map(|slice| SliceOutcome {
                managed_tenant_id: slice.tenant().as_str().to_owned(),
                status: "ok".into(),
            });
            let slices = slices.collect();
            Ok(Reply {
                status: 200,
                headers: headers(&job.request.content)?,
                body: ReplyBody::Stream { length: Some(bytes), chunks: chunks(file) },
                slices,
            })
        }
        .boxed()
    }
}

/// Every tenant in the file, decided in this request: any refusal is the refusal of the whole.
fn still_allowed(call: &Call, job: &ExportJob<ExportRequest>) -> Result<(), Problem> {
    for tenant in &job.request.tenants {
        match call.slices.iter().find(|slice| slice.link().link.tenant_id == *tenant) {
            Some(Slice::Granted(_)) => {}
            Some(Slice::Forbidden { denial, .. }) => return Err((*denial).into()),
            Some(Slice::Live(_)) => return Err(Denial::from(Gate::Role).into()),
            None => {
                let link = call.partner()?.portfolio.link(tenant.as_str());
                let gate = link.map_or(Gate::Link, |link| link.closed_gate(call.now).unwrap_or(Gate::Active));
                return Err(Denial::from(gate).into());
            }
        }
    }
    Ok(())
}

async fn open(portal: &Portal, name: String) -> Result<(Box<dyn Read + Send>, u64), Problem> {
    let files = Arc::clone(&portal.exports.files);
    let opened = tokio::task::spawn_blocking(move || files.open(&name)).await;
    opened.map_err(std::io::Error::other).flatten().map_err(|error| {
        tracing::error!(%error, "the file of an export cannot be opened: do all replicas share `exports.dir`?");
        Problem::new(ErrorCode::UpstreamUnavailable, "the file cannot be read now: try again later")
    })
}

fn headers(content: &Content) -> Result<HeaderMap, Problem> {
    let (from, to) = (content.period().first_day(), content.period().last_day());
    let name = format!("attachment; filename=\"invoices-{from}-{to}.{}\"", content.format.as_str());
    let name = HeaderValue::from_str(&name).map_err(|_| Problem::new(ErrorCode::InternalError, ""))?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content.format.content_type()));
    headers.insert(header::CONTENT_DISPOSITION, name);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(headers)
}

/// Reads the file as fast as the client takes it; ends when the client leaves.
fn chunks(mut file: Box<dyn Read + Send>) -> mpsc::Receiver<std::io::Result<Bytes>> {
    let (send, receive) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        loop {
            // A blocking read for each chunk: a slow client holds no thread.
            let read = tokio::task::spawn_blocking(move || {
                let mut chunk = vec![0; CHUNK];
                let read = file.read(&mut chunk);
                (
                    file,
                    read.map(|bytes| {
                        chunk.truncate(bytes);
                        Bytes::from(chunk)
                    }),
                )
            });
            let Ok((back, read)) = read.await else { return };
            file = back;
            let ended = read.as_ref().map_or(true, Bytes::is_empty);
            if !matches!(&read, Ok(chunk) if chunk.is_empty()) && send.send(read).await.is_err() {
                return;
            }
            if ended {
                return;
            }
        }
    });
    receive
}
