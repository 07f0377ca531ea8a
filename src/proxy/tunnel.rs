//! WebSockets: after both sides agreed, bytes go both ways until one side ends or the link does.

use std::{cell::Cell, future::poll_fn, rc::Rc};

use http::{HeaderValue, Response, header};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    time::Instant,
};

use super::{
    account::Ledger,
    answer_headers,
    body::{Cut, Ending, Finish, ResponseBody, TOTAL_TIMEOUT},
    headers::{self, Single},
    respond::{self, Failure},
    trail::Trail,
};
use crate::domain::{ErrorCode, TenantId};

/// One read in either direction, in bytes.
const PIECE_BYTES: usize = 16 * 1024;

/// How long the client may take to be ready after the upstream agreed.
const AGREEMENT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Answers 101 and lets the tunnel run by itself.
pub fn begin(
    trail: &Trail,
    mut response: Response<Incoming>,
    client: Option<OnUpgrade>,
    ledger: Box<Ledger>,
    cut: Rc<Cut>,
    total: Option<Instant>,
) -> Response<ResponseBody> {
    let agreed = matches!(headers::single(response.headers(), header::UPGRADE), Single::One(word) if word.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let Some(client) = client.filter(|_| agreed) else {
        let failure = Failure::new(ErrorCode::UpstreamError, "unasked_upgrade");
        ledger.fail(&failure);
        let named = trail.managed_tenant.as_ref().filter(|_| trail.cross).map(TenantId::as_str);
        return respond::failure(&failure, &trail.request_id, named, trail.compatible);
    };
    let upstream = hyper::upgrade::on(&mut response);
    let (mut parts, _) = response.into_parts();
    parts.extensions.clear();
    answer_headers::clean(&mut parts.headers, true);
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    parts.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let connection = Rc::clone(&trail.peer.switch);
    tokio::task::spawn_local(async move {
        run(client, upstream, ledger, cut, total).await;
        // Until here the connection is an open one, though its server has handed it over.
        drop(connection);
    });
    Response::from_parts(parts, ResponseBody::Empty)
}

async fn run(client: OnUpgrade, upstream: OnUpgrade, ledger: Box<Ledger>, cut: Rc<Cut>, total: Option<Instant>) {
    let agreed = tokio::time::timeout(AGREEMENT_TIMEOUT, async { tokio::try_join!(client, upstream) }).await;
    let sent = Cell::new(0u64);
    let aborted = match agreed {
        Ok(Ok((client, upstream))) => relay(client, upstream, &sent, &cut, total).await,
        Ok(Err(_)) | Err(_) => Some("upgrade_failed"),
    };
    Box::new(ledger).finish(Ending { bytes: sent.get(), aborted });
}

/// Until one side ends (`None`), or the word for what ended it.
async fn relay(
    client: Upgraded,
    upstream: Upgraded,
    sent: &Cell<u64>,
    cut: &Cut,
    total: Option<Instant>,
) -> Option<&'static str> {
    let (from_client, to_client) = tokio::io::split(TokioIo::new(client));
    let (from_upstream, to_upstream) = tokio::io::split(TokioIo::new(upstream));
    let ignored = Cell::new(0u64);
    let up = pump(from_client, to_upstream, &ignored);
    let down = pump(from_upstream, to_client, sent);
    let over = async {
        match total {
            Some(total) => tokio::time::sleep_until(total).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        why = poll_fn(|cx| cut.poll_cut(cx)) => Some(why.as_str()),
        () = over => Some(TOTAL_TIMEOUT),
        ended = async { tokio::try_join!(up, down) } => match ended {
            Ok(_) => None,
            Err(_) => Some("connection_broke"),
        },
    }
}

/// Copies until the end of the stream and passes the end on.
async fn pump(
    mut from: ReadHalf<TokioIo<Upgraded>>,
    mut to: WriteHalf<TokioIo<Upgraded>>,
    count: &Cell<u64>,
) -> std::io::Result<()> {
    let mut space = vec![0u8; PIECE_BYTES];
    loop {
        let length = from.read(&mut space).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(space.get(..length).unwrap_or_default()).await?;
        count.set(count.get() + length as u64);
    }
}
