//! `GET /alerts/sla` and `GET /alerts/billing`.
//!
//! Links that were not looked at for a while are asked first, within the request's own bound; whatever their sources
//! say, what is stored is listed. Only alerts of granted links are seen (I7): those of a revoked link are gone with it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::Instant;

use super::{
    AlertView,
    evaluate::{self, Reading},
    rules, unavailable,
};
use crate::{
    connector::rows::Severity,
    domain::{LinkId, Millis, Moment, TenantId},
    portal::{
        Call, Granted, ManagedTenant, Narrow, Portal, Prepared, Problem, Question, Reply,
        partial::{Coverage, Source, Status, Wish},
        query::{Paging, Params, Period},
        sources::Site,
        webhooks::deliver::{after, jittered, random},
    },
    store::{
        AlertKind, AlertStatus,
        alerts::{AlertFilter, EvaluationState, MOST_LISTED},
    },
};

struct AlertList {
    kind: AlertKind,
    tenants: Option<Vec<TenantId>>,
    since: Option<Moment>,
    default_since: Millis,
    status: Vec<AlertStatus>,
    severity: Vec<Severity>,
    paging: Paging,
    wish: Wish,
}

pub(crate) fn prepare(kind: AlertKind, question: &Question<'_>) -> Result<Box<dyn Prepared>, Problem> {
    let mut params = Params::new(question.query);
    let statuses = AlertStatus::ALL.iter().map(|status| (status.as_str(), *status)).collect::<Vec<_>>();
    let severities = Severity::ALL.iter().map(|severity| (severity.as_str(), *severity)).collect::<Vec<_>>();
    let list = AlertList {
        kind,
        tenants: params.tenant_ids(),
        since: params.moment("from_date"),
        default_since: Millis::from_timestamp(Period::last_days(rules::DAYS, question.now).from),
        status: params.words("status", &statuses).unwrap_or_default(),
        severity: params.words("severity", &severities).unwrap_or_default(),
        paging: params.paging(),
        wish: Wish::read(&mut params),
    };
    params.finish()?;
    Ok(Box::new(list))
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AlertList")]
pub(in crate::portal) struct Answer<'a> {
    items: Vec<AlertView<'a>>,
    total: usize,
    limit: u64,
    offset: u64,
    has_more: bool,
    active_count: usize,
    acknowledged_count: usize,
    resolved_count: usize,
    total_exact: bool,
    #[serde(flatten)]
    coverage: Coverage,
}

impl Prepared for AlertList {
    fn narrow(&self) -> Narrow<'_> {
        (&self.tenants).into()
    }

    fn answer(self: Box<Self>, portal: Arc<Portal>, call: Call) -> BoxFuture<'static, Result<Reply, Problem>> {
        async move {
            let partner = call.partner()?.portfolio.partner.id;
            let managed = portal.managed.of(&call.partner()?.portfolio).await?;
            let sources = self.refresh(&portal, &call, &managed).await?;
            let (coverage, outcomes) = Coverage::of(&call, self.wish, sources)?;

            let filter = AlertFilter {
                partner_id: partner,
                kind: self.kind,
                since: self.since.map(|moment| Millis::from_timestamp(moment.start())),
                default_since: self.default_since,
                severity: self.severity.clone(),
            };
            let store = &portal.alerts;
            let mut keys = store.keys(&filter).await.map_err(|error| unavailable(&error))?;
            let total_exact = keys.len() < MOST_LISTED;
            let granted: HashSet<LinkId> = call.granted().map(|slice| slice.link().link.id).collect();
            keys.retain(|key| granted.contains(&key.link_id));
            let wanted = |status: AlertStatus| self.status.is_empty() || self.status.contains(&status);
            keys.retain(|key| wanted(key.status));
            let count = |status| keys.iter().filter(|key| key.status == status).count();

            let skip = usize::try_from(self.paging.offset).unwrap_or(usize::MAX);
            let take = usize::try_from(self.paging.limit).unwrap_or(usize::MAX);
            let page: Vec<_> = keys.iter().skip(skip).take(take).map(|key| key.alert_id).collect();
            let alerts = store.alerts(&page).await.map_err(|error| unavailable(&error))?;
            let name = |tenant: &TenantId| managed.get(tenant).map(|managed| managed.tenant.name.as_str());
            let answer = Answer {
                items: alerts.iter().map(|alert| AlertView::of(alert, name(&alert.tenant_id))).collect(),
                total: keys.len(),
                limit: self.paging.limit,
                offset: self.paging.offset,
                has_more: skip.saturating_add(page.len()) < keys.len(),
                active_count: count(AlertStatus::Active),
                acknowledged_count: count(AlertStatus::Acknowledged),
                resolved_count: count(AlertStatus::Resolved),
                total_exact,
                coverage,
            };
            Ok(Reply::json(200, &answer)?.with_slices(outcomes))
        }
        .boxed()
    }
}

