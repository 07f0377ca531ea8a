//! The question that is put once more: before what was allowed is done, before each thing that a write sends, and before
//! what was read is shown (I4).
//!
//! Sessions, memo and role tables are the worker's, and the work is done on the service runtime: a desk there takes the
//! question, and the worker answers it for as long as the work goes on, with or without its client. Where nobody answers,
//! nothing is done.

use std::{cell::RefCell, rc::Rc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    judge::{Judge, Manner},
    refusal::{Told, refusal, stale},
};
use crate::{
    config::settings::RouteClass,
    domain::{Denial, ErrorCode, Gate, Millis, Permission, Reason, TenantId},
    portal::{Audience, Granted, Problem, Slice, Spec, Standing},
    proxy::{
        certificate::{self, ClientCertificate},
        respond::Failure,
        session::{PartnerUser, Session, Unresolved, Who},
        trail::Trail,
        worker::Worker,
    },
};

/// How long an answer may take: what is decided anew must be of now when it is acted by.
const PATIENCE: Duration = Duration::from_millis(500);

/// Everything to decide the same request anew.
pub(super) struct Again {
    pub(super) worker: Rc<Worker>,
    pub(super) spec: &'static Spec,
    /// Under which it was granted.
    pub(super) session: Rc<Session>,
    /// As it was looked up last.
    latest: RefCell<Rc<Session>>,
    granted: Vec<Granted>,
    manner: Manner,
    certificate: Option<Rc<ClientCertificate>>,
    /// A tenant that the header names is acted in: `switch_context` is needed there too.
    switched: bool,
}

impl Again {
    pub(super) fn new(
        worker: &Rc<Worker>,
        trail: &Trail,
        spec: &'static Spec,
        session: Rc<Session>,
        slices: &[Slice],
    ) -> Self {
        let granted = slices.iter().filter_map(|slice| match slice {
            Slice::Granted(granted) => Some(granted.clone()),
            Slice::Live(_) | Slice::Forbidden { .. } => None,
        });
        Self {
            worker: Rc::clone(worker),
            spec,
            latest: RefCell::new(Rc::clone(&session)),
            session,
            granted: granted.collect(),
            manner: Manner::of(trail),
            certificate: trail.peer.certificate.clone(),
            switched: trail.cross,
        }
    }

    /// About all that was granted: windows by the clock, the rest where anything changed since.
    pub(super) async fn all(&self) -> Result<(), Failure> {
        let Some(fresh) = self.fresh().await? else { return Ok(()) };
        // Windows are judged by the clock of now, not by that of the request: they end without any change.
        let now = Millis::now();
        if let Some(gate) = self.granted.iter().find_map(|was| was.link().closed_gate(now)) {
            return Err(gate.denial());
        }
        if Rc::ptr_eq(&fresh, &self.session) {
            return Ok(());
        }
        let partner = partner(&fresh)?;
        let judge = Judge::new(&self.worker, (&self.manner, now), &fresh, partner, self.spec);
        for was in &self.granted {
            self.ask(&judge, partner, was, None).map_err(|failure| self.told(failure))?;
        }
        Ok(())
    }

    /// About these tenants, whatever changed or not, and by this further permission.
    async fn these(&self, tenants: &[TenantId], also: Option<Permission>) -> Result<(), Failure> {
        let Some(fresh) = self.fresh().await? else { return Ok(()) };
        let now = Millis::now();
        let partner = partner(&fresh)?;
        let judge = Judge::new(&self.worker, (&self.manner, now), &fresh, partner, self.spec);
        for tenant in tenants {
            let was = self.granted.iter().find(|was| was.tenant() == tenant).ok_or_else(|| Gate::Link.denial())?;
            self.ask(&judge, partner, was, also)?;
        }
        Ok(())
    }

