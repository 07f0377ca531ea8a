//! A verified token together with what the database says of its bearer, as a worker keeps it hot.
//!
//! A session is used again only while the keys, the policy set and the change feed's epoch are those it was resolved
//! under, so a change of any of them is seen by the next request. The epoch is read before the rows are: a change that
//! comes between makes the session old at once, never young.

use std::{rc::Rc, sync::Arc};

use http::HeaderValue;

use super::worker::Worker;
use crate::{
    audit::Holds,
    domain::{Denial, ErrorCode, PermissionSet, Portfolio, Reason, RoleTable, UserFacts},
    identity::{Caller, Remembered},
    store::Reading,
};

/// One token's bearer.
#[derive(Debug)]
pub struct Session {
    pub caller: Arc<Caller>,
    pub who: Who,
    /// An emergency suspension covers the user, the session or the token: every request is refused.
    pub suspended: bool,
    pub user_header: Option<HeaderValue>,
    /// What this was resolved under.
    pub epoch: u64,
    pub policies: u64,
    pub keys: u64,
}

/// Whom the database knows.
#[derive(Debug)]
pub enum Who {
    /// Works in their own tenant only.
    Plain,
    Partner(Box<PartnerUser>),
    /// An inactive row, or claims and rows that contradict each other.
    Refused(Denial),
}

/// A partner user with all links of the partner.
#[derive(Debug)]
pub struct PartnerUser {
    pub facts: UserFacts,
    pub portfolio: Arc<Portfolio>,
    /// What the token grants, as records have it: written once for all requests.
    pub holds: Holds,
    pub partner_header: Option<HeaderValue>,
    pub partner_tenant_header: Option<HeaderValue>,
}

impl Session {
    pub fn partner(&self) -> Option<&PartnerUser> {
        match &self.who {
            Who::Partner(user) => Some(user),
            Who::Plain | Who::Refused(_) => None,
        }
    }
}

impl Remembered for Rc<Session> {
    fn caller(&self) -> &Caller {
        &self.caller
    }
}

/// The database could not tell; nothing may be concluded.
#[derive(Debug)]
pub struct Unresolved;

/// Looks the bearer up in data that is known to be fresh. Only such a session may be kept and used again.
pub async fn resolve(worker: &Worker, caller: Arc<Caller>, keys: u64) -> Result<Rc<Session>, Unresolved> {
    look_up(worker, caller, keys, Reading::Fresh).await
}

/// For one home request while the database is away: what was known last will do. Never to be kept: the change feed may
/// come back between two of its reads, and the session would carry the old rows under the new epoch.
pub async fn resolve_for_home(worker: &Worker, caller: Arc<Caller>, keys: u64) -> Result<Rc<Session>, Unresolved> {
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
    Ok(Rc::new(Session { caller, who, suspended, user_header, epoch, policies: bundle.generation(), keys }))
}

/// What the token grants by this role table.
pub fn held(caller: &Caller, roles: &RoleTable) -> PermissionSet {
    roles.holds(caller.roles.iter().map(|role| &**role), caller.permissions.iter().map(|name| &**name))
}

/// Ids may hold characters outside ASCII; they travel as their UTF-8 bytes.
pub fn text_header(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_bytes(text.as_bytes()).ok()
}
