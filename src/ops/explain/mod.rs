//! Why a request was refused or allowed, and what single change would have turned it round: of a record, or of a made-up
//! request.
//!
//! Each decision is made again with the facts of the record, every gate is listed, and the near misses are found by
//! deciding again with one fact changed. `recorded` is what a record has to decide again, `asked` a made-up request,
//! `reasons` one decision, `views` who may see what of it.

pub mod recorded;

mod asked;
mod reasons;
mod views;

use schemars::JsonSchema;
use serde::Serialize;

pub use asked::Asked;
pub use reasons::Reasons;
pub use views::{Caller, TenantView};

use self::reasons::explained;
use crate::{audit::Record, policy::Bundle};

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
