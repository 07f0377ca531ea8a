//! The stage that opens the audit record, and the ledger that completes it exactly once (I3).

use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use http::{HeaderMap, StatusCode};

use super::{
    body::{Ending, Finish},
    fields::Checked,
    headers::clean_trailers,
    measured::log_request,
    respond::Failure,
    seldom::Seldom,
    session::Who,
    standing::Terms,
    trail::Trail,
    worker::Worker,
};
use crate::{
    audit::{Completion, Decision, Durability, OpenRecord, Opening, SliceOutcome, Standing, Unkept},
    config::settings::{Access, RouteClass},
    domain::{DecisionId, ErrorCode, words::CLIENT_LEFT},
    policy::Bundle,
};

/// The word for what was allowed and carried out by another proxy.
pub const DECIDED: &str = "decided";

/// A request that may be acted upon: decided, counted, recorded.
#[derive(Debug)]
pub struct Opened {
    pub checked: Checked,
    pub ledger: Box<Ledger>,
}

/// Opens the record where one is due: partner users, and whoever names a managed tenant.
pub async fn open(worker: &Rc<Worker>, trail: &mut Trail, checked: Checked) -> Result<Opened, Failure> {
    Ok(Opened { checked, ledger: begin(worker, trail).await? })
}

/// Opens the record of what is about to be done.
pub async fn begin(worker: &Rc<Worker>, trail: &mut Trail) -> Result<Box<Ledger>, Failure> {
    let mut record = None;
    if is_recorded(trail) {
        let id = DecisionId::generate();
        let bundle = asked_set(worker, trail);
        let mut opening = opening(trail, id, Decision::Allow, None, bundle.version());
        let standing = known_terms(trail, bundle.generation(), &opening);
        opening.standing = standing.as_deref();
        let opened = worker.gateway.journal.try_admit(&opening, durability(worker, trail)).await;
        record = Some(opened.map_err(|unkept| unrecorded(worker, trail, id, &unkept))?);
        trail.decision_id = Some(id);
    }
    trail.accounted = true;
    Ok(Box::new(Ledger::new(worker, trail, record)))
}

/// Records a refusal. What is refused before the caller is known is counted, not journalled.
pub async fn refusal(worker: &Rc<Worker>, trail: &mut Trail, failure: &Failure) -> Result<(), Failure> {
    if trail.accounted {
        // Its ledger has completed the record, where there is one, and written the line.
        return Ok(());
    }
    // A request that is refused because it cannot be recorded is not tried again: where only the promise could not be
    // kept, its record stands already.
    if !is_recorded(trail) || failure.code == ErrorCode::AuditUnavailable {
        log_request(worker, trail, failure.code.status(), 0, Some(failure.word()));
        return Ok(());
    }
    let id = DecisionId::generate();
    let bundle = asked_set(worker, trail);
    let opening = opening(trail, id, Decision::Deny, Some(failure.word()), bundle.version());
    let completion = Completion {
        status: Some(failure.code.status()),
        duration_us: elapsed_us(trail.started),
        ..Completion::default()
    };
    // Both lines at once: a refusal is never left open by a crash, and keeps its reason.
    let recorded = worker.gateway.journal.try_record(&opening, &completion, durability(worker, trail)).await;
    recorded.map_err(|unkept| unrecorded(worker, trail, id, &unkept))?;
    trail.decision_id = Some(id);
    log_request(worker, trail, failure.code.status(), 0, Some(failure.word()));
    Ok(())
}

fn is_recorded(trail: &Trail) -> bool {
    let Some(session) = &trail.session else { return trail.cross && trail.stranger.is_some() };
    match &session.who {
        Who::Partner(_) | Who::Refused(_) => true,
        Who::Plain => trail.cross,
    }
}

/// Without a rule (a refusal before routing) the strictest class applies.
fn durability(worker: &Worker, trail: &Trail) -> Durability {
    let audit = &worker.gateway.settings.audit;
    match (&trail.route, trail.endpoint) {
        (Some(route), _) => route.settings.durability,
        (None, Some((spec, _))) if spec.class == RouteClass::Read => audit.reads,
        (None, Some(_)) => audit.writes,
        (None, None) => Durability::Disk,
    }
}