    /// The bearer under the facts of now. `None` at home: no link is asked for, and stale links stop nobody.
    async fn fresh(&self) -> Result<Option<Rc<Session>>, Failure> {
        let worker = &self.worker;
        if worker.is_suspended(&self.session.caller) || worker.suspends(self.certificate.as_deref()) {
            return Err(Gate::Suspension.denial());
        }
        if !worker.certificate_counts(self.certificate.as_deref(), Millis::now()) {
            return Err(certificate::counts_no_more());
        }
        if self.spec.audience == Audience::TenantAdmin {
            return Ok(None);
        }
        let latest = Rc::clone(&self.latest.borrow());
        let fresh = worker.refreshed(&latest).await.map_err(|Unresolved| stale())?;
        self.latest.replace(Rc::clone(&fresh));
        if !worker.gateway.directory.is_fresh() {
            return Err(stale());
        }
        if fresh.suspended {
            return Err(Gate::Suspension.denial());
        }
        Ok(Some(fresh))
    }

    /// About one slice: its link, the endpoint's permission, and whichever further ones it was granted that are used.
    fn ask(
        &self,
        judge: &Judge<'_>,
        partner: &PartnerUser,
        was: &Granted,
        also: Option<Permission>,
    ) -> Result<(), Failure> {
        let link = partner.portfolio.link(was.tenant().as_str()).ok_or_else(|| Gate::Link.denial())?;
        if link.link.id != was.link().link.id {
            return Err(Gate::Link.denial());
        }
        if let Some(gate) = link.closed_gate(judge.now) {
            return Err(gate.denial());
        }
        // What is read shows all that was granted; what is written names what it uses.
        let shown = self.spec.class != RouteClass::Write;
        let further = Permission::all().filter(|one| also == Some(*one) || shown && was.further().contains(*one));
        for permission in self.spec.permission().into_iter().chain(further) {
            judge.ask(link, permission, self.switched)?.map_err(Failure::from)?;
        }
        Ok(())
    }

    /// An answer over many tenants is another one without this tenant, and can be had; what acts is refused.
    fn told(&self, failure: Failure) -> Failure {
        if self.spec.class == RouteClass::Write || failure.code.status() != 403 {
            return failure;
        }
        Failure::new(ErrorCode::LinksStale, "links_changed")
            .saying("access rights changed while this was answered; ask again")
    }
}

/// Whose links are asked; a bearer who is no partner's user any more is refused.
fn partner(fresh: &Session) -> Result<&PartnerUser, Failure> {
    match &fresh.who {
        Who::Partner(partner) if partner.portfolio.partner.suspended => Err(Gate::Suspension.denial()),
        Who::Partner(partner) if !partner.portfolio.partner.active => Err(Gate::Partner.denial()),
        Who::Partner(partner) => Ok(partner),
        Who::Refused(denial) => Err((*denial).into()),
        Who::Plain => Err(Denial::new(ErrorCode::Forbidden, Reason::NotAPartner).into()),
    }
}

/// A question from the service runtime.
pub(super) struct Question {
    tenants: Vec<TenantId>,
    also: Option<Permission>,
    answer: oneshot::Sender<Result<(), Problem>>,
}

/// Where the work asks.
#[derive(Debug)]
pub(super) struct Desk(mpsc::Sender<Question>);

/// Questions of one piece of work that wait at once: as many as it looks tickets up at once.
const WAITING: usize = 16;

pub(super) fn desk() -> (Desk, mpsc::Receiver<Question>) {
    let (ask, questions) = mpsc::channel(WAITING);
    (Desk(ask), questions)
}

impl Standing for Desk {
    fn ask(&self, tenants: Vec<TenantId>, also: Option<Permission>) -> BoxFuture<'_, Result<(), Problem>> {
        async move {
            let asked = async {
                let (answer, told) = oneshot::channel();
                self.0.send(Question { tenants, also, answer }).await.ok()?;
                told.await.ok()
            };
            // A worker that has ended, or cannot say in time, has not allowed it.
            timeout(PATIENCE, asked).await.ok().flatten().unwrap_or_else(|| Err(refusal(stale())))
        }
        .boxed()
    }
}

impl Question {
    pub(super) async fn answered(self, again: &Again) {
        let told = again.these(&self.tenants, self.also).await.map_err(refusal);
        // Nobody may wait any more: then nothing is done either.
        drop(self.answer.send(told));
    }
}
