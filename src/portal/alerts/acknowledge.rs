//! `POST /alerts/{sla|billing}/{alert_id}/acknowledge`.
//!
//! An alert that is not the caller's, or whose link is not live, is 404 `ALERT_NOT_FOUND`, as if there were none; one
//! whose link does not let the caller acknowledge is that link's own refusal; a resolved one is 409.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use serde_json::Value;
use uuid::Uuid;

use super::{AlertView, unavailable};
use crate::{
    audit::SliceOutcome,
    domain::{ErrorCode, link_rules::FieldError},
    portal::{Call, Portal, Prepared, Problem, Question, Reply, Slice, query::Params},
    store::{Actor, Admin, AlertKind, StoreError},
};

struct Acknowledge {
    kind: AlertKind,
    /// `None`: what the path names is no id, so it names no alert.
    alert: Option<Uuid>,
}

pub(crate) fn prepare(kind: AlertKind, question: &Question<'_>) -> Result<Box<dyn Prepared>, Problem> {
    Params::new(question.query).finish()?;
    if !question.body.is_empty() {
        let body: Value = serde_json::from_slice(question.body)
            .map_err(|_| Problem::new(ErrorCode::BadRequest, "the body is not JSON"))?;
        let unknown = |field: &String| FieldError { field: field.clone(), message: "unknown field".to_owned() };
        match body {
            Value::Object(fields) if fields.is_empty() => {}
            Value::Object(fields) => return Err(Problem::invalid(fields.keys().map(unknown).collect())),
            _ => return Err(Problem::new(ErrorCode::BadRequest, "the body must be a JSON object, or empty")),
        }
    }
    Ok(Box::new(Acknowledge { kind, alert: question.param.and_then(|text| text.parse().ok()) }))
}

fn not_found() -> Problem {
    Problem::new(ErrorCode::AlertNotFound, "")
}

impl Prepared for Acknowledge {
    fn answer(self: Box<Self>, portal: Arc<Portal>, call: Call) -> BoxFuture<'static, Result<Reply, Problem>> {
        async move {
            let partner = call.partner()?.portfolio.partner.id;
            let id = self.alert.ok_or_else(not_found)?;
            let alert = portal.alerts.alert(id).await.map_err(|error| unavailable(&error))?;
            let alert = alert.filter(|alert| alert.partner_id == partner && alert.kind == self.kind);
            let alert = alert.ok_or_else(not_found)?;
            match call.slices.iter().find(|slice| slice.link().link.id == alert.link_id) {
                Some(Slice::Granted(_)) => {}
                Some(Slice::Forbidden { denial, .. }) => return Err((*denial).into()),
                Some(Slice::Live(_)) | None => return Err(not_found()),
            }
            // The database may have taken its time.
            call.standing.ask(vec![alert.tenant_id.clone()], None).await?;
            let actor = Actor {
                name: call.asker.user_id.to_string(),
                username: call.asker.username.as_deref().map(str::to_owned),
                request_id: Some(call.trace.request_id.as_str().to_owned()),
                client_ip: Some(call.asker.ip),
                account: None,
            };
            // No link is written by this, so the rules of links are not asked.
            let admin = Admin::new(&portal.database, Arc::new(portal.policies.current().roles().clone()), false);
            let written =
                admin.acknowledge_alert(&actor, partner, self.kind, id).await.map_err(|error| match error {
                    StoreError::NotFound { .. } => not_found(),
                    StoreError::Refused(refusal) => refusal.into(),
                    error => unavailable(&error),
                })?;
            let managed = portal.managed.of(&call.partner()?.portfolio).await?;
            let name = managed.get(&alert.tenant_id).map(|managed| managed.tenant.name.as_str());
            let outcome = SliceOutcome { managed_tenant_id: alert.tenant_id.as_str().to_owned(), status: "ok".into() };
            Ok(Reply::json(200, &AlertView::of(&written.value, name))?.with_slices(vec![outcome]))
        }
        .boxed()
    }
}
