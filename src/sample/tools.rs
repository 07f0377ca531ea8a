//! Endpoints that no real service has, for tests and for a look at what the gateway sends: at the root of both services
//! and below their mount point.
//!
//! | path | what |
//! | --- | --- |
//! | `/echo`, `/echo/…` | any method: what arrived, as JSON (headers in order, repeated ones too; body length; trailers) |
//! | `/status/{code}` | that status, with a small JSON body |
//! | `/slow?ms=N` | answers after N milliseconds |
//! | `/events?count=N&ms=M` | server-sent events, one every M milliseconds |
//! | `/ws` | WebSocket echo |
//! | `/stream/download?bytes=N` | N bytes; `chunked=1` without a length; `trailer=1` with a trailer; `ms=M` waits after each 64 KiB |
//! | `/stream/upload` | reads all, answers how many bytes came and which trailers |
//! | `/stream/cut?bytes=N` | promises more than N bytes, sends N and breaks off |

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as _, Frame};
use serde_json::{Value, json};

use super::{
    reply::{Body, Call, json_reply, ok},
    websocket,
};

/// Piece size of downloads.
const CHUNK: usize = 64 << 10;
static ZEROES: [u8; CHUNK] = [b'.'; CHUNK];

/// Answers if the path is one of these; gives the call back otherwise.
pub(super) async fn answer(call: Call) -> Result<Response<Body>, Call> {
    let path = call.path().to_owned();
    Ok(match path.as_str() {
        "/echo" => echo(call).await,
        _ if path.starts_with("/echo/") => echo(call).await,
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(parameter(&call, "ms", 1_000))).await;
            ok(&json!({"slow": true}))
        }
        "/events" => events(parameter(&call, "count", 10), parameter(&call, "ms", 100)),
        "/ws" => websocket::upgrade(call.request),
        "/stream/download" => download(&call),
        "/stream/upload" => upload(call).await,
        "/stream/cut" => cut(parameter(&call, "bytes", 1_000)),
        _ => match path.strip_prefix("/status/").and_then(|code| code.parse().ok()) {
            Some(status) => json_reply(status, &json!({"status": status.as_u16()})),
            None => return Err(call),
        },
    })
}

fn parameter(call: &Call, name: &str, default: u64) -> u64 {
    call.query(name).and_then(|text| text.parse().ok()).unwrap_or(default)
}

async fn echo(call: Call) -> Response<Body> {
    let (parts, mut body) = call.request.into_parts();
    let mut bytes = 0_u64;
    let mut trailers = Value::Array(Vec::new());
    let mut complete = true;
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => bytes += data.len() as u64,
            Ok(Err(frame)) => {
                if let Ok(found) = frame.into_trailers() {
                    trailers = pairs(&found);
                }
            }
            Err(_) => {
                complete = false;
                break;
            }
        }
    }
    ok(&json!({
        "method": parts.method.as_str(), "path": parts.uri.path(), "query": parts.uri.query(),
        "version": format!("{:?}", parts.version), "headers": pairs(&parts.headers), "body_bytes": bytes,
        "body_complete": complete, "trailers": trailers,
    }))
}

/// In the order of arrival by name, repeated ones included; bytes that are no UTF-8 are shown with replacement marks.
fn pairs(headers: &HeaderMap) -> Value {
    headers.iter().map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])).collect()
}

fn events(count: u64, ms: u64) -> Response<Body> {
    let frames = stream::unfold(0_u64, move |number| async move {
        if number == count {
            return None;
        }
        if number > 0 {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        let text = format!("id: {number}\ndata: {{\"number\": {number}}}\n\n");
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(text))), number + 1))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn download(call: &Call) -> Response<Body> {
    let total = parameter(call, "bytes", 1 << 20);
    let wait = parameter(call, "ms", 0);
    let has_trailer = call.query("trailer").is_some();
    let frames = stream::unfold(Some(total), move |left| async move {
        let left = left?;
        if left == 0 {
            let trailers = HeaderMap::from_iter([(HeaderName::from_static("x-sample-trailer"), total.into())]);
            return has_trailer.then(|| (Ok::<_, Infallible>(Frame::trailers(trailers)), None));
        }
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        let size = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        let piece = Bytes::from_static(ZEROES.get(..size).unwrap_or_default());
        Some((Ok(Frame::data(piece)), Some(left - size as u64)))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if has_trailer {
        headers.insert(header::TRAILER, HeaderValue::from_static("x-sample-trailer"));
    } else if call.query("chunked").is_none() {
        headers.insert(header::CONTENT_LENGTH, total.into());
    }
    response
}

/// Fewer bytes than the length says: the server closes the connection in the middle.
fn cut(bytes: u64) -> Response<Body> {
    let size = usize::try_from(bytes).map_or(CHUNK, |bytes| bytes.min(CHUNK));
    let piece = Bytes::from_static(ZEROES.get(..size).unwrap_or_default());
    let frames = stream::unfold(Some(piece), |piece| async move {
        let Some(piece) = piece else {
            // Time for the first part to be sent; else there would be no response at all.
            tokio::time::sleep(Duration::from_millis(20)).await;
            return None;
        };
        Some((Ok::<_, Infallible>(Frame::data(piece)), None))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_LENGTH, (size as u64 + 1).into());
    response
}

async fn upload(call: Call) -> Response<Body> {
    let mut body = call.request.into_body();
    let mut bytes = 0_u64;
    let mut trailers = Value::Array(Vec::new());
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => bytes += data.len() as u64,
            Ok(Err(frame)) => {
                if let Ok(found) = frame.into_trailers() {
                    trailers = pairs(&found);
                }
            }
            Err(_) => return json_reply(StatusCode::BAD_REQUEST, &json!({"bytes": bytes, "complete": false})),
        }
    }
    ok(&json!({"bytes": bytes, "complete": body.is_end_stream(), "trailers": trailers}))
}
