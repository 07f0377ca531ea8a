//! How an answer is put together, and the one that is no decision.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body_util::Full;
use tonic::body::Body;

use crate::{
    domain::RequestId,
    proxy::{
        body::ResponseBody,
        respond::{self, Failure},
    },
};

/// An answer that is no decision.
pub(super) fn refusal(failure: &Failure) -> Response<Body> {
    let request_id = RequestId::generate();
    let mut response = own(respond::failure(failure, &request_id, None, false));
    if let Ok(value) = HeaderValue::from_str(request_id.as_str()) {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}

pub(super) fn own(response: Response<ResponseBody>) -> Response<Body> {
    let mut response = response.map(|body| match body {
        ResponseBody::Full(bytes) => full(bytes.unwrap_or_default()),
        _ => Body::empty(),
    });
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) fn full(bytes: Bytes) -> Body {
    Body::new(Full::new(bytes))
}
