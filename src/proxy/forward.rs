//! The act: a permitted request goes upstream and its answer comes back (I1, I2).
//!
//! The head that is sent is built anew: protected and hop-by-hop headers gone, ours set, framing left to hyper, the path
//! byte for byte the one that was decided. Bodies stream both ways.

use std::{future::poll_fn, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use tokio::time::Instant;

use super::{
    account::{Ledger, Opened},
    answer_headers,
    body::{Broken, Cut, Exchange, RequestBody, ResponseBody, UpstreamStream},
    outgoing::{self, Outgoing},
    respond::Failure,
    trail::Trail,
    tunnel,
    unread::ClientBody,
    watch,
    worker::Worker,
};
use crate::{
    audit::Decision,
    domain::{ErrorCode, words},
    upstream::{Asker, Attempts, Destination, InFlight, Lease, Picked, Refused, SendError},
};

pub const CROSS_TENANT: HeaderName = HeaderName::from_static("x-cross-tenant-access");

/// Where the gateway publishes the keys of its assertions.
const JWKS_PATH: &str = "/.well-known/linkgate/jwks.json";
/// Where it publishes those of its audit checkpoints. Another set: who takes the one for assertions must not take these.
const AUDIT_KEYS_PATH: &str = "/.well-known/linkgate/audit-keys.json";

/// Seconds after which a request that found no place or no service may be tried again.
const RETRY_AFTER: u32 = 1;

/// The gateway's own public documents.
pub fn own_document(worker: &Worker, request: &Request<ClientBody>) -> Option<Response<ResponseBody>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let document = match request.uri().path() {
        JWKS_PATH => worker.gateway.keyring.as_ref()?.jwks_json(),
        AUDIT_KEYS_PATH => worker.gateway.audit_keys.as_deref()?,
        _ => return None,
    };
    let body = Bytes::copy_from_slice(document.as_bytes());
    let mut response = Response::new(ResponseBody::Full(Some(body)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Some(response)
}

/// Forwards. The permit travels inside `opened` and is consumed: one permit, one request.
pub async fn send(worker: &Rc<Worker>, trail: &mut Trail, opened: Opened) -> Result<Response<ResponseBody>, Failure> {
    let Opened { checked, mut ledger } = opened;
    let exchange = Exchange { cut: Rc::default(), progress: Rc::default() };
    match attempt(worker, trail, checked, &mut ledger, &exchange).await {
        Ok((response, client_upgrade, total)) => {
            ledger.status = Some(response.status());
            Ok(answer(trail, response, client_upgrade, ledger, exchange.cut, total))
        }
        Err(failure) => {
            // What is left of a body that broke off stands in the way of another request.
            trail.closes |= exchange.progress.broken.get().is_some();
            let failure = explained(failure, &exchange);
            ledger.fail(&failure);
            Err(failure)
        }
    }
}

type Answered = (Response<Incoming>, Option<OnUpgrade>, Option<Instant>);

async fn attempt(
    worker: &Rc<Worker>,
    trail: &Trail,
    checked: super::fields::Checked,
    ledger: &mut Ledger,
    exchange: &Exchange,
) -> Result<Answered, Failure> {
    let routed = &checked.admitted.0.placed.identified.routed;
    let route = Arc::clone(&routed.route);
    let upstream = route.upstream.as_ref().ok_or_else(|| Failure::new(ErrorCode::InternalError, "no_upstream"))?;
    ledger.upstream = Some(Arc::clone(&upstream.name));
    let total = route.settings.total_timeout.map(|total| Instant::from_std(trail.started) + total);
    // The permit's own tenant: nobody else's endpoints, nor places, are used.
    let to = upstream
        .destination(outgoing::effective_tenant(&checked.admitted.0)?)
        .ok_or_else(|| Failure::new(ErrorCode::UpstreamUnavailable, "no_address_for_tenant"))?;
    ledger.place = Some(match to.enter(asker(trail)) {
        Some(place) => place,
        None => Box::pin(queued(to, asker(trail), total)).await?,
    });
    // Before the head is written, which tells its id.
    ledger.call = trail.span.as_ref().map(|span| span.call(&upstream.name, &trail.method));
    let outgoing = outgoing::build(worker, trail, checked, upstream, exchange)?;
    if let Some(watched) = watch::of(trail, &trail.method, &exchange.cut, total) {
        ledger.registration = Some(worker.streams.register(Rc::clone(&watched)));
        // The record may have waited for its disk: the sweep's own question, asked once before the act.
        if let Some(why) = watch::ended(worker, &watched).await {
            ledger.overturned = Some(Decision::Deny);
            return Err(why.failure());
        }
    }
    let patience = route.settings.response_timeout.unwrap_or(upstream.settings.response_timeout);
    let Outgoing { request, client_upgrade } = outgoing;
    let waited = wait(worker, trail, to.attempts(asker(trail)), request, exchange, patience, total).await;
    if let Some(call) = ledger.call.take() {
        match &waited {
            Ok((response, ..)) => call.answered(response.status()),
            Err(failure) => call.failed(if failure.detail.is_empty() { failure.word() } else { failure.detail }),
        }
    }
    let (mut response, lease, picked) = waited?;
    if let Some(picked) = &picked {
        answer_headers::redirect_here(response.headers_mut(), picked.endpoint().origin());
    }
    if trail.cross {
        let credentials = &worker.gateway.settings.headers.session_cookies;
        answer_headers::keep_to_its_tenant(response.headers_mut(), credentials);
    }
    // Cut just as the answer came: an error is told, where a body that is cut at once would leave an empty reply.
    if let Some(why) = exchange.cut.reason() {
        return Err(why.failure());
    }
    if !answer_headers::is_framed_once(response.headers()) {
        tracing::warn!(request_id = %trail.request_id, upstream = &*upstream.name,
            "an upstream's answer does not say in one way where it ends: it is not passed on");
        return Err(Failure::new(ErrorCode::UpstreamError, "upstream_framing"));
    }
    ledger.picked = picked;
    // After an upgrade was asked for, the two sides may disagree on what follows: such a connection serves nobody else.
    if client_upgrade.is_none() {
        ledger.lease = Some((lease, Rc::clone(&exchange.progress)));
    }
    Ok((response, client_upgrade, total))
}

/// Nobody in particular on public routes.
fn asker(trail: &Trail) -> Asker<'_> {
    let organisation = trail.session.as_ref().and_then(|session| session.caller.home_tenant.as_ref());
    let tenant = if trail.cross { trail.managed_tenant.as_ref() } else { organisation };
    Asker { tenant, organisation }
}

/// A place of those that come free, or a stated refusal.
async fn queued(to: Destination<'_>, asker: Asker<'_>, total: Option<Instant>) -> Result<InFlight, Failure> {
    to.queue(asker, total).await.map_err(|refused| {
        let word = match refused {
            Refused::Share => "upstream_share",
            Refused::Full => "upstream_full",
            Refused::QueueFull => "upstream_queue_full",
            Refused::QueueTimeout => "upstream_queue_timeout",
        };
        unavailable(word)
    })
}

/// It may be better in a moment.
fn unavailable(word: &'static str) -> Failure {
    Failure { retry_after: Some(RETRY_AFTER), ..Failure::new(ErrorCode::UpstreamUnavailable, word) }
}

/// What came, and where from.
type Sent = (Response<Incoming>, Lease<RequestBody>, Option<Picked>);

/// Sends and waits for the answer's head: until the stream is cut, the total time is over, or nothing moves for
/// `patience` (an upload that goes on is not cut short by it).
#[expect(clippy::manual_async_fn, reason = "the arguments of an `async fn` take their room twice")]
fn wait<'a>(
    worker: &'a Rc<Worker>,
    trail: &'a Trail,
    mut attempts: Attempts<'a>,
    request: Box<Request<RequestBody>>,
    exchange: &'a Exchange,
    patience: Duration,
    total: Option<Instant>,
) -> impl Future<Output = Result<Sent, Failure>> {
    async move {
        let retry =
            matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE);
        let upgrade = request.headers().contains_key(header::UPGRADE);
        let answered = {
            let sending = attempts.send(&worker.pool, request, retry, upgrade);
            let cut = poll_fn(|cx| exchange.cut.poll_cut(cx));
            tokio::pin!(sending, cut);
            let mut moved = exchange.progress.bytes.get();
            let mut timer = worker.timer(bounded(Instant::now() + patience, total));
            loop {
                tokio::select! {
                    biased;
                    answer = &mut sending => break Some(answer),
                    why = &mut cut => return Err(why.failure()),
                    () = poll_fn(|cx| timer.poll(cx)) => {
                        let now = Instant::now();
                        // Behind the last byte the service gets its whole time: a slow client must not use it up.
                        let uploading = exchange.progress.bytes.get() > moved;
                        if !uploading || total.is_some_and(|total| total <= now) {
                            break None;
                        }
                        moved = exchange.progress.bytes.get();
                        timer.reset(bounded(now + patience, total));
                    }
                }
            }
        };
        match answered {
            Some(Ok((response, lease))) => Ok((response, lease, attempts.into_picked())),
            Some(Err(error)) => {
                // What a client does to its own request says nothing of the service.
                if exchange.progress.broken.get().is_none() {
                    attempts.failed();
                }
                Err(unsent(trail, &error, exchange))
            }
            None => {
                // The service had the whole request, and all of its time: it is the one that is late.
                if exchange.progress.ended.get() && total.is_none_or(|total| Instant::now() < total) {
                    attempts.late();
                }
                Err(late())
            }
        }
    }
}

