//! The listener at which others ask for decisions: Envoy over gRPC (`ext_authz`), nginx, Caddy and Traefik over HTTP
//! (`check`), services by AuthZEN (`authzen`).
//!
//! Address, method and target of the original request are believed here, so whoever asks is authenticated first, by every
//! face (`callers`); loopback is no authentication. What is decided, and how, is `proxy::decision`'s.

mod answer;
mod authzen;
mod callers;
mod check;
pub mod ext_authz;
mod original;
pub mod proto;
mod question;

pub use check::{CALLER, COPIED};

use std::rc::Rc;

use http::{HeaderValue, Method, Request, Response, Version, header};
use hyper::body::Incoming;
use tonic::body::Body;

use self::answer::refusal;
use crate::{
    config::settings::ListenSettings,
    domain::ErrorCode,
    proxy::{peer::Peer, respond::Failure, worker::Worker},
};

/// Which listener a connection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Public,
    Decisions,
}

impl Door {
    /// For log lines.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Decisions => "decision",
        }
    }
}

/// What a check adds to the fields of the original request.
const ADDED_FIELDS: usize = 16;
const ADDED_BYTES: usize = 16 * 1024;

/// The public listener's limits, with room for what a check adds: what the proxy would take is no reason to refuse here.
pub(super) fn limits(listen: &ListenSettings) -> ListenSettings {
    ListenSettings {
        max_header_count: listen.max_header_count + ADDED_FIELDS,
        max_header_bytes: listen.max_header_bytes + listen.max_uri_bytes + ADDED_BYTES,
        ..listen.clone()
    }
}

/// Answers one question.
pub(super) async fn handle(worker: Rc<Worker>, connection: Peer, request: Request<Incoming>) -> Response<Body> {
    // Behind an upgrade the guard lets everything pass, and none is made here: nothing more may be read of such a
    // connection.
    let ends = request.version() <= Version::HTTP_11 && request.headers().contains_key(header::UPGRADE);
    let mut response = answered(worker, connection, request).await;
    if ends {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn answered(worker: Rc<Worker>, connection: Peer, request: Request<Incoming>) -> Response<Body> {
    let uri = request.uri();
    if let Some(why) = (worker.stand_in)(uri.path(), uri.query()) {
        let failure = Failure::new(ErrorCode::BadRequest, "inexact_request");
        return refusal(&failure.saying(format!("the request is not exact HTTP: {why}")));
    }
    let post = *request.method() == Method::POST;
    match uri.path() {
        ext_authz::PATH if post => ext_authz::answer(worker, connection, request).await,
        authzen::EVALUATION | authzen::EVALUATIONS if post => {
            // Boxed: far longer than the others, and seldom.
            Box::pin(authzen::answer(worker, connection, request)).await
        }
        authzen::CONFIGURATION if *request.method() == Method::GET => authzen::configuration(&worker, &request),
        path => match check::Dialect::of(path) {
            Some(dialect) if matches!(*request.method(), Method::GET | Method::HEAD) => {
                check::answer(worker, connection, request, dialect).await
            }
            Some(_) => refusal(&Failure::new(ErrorCode::MethodNotAllowed, "method").saying("ask with GET")),
            None => {
                refusal(&Failure::new(ErrorCode::RouteNotFound, "route").saying("there is no such decision endpoint"))
            }
        },
    }
}
