//! One request's tries at the endpoints of its cluster (failover).
//!
//! Tried again is only what did not leave the gateway: the connection could not be had, or, where the request is
//! idempotent, a fresh one broke before a byte of it was taken. Each endpoint is tried once, at most [`MAX_ATTEMPTS`] in all,
//! as far as the retry budget goes. Where there is one endpoint there is nothing to choose, to weigh or to count.

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use smallvec::SmallVec;

use super::{
    asker::{Asker, Blame},
    channel::Repeat,
    clock,
    destination::Destination,
    endpoint::{Endpoint, Picked},
    error::{SendError, Unsent},
    pool::{Lease, Pool},
    shared::{MayLeave, SharedLease, SharedPool, Unanswered},
};

/// Most endpoints that one request is tried at.
const MAX_ATTEMPTS: usize = 3;

#[derive(Debug)]
pub struct Attempts<'u> {
    to: Destination<'u>,
    asker: Asker<'u>,
    picked: Option<Picked>,
    /// Boxed: only where an endpoint could not be reached.
    tried: Option<Box<Tried>>,
    /// What became of the present try was taken in.
    judged: bool,
}

/// Endpoints that the request was sent to in vain.
type Tried = SmallVec<[u64; MAX_ATTEMPTS]>;

/// What a service says when what stands behind it fails: no fault of the request's.
fn is_gateway_error(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

impl<'u> Destination<'u> {
    /// One request: its first endpoint is chosen here.
    pub fn attempts(self, asker: Asker<'u>) -> Attempts<'u> {
        Attempts::new(self, asker)
    }
}

impl<'u> Attempts<'u> {
    fn new(to: Destination<'u>, asker: Asker<'u>) -> Self {
        let picked = to.cluster.pick(&[], to.upstream.tally());
        if picked.as_ref().is_some_and(Picked::is_weighed) {
            to.cluster.budget().deposit(clock::now());
        }
        Self { to, asker, picked, tried: None, judged: false }
    }

    /// Sends on a connection of this worker's. `retry`: the request is idempotent. `only_http1`: HTTP/2 cannot carry it.
    #[expect(clippy::manual_async_fn, reason = "the arguments of an `async fn` take their room twice")]
    pub fn send<'a, B>(
        &'a mut self,
        pool: &'a Pool<B>,
        mut request: Box<Request<B>>,
        retry: bool,
        only_http1: bool,
    ) -> impl Future<Output = Result<(Response<Incoming>, Lease<B>), SendError>> + use<'a, 'u, B>
    where
        B: Body<Data = Bytes> + Repeat + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        async move {
            if self.picked.is_none() {
                // Boxed: only before the first look-up of a name.
                Box::pin(self.look_up()).await?;
            }
            loop {
                let endpoint = self.endpoint()?;
                request.headers_mut().insert(header::HOST, endpoint.host().clone());
                let unsent = match pool.send(endpoint, self.to.upstream, request, retry, only_http1).await {
                    Ok(answered) => {
                        self.answered(answered.0.status());
                        return Ok(answered);
                    }
                    Err(unsent) => unsent,
                };
                let Unsent { error, request: whole } = unsent;
                match whole {
                    Some(whole) if self.another(&error) => request = whole,
                    _ => return Err(error),
                }
            }
        }
    }

    /// The same on a connection of the service runtime's. `again`: the request changes nothing.
    pub async fn send_shared(
        &mut self,
        pool: &SharedPool,
        mut request: Request<Full<Bytes>>,
        again: bool,
        may_leave: MayLeave<'_>,
    ) -> Result<(Response<Incoming>, SharedLease), Unanswered> {
        if self.picked.is_none() {
            self.look_up().await.map_err(Unanswered::unsent)?;
        }
        loop {
            let endpoint = self.endpoint().map_err(Unanswered::unsent)?;
            request.headers_mut().insert(header::HOST, endpoint.host().clone());
            let mut unanswered = match pool.send(endpoint, self.to.upstream, request, again, may_leave).await {
                Ok(answered) => {
                    self.answered(answered.0.status());
                    return Ok(answered);
                }
                // Nothing is said of the service.
                Err(unanswered) if matches!(unanswered.error, SendError::Withheld) => return Err(unanswered),
                Err(unanswered) => unanswered,
            };
            match unanswered.request.take() {
                Some(whole) if self.another(&unanswered.error) => request = *whole,
                _ => {
                    self.failed();
                    return Err(unanswered);
                }
            }
        }
    }

    fn endpoint(&self) -> Result<&Endpoint, SendError> {
        self.picked.as_ref().map(Picked::endpoint).ok_or_else(|| self.unresolved())
    }

    fn unresolved(&self) -> SendError {
        let authority = self.to.cluster.origins().first().map(|origin| origin.authority.clone());
        SendError::Unresolved(authority.unwrap_or_default())
    }

    async fn look_up(&mut self) -> Result<(), SendError> {
        let Destination { upstream, cluster } = self.to;
        let looking = cluster.look_up(upstream.resolver(), upstream.tally());
        let in_time = tokio::time::timeout(upstream.settings.connect_timeout, looking).await.is_ok();
        // Where one of several names is not answered in time, the others are known by now.
        self.picked = cluster.pick(&[], upstream.tally());
        if self.picked.is_none() {
            tracing::debug!(upstream = %upstream.name, in_time, "no address is known yet");
            cluster.look_up_soon();
        }
        self.endpoint().map(drop)
    }

    /// Takes in that the service failed, as no request can provoke it: no connection, or an exchange broken off.
    pub fn failed(&mut self) {
        self.judge(Blame::Service);
    }

    /// Takes in that no answer came in time.
    pub fn late(&mut self) {
        self.judge(Blame::Asker(self.asker.mark()));
    }

    fn judge(&mut self, blame: Blame) {
        let Some(picked) = self.picked.as_ref().filter(|picked| picked.is_weighed() && !self.judged) else { return };
        if self.to.cluster.failed(picked.endpoint(), blame, clock::now()) {
            self.to.upstream.tally().ejections.add();
        }
        self.judged = true;
    }

    fn answered(&mut self, status: StatusCode) {
        if is_gateway_error(status) {
            self.judge(Blame::Asker(self.asker.mark()));
        } else if let Some(picked) = self.picked.as_ref().filter(|picked| picked.is_weighed()) {
            picked.endpoint().outlier.succeeded(clock::now);
        }
    }

    /// Goes on to another endpoint after a try of which nothing was sent. False: there is none, or not allowed.
    fn another(&mut self, error: &SendError) -> bool {
        self.failed();
        if error.is_connect() && self.to.cluster.is_named() {
            // The service may have moved.
            self.to.cluster.look_up_soon();
        }
        let tally = self.to.upstream.tally();
        let Some(picked) = self.picked.as_ref().filter(|picked| picked.is_weighed()) else { return false };
        let tried = self.tried.get_or_insert_default();
        tried.push(picked.endpoint().id());
        if tried.len() >= MAX_ATTEMPTS {
            return false;
        }
        let Some(next) = self.to.cluster.pick(tried, tally) else { return false };
        if !self.to.cluster.budget().withdraw(&self.to.upstream.settings.budget, clock::now()) {
            tally.budget_exhausted.add();
            return false;
        }
        tally.retries.add();
        tracing::debug!(upstream = %self.to.upstream.name, to = %next.endpoint().address(), "tried at another endpoint");
        self.picked = Some(next);
        self.judged = false;
        true
    }

    /// The endpoint that answered; to be kept as long as the exchange lasts.
    pub fn into_picked(self) -> Option<Picked> {
        self.picked
    }
}