/// No answer in time.
pub fn late() -> Failure {
    Failure::new(ErrorCode::UpstreamTimeout, "response_timeout")
}

fn bounded(at: Instant, total: Option<Instant>) -> Instant {
    total.map_or(at, |total| total.min(at))
}

fn unsent(trail: &Trail, error: &SendError, exchange: &Exchange) -> Failure {
    let source = std::error::Error::source(error).map(ToString::to_string);
    let upstream = trail.route.as_ref().and_then(|route| route.upstream.as_ref()).map(|upstream| &*upstream.name);
    match exchange.progress.broken.get() {
        // The client's doing, or what was done to it: nothing for the operator.
        Some(broken) => {
            tracing::debug!(request_id = %trail.request_id, upstream, %broken, "a request broke off on its way")
        }
        None => tracing::warn!(request_id = %trail.request_id, upstream, %error, source, "an upstream call failed"),
    }
    match error {
        SendError::Connect { .. } | SendError::ConnectTimeout(_) => unavailable("connect_failed"),
        SendError::Unresolved(_) => unavailable("name_unresolved"),
        SendError::Exchange(_) => Failure::new(ErrorCode::UpstreamError, "upstream_broke_off"),
        // Only the gateway's own questions are asked about once more; a forwarded request is cut instead.
        SendError::Withheld => Failure::new(ErrorCode::InternalError, "withheld"),
    }
}