fn opening<'t>(
    trail: &'t Trail,
    id: DecisionId,
    decision: Decision,
    reason: Option<&'t str>,
    policy_version: &'t str,
) -> Opening<'t> {
    let session = trail.session.as_ref();
    let caller = session.map(|session| &session.caller).or(trail.stranger.as_ref());
    let partner = session.and_then(|session| session.partner());
    let target = trail.uri.path_and_query().map_or("", |target| target.as_str());
    Opening {
        user_id: caller.map(|caller| &*caller.sub),
        username: caller.and_then(|caller| caller.username.as_deref()),
        issuer: caller.map(|caller| &*caller.issuer),
        session_id: caller.and_then(|caller| caller.session_id.as_deref()),
        partner_id: partner.map(|partner| partner.facts.partner_id),
        partner_name: partner.map(|partner| &*partner.portfolio.partner.name),
        partner_tenant_id: partner.map(|partner| partner.portfolio.partner.home_tenant_id.as_str()),
        action: action(trail),
        resource_type: match trail.endpoint {
            Some((spec, _)) => Some(spec.resource),
            None => trail.route.as_ref().and_then(|route| route.resource_type.as_deref()),
        },
        resource_id: trail.resource_id.as_deref(),
        managed_tenant_id: trail.managed_tenant.as_ref().filter(|_| trail.cross).map(|tenant| tenant.as_str()),
        link_id: trail.link.as_ref().map(|link| link.link.id),
        link_version: trail.link.as_ref().map(|link| link.link.version),
        decision,
        reason,
        policies: &trail.policies,
        near_misses: &trail.near_misses,
        policy_version,
        trace_id: Some(trail.trace_id.as_str()),
        client_ip: Some(trail.client_ip),
        user_agent: trail.user_agent.as_ref().and_then(|value| value.to_str().ok()),
        mfa: caller.is_some_and(|caller| caller.mfa),
        slices: &trail.slices,
        asked: partner.and_then(|partner| trail.said.asked(partner, trail.link.as_deref())),
        shadow: trail.said.shadow.as_deref(),
        waived: &trail.said.waived,
        ..Opening::new(id, trail.now, trail.method.as_str(), target, trail.request_id.as_str())
    }
}

/// What of the record was written for an earlier one.
fn known_terms(trail: &Trail, policy_set: u64, opening: &Opening<'_>) -> Option<Rc<Standing>> {
    let session = trail.session.as_ref()?;
    let manner = trail.said.manner();
    let terms = Terms { link: trail.link.as_ref(), policies: &trail.policies, policy_set, manner };
    session.last_terms.known(&terms, opening)
}

/// The set that the request was decided by, or the one in force where it came to no decision.
fn asked_set(worker: &Worker, trail: &Trail) -> Arc<Bundle> {
    trail.said.bundle.clone().unwrap_or_else(|| worker.gateway.policies.current())
}

fn action(trail: &Trail) -> Option<&'static str> {
    if let Some((spec, _)) = trail.endpoint {
        return Some(spec.action());
    }
    trail.route.as_ref().map(|route| match route.settings.access {
        Access::Permission(permission) => permission.name(),
        Access::Home => "home",
        Access::Public => "public",
        Access::Deny => "deny",
    })
}

fn unrecorded(worker: &Worker, trail: &mut Trail, id: DecisionId, unkept: &Unkept) -> Failure {
    static TOLD: Seldom = Seldom::new();
    worker.gateway.metrics.audit_refused.inc();
    // The record may stand all the same; only what was promised of it was not kept.
    trail.decision_id = Some(id).filter(|_| unkept.recorded);
    if let Some(requests) = TOLD.due(Instant::now()) {
        tracing::error!(request_id = %trail.request_id, error = unkept.error.told(), requests,
            "requests are refused because they cannot be recorded; this is the last of them");
    }
    Failure::new(ErrorCode::AuditUnavailable, "audit_unavailable")
}