type Tenants = HashMap<TenantId, Arc<ManagedTenant>, ahash::RandomState>;

impl AlertList {
    /// Looks at the granted links that need it; one source for each granted link.
    async fn refresh(&self, portal: &Portal, call: &Call, managed: &Tenants) -> Result<Vec<Source>, Problem> {
        let settings = &portal.settings.alerts;
        let partner = call.partner()?.portfolio.partner.id;
        let states = portal.alerts.evaluations(partner, self.kind).await.map_err(|error| unavailable(&error))?;
        let states: HashMap<LinkId, EvaluationState> = states.into_iter().map(|state| (state.link_id, state)).collect();
        let alive = portal.alerts.links_with_live_alerts(partner, self.kind).await;
        let alive: HashSet<LinkId> = alive.map_err(|error| unavailable(&error))?.into_iter().collect();
        let fresh_since = after(call.now, settings.fresh_for, -1);

        let mut sources = Vec::new();
        let mut asked: Vec<(Granted, Arc<ManagedTenant>)> = Vec::new();
        for slice in call.granted() {
            let id = slice.link().link.id;
            let state = states.get(&id).copied();
            let Some(found) = managed.get(slice.tenant()).filter(|found| found.link.id == id) else {
                sources.push(source(slice, Status::Error, None, Some("the tenant is not known".to_owned())));
                continue;
            };
            let read_at = state.and_then(|state| state.read_at);
            let young = read_at.filter(|at| {
                // A changed threshold or target is judged at once.
                *at >= fresh_since && *at >= found.link.stamps.updated_at && !call.no_cache()
            });
            match young {
                Some(at) => sources.push(source(slice, Status::Ok, Some(at), None)),
                None if !rules::wanted(self.kind, &found.link.terms) && !alive.contains(&id) => {
                    sources.push(source(slice, Status::Ok, Some(call.now), None));
                }
                None => asked.push((slice.clone(), Arc::clone(found))),
            }
        }

        let reads = &portal.settings.reads;
        let until = Instant::now() + reads.deadline;
        let readings: Vec<(Granted, Reading)> = stream::iter(asked)
            .map(|(slice, found)| async move {
                let due = after(Millis::now(), jittered(settings.interval, random()), 1);
                let reading = evaluate::read(&portal.fanout, &Site::from(&slice), &found, self.kind, until, due).await;
                (slice, reading)
            })
            .buffer_unordered(reads.concurrency)
            .collect()
            .await;
        let mut evaluations = Vec::with_capacity(readings.len());
        for (slice, Reading { evaluation, status }) in readings {
            let before = states.get(&evaluation.link_id).and_then(|state| state.read_at);
            let as_of = if evaluation.error.is_none() { Some(evaluation.read_at) } else { before };
            sources.push(source(&slice, status, as_of, evaluation.error.clone()));
            evaluations.push(evaluation);
        }
        portal.alerts.apply(evaluations).await.map_err(|error| unavailable(&error))?;
        Ok(sources)
    }
}

fn source(slice: &Granted, status: Status, as_of: Option<Millis>, error: Option<String>) -> Source {
    Source { tenant_id: slice.tenant().clone(), status, as_of: as_of.and_then(Millis::timestamp), error }
}