/// Where the request's body was the cause, that is what is told.
fn explained(failure: Failure, exchange: &Exchange) -> Failure {
    match exchange.progress.broken.get() {
        Some(Broken::TooLarge) => Failure::new(ErrorCode::PayloadTooLarge, "body_bytes"),
        Some(Broken::Idle) => {
            Failure::new(ErrorCode::BadRequest, "body_timeout").saying("the request body took too long")
        }
        Some(Broken::Cut(why)) => why.failure(),
        Some(Broken::Client) => Failure::new(ErrorCode::BadRequest, words::CLIENT_LEFT),
        Some(Broken::Upstream | Broken::Deadline | Broken::Own) | None => failure,
    }
}

fn answer(
    trail: &Trail,
    response: Response<Incoming>,
    client_upgrade: Option<OnUpgrade>,
    ledger: Box<Ledger>,
    cut: Rc<Cut>,
    total: Option<Instant>,
) -> Response<ResponseBody> {
    let upgrading = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if upgrading {
        return tunnel::begin(trail, response, client_upgrade, ledger, cut, total);
    }
    let (mut parts, body) = response.into_parts();
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    let keeps_cache = trail.route.as_ref().is_some_and(|route| route.settings.keep_cache_control);
    answer_headers::clean(&mut parts.headers, keeps_cache);
    let stream = UpstreamStream::new(body, cut, total, ledger);
    Response::from_parts(parts, ResponseBody::Stream(Box::new(stream)))
}