fn elapsed_us(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// What has to be settled when an exchange ends, however it ends. Dropped without an ending it counts as aborted.
#[derive(Debug)]
pub struct Ledger {
    worker: Rc<Worker>,
    record: Option<OpenRecord>,
    trail: LedgerTrail,
    pub status: Option<StatusCode>,
    pub upstream: Option<Arc<str>>,
    /// Kept until the end: the place among the requests under way, the watch over the stream, the connection.
    pub place: Option<crate::upstream::InFlight>,
    /// The endpoint that answers, where there is a choice.
    pub picked: Option<crate::upstream::Picked>,
    /// Of the call to the upstream, until its answer's head.
    pub call: Option<crate::spans::ClientSpan>,
    pub registration: Option<super::streams::Registration>,
    pub lease: Option<(crate::upstream::Lease<super::body::RequestBody>, Rc<super::body::Progress>)>,
    /// The word for an outcome that overturns or explains: an upstream's failure, a limit passed.
    pub reason: Option<&'static str>,
    /// Set where the outcome overturns the opening's decision.
    pub overturned: Option<Decision>,
    /// How each tenant's slice of a consolidated request ended.
    pub slices: Vec<SliceOutcome>,
    settled: bool,
}

/// What the log line at the end needs of the trail.
#[derive(Debug)]
pub struct LedgerTrail {
    pub started: Instant,
    pub line: Option<super::measured::LogLine>,
}

impl Ledger {
    fn new(worker: &Rc<Worker>, trail: &Trail, record: Option<OpenRecord>) -> Self {
        Self {
            worker: Rc::clone(worker),
            record,
            trail: LedgerTrail { started: trail.started, line: super::measured::LogLine::of(worker, trail) },
            status: None,
            upstream: None,
            place: None,
            picked: None,
            call: None,
            registration: None,
            lease: None,
            reason: None,
            overturned: None,
            slices: Vec::new(),
            settled: false,
        }
    }

    /// Ends what was only decided: another proxy carries it out, and linkgate sees no more of it.
    pub fn decided(mut self) {
        self.reason = Some(DECIDED);
        self.settle(Ending { bytes: 0, aborted: None });
    }

    /// Ends the exchange with a failure of the gateway's or the upstream's.
    pub fn fail(mut self, failure: &Failure) {
        self.status = StatusCode::from_u16(failure.code.status()).ok();
        // The finer word: why a stream was cut says more than the code that the client got.
        self.reason = Some(if failure.detail.is_empty() { failure.word() } else { failure.detail });
        self.settle(Ending { bytes: 0, aborted: None });
    }

    fn settle(&mut self, ending: Ending) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let duration_us = elapsed_us(self.trail.started);
        let aborted = ending.aborted.map(|why| self.who_left(why));
        let reason = aborted.or(self.reason);
        if let Some(record) = self.record.take() {
            record.complete(Completion {
                status: self.status.map(|status| status.as_u16()),
                bytes: ending.bytes,
                duration_us,
                upstream: self.upstream.clone(),
                aborted: ending.aborted.is_some(),
                decision: self.overturned,
                reason: reason.map(Into::into),
                slices: std::mem::take(&mut self.slices),
            });
        }
        if let Some(line) = self.trail.line.take() {
            line.write(self.status.map_or(0, |status| status.as_u16()), ending.bytes, duration_us, reason);
        }
        self.worker.gateway.metrics.bytes_sent.inc_by(ending.bytes);
        // Only a connection on which both messages are complete may carry another request.
        if let Some((lease, progress)) = self.lease.take()
            && ending.aborted.is_none()
            && progress.ended.get()
        {
            lease.give_back();
        }
        self.registration = None;
        self.picked = None;
        self.place = None;
    }
}

impl Ledger {
    /// What a worker drops when it ends looks like clients that left.
    fn who_left(&self, why: &'static str) -> &'static str {
        let stopping = self.worker.gateway.stopping.load(Ordering::Relaxed);
        if why == CLIENT_LEFT && stopping { "gateway_stopped" } else { why }
    }
}

impl Finish for Ledger {
    fn clean(&self, trailers: &mut HeaderMap) {
        clean_trailers(&self.worker.gateway.strip, trailers);
    }

    fn finish(mut self: Box<Self>, ending: Ending) {
        self.settle(ending);
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.settle(Ending { bytes: 0, aborted: Some(CLIENT_LEFT) });
    }
}
