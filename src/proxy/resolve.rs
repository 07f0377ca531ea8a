//! Looks up what the database says of a verified token's bearer, by the rule that [`Session`] stands under: first the epoch,
//! then the rows.

use std::{rc::Rc, sync::Arc};

use http::HeaderValue;

use super::{
    session::{PartnerUser, Session, Unresolved, Who, held, text_header},
    standing::LastTerms,
    worker::Worker,
};
use crate::{
    audit::Holds,
    domain::{Denial, ErrorCode, Reason, UserFacts},
    identity::Caller,
    store::Reading,
};

/// Looks the bearer up in data that is known to be fresh. Only such a session may be kept and used again.
pub async fn session(worker: &Worker, caller: Arc<Caller>, keys: u64) -> Result<Rc<Session>, Unresolved> {
    look_up(worker, caller, keys, Reading::Fresh).await
}

/// For one home request while the database is away: what was known last will do. Never to be kept: the change feed may
/// come back between two of its reads, and the session would carry the old rows under the new epoch.
pub async fn session_for_home(worker: &Worker, caller: Arc<Caller>, keys: u64) -> Result<Rc<Session>, Unresolved> {
    look_up(worker, caller, keys, Reading::HomeOnly).await
}

async fn look_up(worker: &Worker, caller: Arc<Caller>, keys: u64, reading: Reading) -> Result<Rc<Session>, Unresolved> {
    let gateway = &worker.gateway;
    let directory = &gateway.directory;
    let epoch = directory.epoch();
    let bundle = gateway.policies.current();
    let member = directory.member(&caller.issuer, &caller.sub, reading).await.map_err(|_| Unresolved)?;
    let suspended = worker.is_suspended(&caller);
    let refused = |reason| Who::Refused(Denial::new(ErrorCode::Forbidden, reason));
    let partner_id = match (member.as_deref(), caller.partner_id) {
        (Some(member), _) if !member.active => Err(refused(Reason::NotAPartner)),
        (Some(member), Some(claimed)) if member.partner_id != claimed => Err(refused(Reason::IdentityConflict)),
        (Some(member), _) => Ok(Some(member.partner_id)),
        (None, claimed) => Ok(claimed),
    };
    let who = match partner_id {
        Err(who) => who,
        Ok(None) => Who::Plain,
        Ok(Some(id)) => match directory.portfolio(id, reading).await.map_err(|_| Unresolved)? {
            Some(portfolio) if caller.home_tenant.as_ref() == Some(&portfolio.partner.home_tenant_id) => {
                let holds = held(&caller, bundle.roles());
                Who::Partner(Box::new(PartnerUser {
                    facts: UserFacts {
                        issuer: Arc::clone(&caller.issuer),
                        sub: Arc::clone(&caller.sub),
                        partner_id: id,
                        holds,
                        suspended,
                    },
                    holds: Holds::of(&caller.roles, &caller.permissions),
                    partner_header: HeaderValue::from_str(&id.to_string()).ok(),
                    partner_tenant_header: text_header(portfolio.partner.home_tenant_id.as_str()),
                    portfolio,
                }))
            }
            // A partner that nobody registered has no home either.
            Some(_) | None => refused(Reason::IdentityConflict),
        },
    };
    let user_header = text_header(&caller.sub);
    let (policies, last_terms) = (bundle.generation(), LastTerms::default());
    Ok(Rc::new(Session { caller, who, suspended, user_header, epoch, policies, keys, last_terms }))
}

impl Worker {
    /// The same bearer under the facts of now, for a cross-tenant stream.
    pub async fn refreshed(&self, session: &Rc<Session>) -> Result<Rc<Session>, Unresolved> {
        if self.is_current(session) {
            return Ok(Rc::clone(session));
        }
        self::session(self, Arc::clone(&session.caller), session.keys).await
    }
}
