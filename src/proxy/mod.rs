//! Floor 4: a request's way from its head to its answer. `flow` is the list of stages; the others follow in its order, on
//! what is known by then (`trail`). `decision` and `judgement` call them for others that carry the request out.

pub mod flow;

pub mod ids;
pub mod peer;
pub mod trail;

pub mod certificate;
pub mod cors;
pub mod forwarded;
pub mod inbound;
pub mod intake;
pub mod path;
pub mod spelling;
pub mod trace_context;

pub mod route;
pub mod routes;

pub mod identify;
pub mod resolve;
pub mod session;
pub mod standing;

pub mod active_tenant;
pub mod tenant;

pub mod authorize;
pub mod said;

pub mod quota;

pub mod confirm;
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
pub mod target;

pub mod answer_headers;
pub mod body;
pub mod cut;
mod owned_body;
pub mod streams;
pub mod tunnel;
pub mod unread;
pub mod watch;

pub mod respond;

pub mod counts;
pub mod measured;
pub mod metrics;
pub mod seldom;
pub mod shadow_metrics;
pub mod vitals;
pub mod worker;
