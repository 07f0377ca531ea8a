//! Why a request was refused or allowed, and what single change would have turned it round: of a record, or of a made-up
//! request.
//!
//! Each decision is made again with the facts of the record, every gate is listed, and the near misses are found by
//! deciding again with one fact changed. `reasons` is one decision, `views` who may see what of it, `recorded` what a
//! record has to decide again.

pub mod recorded;

mod reasons;
mod views;

use schemars::JsonSchema;
use serde::Serialize;

pub use reasons::Reasons;
pub use views::{Caller, TenantView};

use self::reasons::explained;
use super::{Trouble, plain};
use crate::{
    audit::Record,
    domain::{Case, LinkId},
    policy::{Bundle, GateState, WhatIf},
    store::Admin,
};

/// For whom it is explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Viewer {
    /// What the answer said.
    Caller,
    /// A managed tenant's administrator.
    Tenant(String),
    /// Everything.
    Operator,
}

/// What the viewer sees.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Explanation")]
pub enum Seen {
    Caller(Caller),
    Tenant(Box<TenantView>),
    Record(Box<Whole>),
    Request(Box<Reasons>),
}

/// A record with each of its decisions.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ExplainedRecord")]
pub struct Whole {
    #[serde(flatten)]
    pub record: Record,
    /// Of a change none.
    pub decisions: Vec<Reasons>,
}

impl Seen {
    /// `None`: the record is not about the viewer's tenant, and so as unknown to them as one that does not exist.
    pub fn of_record(record: Record, bundle: &Bundle, viewer: &Viewer) -> Option<Self> {
        Some(match viewer {
            Viewer::Caller => Self::Caller(Caller::of_record(&record)),
            Viewer::Tenant(tenant) => {
                let decisions = explained(&record, bundle);
                Self::Tenant(Box::new(TenantView::of_record(&record, &decisions, tenant)?))
            }
            Viewer::Operator => {
                let decisions = explained(&record, bundle);
                Self::Record(Box::new(Whole { record, decisions }))
            }
        })
    }

    /// `None`: the request is not about the viewer's tenant.
    pub fn of_asked(asked: &Asked, bundle: &Bundle, viewer: &Viewer) -> Option<Self> {
        let reasons = Reasons::of_asked(bundle, asked);
        Some(match viewer {
            Viewer::Caller => Self::Caller(Caller::of_reasons(&reasons)),
            Viewer::Tenant(tenant) => {
                let link = asked.case.link.as_ref().filter(|link| link.link.tenant_id.as_str() == tenant)?;
                Self::Tenant(Box::new(TenantView::of_case(&reasons, link)))
            }
            Viewer::Operator => Self::Request(Box::new(reasons)),
        })
    }
}

/// A made-up request to be explained, and what the gate before the policies says of its user.
#[derive(Debug)]
pub struct Asked {
    pub case: Case,
    /// `Unknown` where no user was named.
    pub identity: GateState,
}

impl Asked {
    /// One JSON object as `linkgate decide` reads it.
    pub fn read(bundle: &Bundle, question: &[u8]) -> Result<Self, Trouble> {
        let read = WhatIf::read(bundle, question).map(WhatIf::into_case);
        let case = read.map_err(|error| Trouble::Invalid(format!("the request cannot be decided: {error}")))?;
        Ok(Self { case, identity: GateState::Unknown })
    }

    /// The same through a link as it stands in the database now, by the user with this issuer and `sub`: the very facts
    /// that a request through this link is decided by.
    pub async fn through(mut self, admin: &Admin, id: LinkId, user: Option<(&str, &str)>) -> Result<Self, Trouble> {
        let link = admin.standing(id).await?;
        let partner = link.link.partner_id;
        if let Some((issuer, sub)) = user {
            let row = admin.user_by_subject(issuer, sub).await?;
            if let Some(row) = row.as_ref().filter(|row| row.partner_id != partner) {
                return Err(Trouble::Invalid(format!(
                    "user `{}` works for partner {}, the link is of partner {partner}: no request of theirs goes through it",
                    plain(sub),
                    row.partner_id,
                )));
            }
            // Without a row the token's own claims say who it is.
            let is_active = row.is_none_or(|row| row.is_active);
            self.identity = if is_active { GateState::Open } else { GateState::Closed };
            self.case.user.suspended = admin.is_user_suspended(issuer, sub).await?;
        } else {
            self.case.user.suspended = false;
        }
        self.case.user.partner_id = partner;
        self.case.link = Some(link);
        Ok(self)
    }
}
