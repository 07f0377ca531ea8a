//! Floor 4: a request's way from its head to its answer. `flow` is the list of stages; the others follow in its order.
//! `decision` and `judgement` call them for others that carry the request out.

pub mod flow;

pub mod certificate;
pub mod cors;
pub mod inbound;
pub mod intake;
pub mod path;
pub mod trace_context;

pub mod route;

pub mod identify;
pub mod session;

pub mod tenant;

pub mod authorize;
pub mod said;

pub mod quota;

pub mod fields;

pub mod account;

pub mod consolidated;

pub mod credential;
pub mod decision;
pub mod decision_metrics;
pub mod forward;
pub mod headers;
pub mod judgement;
pub mod outgoing;
pub mod query;

pub mod body;
mod owned_body;
pub mod tunnel;
pub mod unread;
pub mod watch;

pub mod respond;

pub mod counts;
pub mod metrics;
pub mod seldom;
pub mod worker;
