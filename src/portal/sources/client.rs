//! One question and its answer over HTTP: no redirect is followed, and nothing is read without a bound.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use tokio::time::Instant;

use super::{Site, SourceError, credential::Credentials, table::Route};
use crate::{
    connector::request::Outgoing,
    domain::SpanId,
    identity::Keyring,
    policy::Policies,
    spans::{ClientSpan, Spans},
    upstream::{Asker, Attempts, SendError, SharedPool, Unanswered, Upstream},
};

#[derive(Debug)]
pub(super) struct Client {
    pool: SharedPool,
    credentials: Credentials,
    spans: Option<Arc<Spans>>,
}

/// An answer with its whole body, whatever its status.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    /// `Content-Type` says JSON.
    is_json: bool,
}

/// Why there is none.
pub(super) struct Unsaid {
    pub(super) error: SourceError,
    /// The service may have received the question.
    pub(super) maybe_received: bool,
}

impl Unsaid {
    fn unsent(error: SourceError) -> Self {
        Self { error, maybe_received: false }
    }
}

impl Client {
    pub(super) fn new(keyring: Option<&Arc<Keyring>>, policies: &Arc<Policies>, spans: Option<&Arc<Spans>>) -> Self {
        let credentials = Credentials::new(keyring, policies);
        Self { pool: SharedPool::default(), credentials, spans: spans.map(Arc::clone) }
    }

    /// Asks and takes the body of a 200.
    pub(super) async fn get(
        &self,
        site: &Site,
        route: &Route,
        upstream: &Arc<Upstream>,
        outgoing: &Outgoing,
        until: Instant,
    ) -> Result<Bytes, SourceError> {
        let answer = self.exchange(site, route, upstream, outgoing, until).await.map_err(|unsaid| unsaid.error)?;
        answer.good(site, route)
    }

    /// Sends one request and reads what comes, at the longest until the deadline.
    pub(super) async fn exchange(
        &self,
        site: &Site,
        route: &Route,
        upstream: &Arc<Upstream>,
        outgoing: &Outgoing,
        until: Instant,
    ) -> Result<Answer, Unsaid> {
        if until <= Instant::now() {
            return Err(Unsaid::unsent(SourceError::Timeout));
        }
        let tenant = site.tenant();
        let to = upstream.destination(Some(tenant)).ok_or_else(|| {
            Unsaid::unsent(SourceError::Unavailable(format!("upstream `{}` has no address for it", upstream.name)))
        })?;
        // What the gateway asks by itself, it asks for the tenant alone.
        let organisation = site.trace().partner_tenant.as_ref().or(Some(tenant));
        let asker = Asker { tenant: Some(tenant), organisation };
        let came = Instant::now();
        // A place first: an endpoint that is chosen counts as busy.
        let _place = match to.enter(asker) {
            Some(place) => place,
            None => to.queue(asker, Some(until)).await.map_err(|_| Unsaid::unsent(crowded(upstream)))?,
        };
        let started = Instant::now();
        let attempts = to.attempts(asker);
        let span = self.spans.as_ref().and_then(|spans| spans.question(site.trace(), &upstream.name, &outgoing.method));
        // Where none is recorded here, the caller's own; else one that nobody has.
        let above = || site.trace().sampling.parent().unwrap_or_else(SpanId::generate);
        let id = span.as_ref().map_or_else(above, ClientSpan::id);
        let asked = async {
            let request = self.request(site, route, upstream, outgoing, id);
            self.ask(site, route, upstream, attempts, request.map_err(Unsaid::unsent)?, until).await
        };
        let answer = asked.await.map_err(|unsaid| {
            // Time that was spent on waiting for a place is no failure of the service.
            let waited = unsaid.error == SourceError::Timeout && started - came > started.elapsed();
            if waited && outgoing.method == Method::GET {
                return Unsaid { error: crowded(upstream), ..unsaid };
            }
            unsaid
        });
        if let Some(span) = span {
            match &answer {
                Ok(answer) => span.answered(answer.status),
                Err(unsaid) => span.failed(unsaid.error.word()),
            }
        }
        answer
    }

    async fn ask(
        &self,
        site: &Site,
        route: &Route,
        upstream: &Arc<Upstream>,
        mut attempts: Attempts<'_>,
        request: Request<Full<Bytes>>,
        until: Instant,
    ) -> Result<Answer, Unsaid> {
        let repeatable = *request.method() == Method::GET;
        let head_by = until.min(Instant::now() + upstream.settings.response_timeout);
        let barred = Mutex::new(None);
        let may_leave = || {
            let barred = &barred;
            let asked = async move { site.still_open().await.map_err(|why| note(barred, why)).is_ok() };
            asked.boxed()
        };
        let sent = attempts.send_shared(&self.pool, request, repeatable, &may_leave);
        let Ok(sent) = tokio::time::timeout_at(head_by, sent).await else {
            // The caller's own deadline says nothing of the service.
            if head_by < until {
                attempts.late();
            }
            // How far it came is not known when time runs out.
            return Err(Unsaid { error: SourceError::Timeout, maybe_received: true });
        };
        let (response, lease) = sent.map_err(|unanswered| {
            let barred = barred.lock().unwrap_or_else(PoisonError::into_inner).take();
            barred.map_or_else(|| unsent(upstream, &unanswered), Unsaid::unsent)
        })?;
        let received = |error| Unsaid { error, maybe_received: true };
        let whole = read(response, route, site);
        let answer = tokio::time::timeout_at(until, whole).await.map_err(|_| received(SourceError::Timeout))?;
        let answer = answer.map_err(received)?;
        lease.give_back();
        Ok(answer)
    }

