//! Pages of other origins (CORS): what a browser may let them read, by configuration; nothing by default.
//!
//! It is the browser that enforces this; nothing here lets a request in or keeps one out. The gateway speaks for all upstreams:
//! their own words on it are removed (`answer_headers`), and where origins are configured it answers preflights itself. A cookie's unsafe
//! requests must come from the gateway's own origin all the same (`identify`).

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};

use super::{
    body::ResponseBody,
    headers::{Single, single},
};
use crate::config::settings::CorsSettings;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");

/// The page's origin as the answer has to name it; `None`: it may read nothing.
pub fn allowed(settings: &CorsSettings, headers: &HeaderMap) -> Option<HeaderValue> {
    if !settings.is_on() {
        return None;
    }
    let Single::One(origin) = single(headers, header::ORIGIN) else { return None };
    if settings.any_origin {
        return Some(HeaderValue::from_static("*"));
    }
    settings.origins.iter().any(|known| known.as_bytes() == origin.as_bytes()).then(|| origin.clone())
}

/// The answer to a preflight; `None`: the request is none, or no origin is configured and it is a request like any other.
pub fn preflight<B>(settings: &CorsSettings, request: &Request<B>) -> Option<Response<ResponseBody>> {
    let headers = request.headers();
    let asks = request.method() == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if !asks || !settings.is_on() {
        return None;
    }
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    if allowed(settings, headers).is_some() {
        let answered = response.headers_mut();
        answered.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        answered.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, settings.headers.clone());
        answered.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(settings.max_age.as_secs()));
    }
    Some(response)
}

/// Says on an answer who may read it. `origin`: what [`allowed`] gave for the request.
pub fn say(settings: &CorsSettings, origin: Option<&HeaderValue>, is_preflight: bool, answered: &mut HeaderMap) {
    if !settings.is_on() {
        return;
    }
    // A cache must not give one origin's answer to another, nor to one that may read nothing.
    answered.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = origin else { return };
    answered.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if settings.credentials {
        answered.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    if !is_preflight {
        answered.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, settings.exposed.clone());
    }
}
