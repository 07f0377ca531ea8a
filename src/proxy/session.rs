//! A verified token together with what the database says of its bearer, as a worker keeps it hot.
//!
//! A session is used again only while the keys, the policy set and the change feed's epoch are those it was resolved
//! under, so a change of any of them is seen by the next request. The epoch is read before the rows are: a change that
//! comes between makes the session old at once, never young.

use std::{rc::Rc, sync::Arc};

use http::HeaderValue;

use super::standing::LastTerms;
use crate::{
    audit::Holds,
    domain::{Denial, PermissionSet, Portfolio, RoleTable, UserFacts},
    identity::{Caller, Remembered},
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
    /// For the next record, see there.
    pub last_terms: LastTerms,
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

/// What the token grants by this role table.
pub fn held(caller: &Caller, roles: &RoleTable) -> PermissionSet {
    roles.holds(caller.roles.iter().map(|role| &**role), caller.permissions.iter().map(|name| &**name))
}

/// Ids may hold characters outside ASCII; they travel as their UTF-8 bytes.
pub fn text_header(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_bytes(text.as_bytes()).ok()
}
