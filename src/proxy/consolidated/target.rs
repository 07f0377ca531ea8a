//! Which endpoint of the consolidated API a path leads to.

use std::{borrow::Cow, sync::Arc};

use http::Request;

use crate::{
    domain::ErrorCode,
    portal::{Found, Portal, Spec},
    proxy::{path, respond::Failure, trail::Trail, worker::Worker},
};

/// An endpoint that the path led to.
#[derive(Debug)]
pub struct Target {
    pub(super) portal: Arc<Portal>,
    pub(super) spec: &'static Spec,
    /// Decoded once.
    pub(super) param: Option<String>,
    /// In the shape of older clients.
    pub(super) compatible: bool,
}

/// Finds the endpoint; `None` where the path is none of this API's.
pub fn find<B>(worker: &Worker, trail: &mut Trail, request: &Request<B>) -> Result<Option<Target>, Failure> {
    let Some(portal) = &worker.gateway.portal else { return Ok(None) };
    match portal.bases.find(request.method().as_str(), request.uri().path()) {
        Found::Nothing => Ok(None),
        Found::NotFound => Err(Failure::new(ErrorCode::RouteNotFound, "route")),
        Found::MethodNotAllowed(allow) => {
            let mut failure = Failure::new(ErrorCode::MethodNotAllowed, "method");
            failure.allow = Some(allow);
            Err(failure)
        }
        Found::Endpoint { spec, index, param, compatible } => {
            trail.compatible = compatible;
            let param = match param {
                Some(raw) => Some(path::decode_once(raw).map(Cow::into_owned).ok_or_else(|| {
                    Failure::new(ErrorCode::AmbiguousPath, "path").saying("ambiguous path: not UTF-8 once decoded")
                })?),
                None => None,
            };
            trail.endpoint = Some((spec, index));
            trail.resource_id = param.as_deref().map(Into::into);
            Ok(Some(Target { portal: Arc::clone(portal), spec, param, compatible }))
        }
    }
}