    fn request(
        &self,
        site: &Site,
        route: &Route,
        upstream: &Upstream,
        outgoing: &Outgoing,
        span: SpanId,
    ) -> Result<Request<Full<Bytes>>, SourceError> {
        let unfit = || route.wrong(site.tenant(), "the question cannot be written as a request");
        let mut headers = self.credentials.headers(site, route, upstream, outgoing, span)?;
        if outgoing.body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let request = Request::builder().method(&outgoing.method).uri(outgoing.target());
        let mut request = request.body(Full::new(outgoing.body.clone().unwrap_or_default())).map_err(|_| unfit())?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

fn note(barred: &Mutex<Option<SourceError>>, why: SourceError) {
    barred.lock().unwrap_or_else(PoisonError::into_inner).replace(why);
}

fn crowded(upstream: &Upstream) -> SourceError {
    SourceError::Unasked(format!("too many requests to `{}` are under way", upstream.name))
}

fn unsent(upstream: &Upstream, unanswered: &Unanswered) -> Unsaid {
    tracing::debug!(upstream = %upstream.name, error = ?unanswered, "a service did not answer");
    let words = match &unanswered.error {
        SendError::Connect { .. } => format!("`{}` cannot be reached", upstream.name),
        SendError::Unresolved(_) => format!("the host name of `{}` cannot be looked up", upstream.name),
        SendError::ConnectTimeout(_) => format!("`{}` takes no connection in time", upstream.name),
        SendError::Exchange(_) => format!("`{}` broke the connection off", upstream.name),
        SendError::Withheld => format!("`{}` was not asked any more", upstream.name),
    };
    Unsaid { error: SourceError::Unavailable(words), maybe_received: unanswered.maybe_received }
}

/// The whole body, up to the bound.
async fn read(response: Response<Incoming>, route: &Route, site: &Site) -> Result<Answer, SourceError> {
    let most = route.connector.max_answer_bytes;
    let too_long = || route.wrong(site.tenant(), format_args!("the answer is longer than {most} bytes"));
    let (parts, mut body) = response.into_parts();
    let told = body.size_hint().lower();
    if usize::try_from(told).is_ok_and(|told| told > most) {
        return Err(too_long());
    }
    let mut bytes = BytesMut::with_capacity(usize::try_from(told).unwrap_or(0).min(most));
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|_| SourceError::Unavailable(format!("`{}` broke the answer off", route.upstream.name)))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > most {
            return Err(too_long());
        }
        bytes.extend_from_slice(&data);
    }
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence =
        content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = essence == "application/json" || essence.ends_with("+json");
    let plain = !parts.headers.contains_key(header::CONTENT_ENCODING);
    Ok(Answer { status: parts.status, body: bytes.freeze(), is_json: is_json && plain })
}

impl Answer {
    /// Whether the status judges the question, and so proves that the service is there. The others of its class speak
    /// of the service, of the way to it or of our standing with it: who we are (401, 407), what we may (403), what is
    /// paid for (402), a question that came too slowly (408), to the wrong place (421), too early (425) or as one of too
    /// many (429). None of them gets better by another question.
    pub(super) fn judges_the_question(&self) -> bool {
        let of_us = matches!(self.status.as_u16(), 401..=403 | 407 | 408 | 421 | 425 | 429);
        self.status.is_client_error() && !of_us
    }

    /// The body of a success in JSON; every other answer is none.
    pub(super) fn good(self, site: &Site, route: &Route) -> Result<Bytes, SourceError> {
        let wrong = |problem: String| route.wrong(site.tenant(), problem);
        if self.status.is_redirection() {
            return Err(wrong(format!("redirected with status {}, which is never followed", self.status.as_u16())));
        }
        if self.judges_the_question() {
            return Err(route.refused(site.tenant(), self.status));
        }
        if !matches!(self.status, StatusCode::OK | StatusCode::CREATED) {
            return Err(wrong(format!("status {}", self.status.as_u16())));
        }
        if !self.is_json {
            return Err(wrong("the answer is no JSON".to_owned()));
        }
        Ok(self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judges(status: u16) -> bool {
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, body: Bytes::new(), is_json: true }.judges_the_question()
    }

    #[test]
    fn only_what_speaks_of_the_question_judges_it() {
        for status in [400, 404, 405, 406, 409, 410, 413, 414, 415, 416, 422, 431] {
            assert!(judges(status), "{status}");
        }
        for status in [200, 204, 301, 307, 401, 402, 403, 407, 408, 421, 425, 429, 500, 502, 503, 504] {
            assert!(!judges(status), "{status}");
        }
    }
}
