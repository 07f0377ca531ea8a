//! Floor 0: the words of the contract as types.
//!
//! Ids, permissions, roles, links, gates and error codes. Everything above speaks in these types; nothing here knows
//! of sockets, databases or the policy engine, so every rule in this folder can be read and tested alone.

pub mod case;
pub mod error;
pub mod event;
pub mod facts;
pub mod gate;
pub mod ids;
pub mod link;
mod link_input;
pub mod link_rules;
pub mod moment;
pub mod money;
pub mod permission;
pub mod plain;
pub mod role;
mod schema;
pub mod secret;
pub mod sheet;
pub mod sign_off;
pub mod strict_json;
pub mod time;
pub mod trace;
pub mod trace_state;
pub mod words;

pub use case::Case;
pub use error::ErrorCode;
pub use event::{About, EventType};
pub use facts::{Facts, LinkFacts, Member, Partner, Portfolio, UserFacts};
pub use gate::{Denial, Gate, Reason};
pub use ids::{DecisionId, LinkId, LinkVersion, PartnerId, RequestId, TenantId, has_open_edge};
pub use link::{Approval, Link, RelationshipType};
pub use moment::{InvalidTime, Moment};
pub use money::Currency;
pub use permission::{Permission, PermissionSet};
pub use role::{LinkRole, RoleTable};
pub use secret::Secret;
pub use sign_off::{ApprovalRules, SignOff};
pub use time::Millis;
pub use trace::{RemoteParent, Sampling, SpanId, Trace, TraceId};
pub use trace_state::TraceState;
