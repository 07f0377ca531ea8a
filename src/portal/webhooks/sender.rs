//! One try of one delivery: a POST to an address that was judged (`connect`), without redirects, and nothing read but the
//! status.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rustls_platform_verifier::BuilderVerifierExt;

use super::{
    connect::{CheckedConnector, Resolve},
    endpoint::Endpoint,
    signature,
};
use crate::config::settings::WebhookSettings;

/// Longest wait that a receiver can ask for.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(86_400);

/// What is posted.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// The same for every try of an event.
    pub id: &'a str,
    /// Seconds since the epoch, now.
    pub timestamp_s: i64,
    pub body: Bytes,
    /// Each signs; the newest first.
    pub secrets: Vec<&'a str>,
}

/// What the receiver said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    /// It asks not to be tried before.
    pub retry_after: Option<Duration>,
}

/// Why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("no answer in time")]
    Timeout,
    /// Free of secrets; may name addresses.
    #[error("{0}")]
    Connect(String),
    #[error("the delivery cannot be signed: {0}")]
    Signature(#[from] signature::InvalidSecret),
    #[error("TLS cannot be used here: {0}")]
    Tls(String),
}

/// Sends deliveries; cheap to clone.
#[derive(Clone)]
pub struct Sender {
    client: Result<Client<HttpsConnector<CheckedConnector>, Full<Bytes>>, SendError>,
    timeout: Duration,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl Sender {
    /// By the names and certificates of this system.
    pub fn new(settings: &WebhookSettings) -> Self {
        let resolve: Resolve = Arc::new(|host, port| {
            async move { Ok(tokio::net::lookup_host((host.as_str(), port)).await?.collect()) }.boxed()
        });
        Self::with(settings, tls(), resolve)
    }

    pub(super) fn with(
        settings: &WebhookSettings,
        tls: Result<rustls::ClientConfig, rustls::Error>,
        resolve: Resolve,
    ) -> Self {
        let client = tls.map_err(|error| SendError::Tls(error.to_string())).map(|tls| {
            let checked = CheckedConnector { resolve, allow_private: settings.allow_private };
            // Which schemes are taken is the endpoint's to say.
            let connector = HttpsConnectorBuilder::new()
                .with_tls_config(tls)
                .https_or_http()
                .enable_http1()
                .wrap_connector(checked);
            // No connection is kept: the next one is made to an address that is judged anew.
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector)
        });
        Self { client, timeout: settings.timeout }
    }

    /// Posts once. Whatever the receiver answers, a redirect included, is its answer.
    pub async fn send(&self, endpoint: &Endpoint, message: Message<'_>) -> Result<Answer, SendError> {
        let client = self.client.as_ref().map_err(Clone::clone)?;
        let signatures = message
            .secrets
            .iter()
            .map(|secret| signature::sign(secret, message.id, message.timestamp_s, &message.body))
            .collect::<Result<Vec<_>, _>>()?;
        let request = Request::post(endpoint.uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("linkgate/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", message.id)
            .header("webhook-timestamp", message.timestamp_s)
            .header("webhook-signature", signatures.join(" "))
            .body(Full::new(message.body))
            .map_err(|error| SendError::Connect(error.to_string()))?;
        let response = tokio::time::timeout(self.timeout, client.request(request)).await;
        let response = response.map_err(|_| SendError::Timeout)?.map_err(|error| SendError::Connect(causes(&error)))?;
        let seconds = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = seconds.map(|seconds| Duration::from_secs(seconds).min(MOST_RETRY_AFTER));
        // The body is not read: dropping it closes the connection.
        Ok(Answer { status: response.status(), retry_after })
    }
}

fn tls() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_platform_verifier()?.with_no_client_auth())
}

/// The innermost causes are the useful ones, and hyper hides them.
fn causes(error: &hyper_util::client::legacy::Error) -> String {
    let mut next = std::error::Error::source(error);
    let mut text = String::new();
    while let Some(cause) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::{IpAddr, SocketAddr};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    pub(in super::super) fn settings(allow_http: bool, allow_private: bool) -> WebhookSettings {
        WebhookSettings {
            enabled: true,
            timeout: Duration::from_millis(500),
            attempts: 3,
            first_retry: Duration::from_millis(10),
            concurrency: 4,
            concurrency_per_subscription: 2,
            allow_http,
            allow_private,
            expiry_notice_days: vec![1, 14],
            keep_delivered: Duration::from_secs(3_600),
            keep_dead: Duration::from_secs(3_600),
            secret_keys: Vec::new(),
        }
    }

    /// A resolver that knows one answer.
    fn always(addresses: &[&str]) -> Resolve {
        let ips: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(move |_, port| {
            let found = ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
            async move { Ok(found) }.boxed()
        })
    }

    async fn post(settings: &WebhookSettings, resolve: Resolve, url: &str) -> Result<Answer, SendError> {
        let sender = Sender::with(settings, tls(), resolve);
        let endpoint = Endpoint::parse(url, settings).unwrap();
        let secrets = vec!["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AAAA"];
        sender.send(&endpoint, Message { id: "id-1", timestamp_s: 7, body: "{}".into(), secrets }).await
    }

    /// Answers one request with these bytes, and gives what was asked.
    async fn receiver(answer: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"{}") {
                let mut buffer = [0; 4096];
                let read = stream.read(&mut buffer).await.unwrap();
                assert!(read > 0, "broke off");
                seen.extend_from_slice(&buffer[..read]);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(seen).unwrap()
        });
        (port, task)
    }

    #[tokio::test]
    async fn the_connection_is_made_to_the_address_that_was_judged() {
        let (port, asked) = receiver("HTTP/1.1 204 No Content\r\nretry-after: 9\r\n\r\n").await;
        let url = format!("http://hooks.test:{port}/in?a=b");
        let answer = post(&settings(true, true), always(&["127.0.0.1"]), &url).await.unwrap();
        assert_eq!(answer, Answer { status: StatusCode::NO_CONTENT, retry_after: Some(Duration::from_secs(9)) });
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("POST /in?a=b HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains(&format!("host: hooks.test:{port}\r\n")), "{asked}");
        let signature = asked.lines().find(|line| line.starts_with("webhook-signature: ")).unwrap();
        assert_eq!(signature.matches("v1,").count(), 2, "one for each secret: {signature}");
    }

    #[tokio::test]
    async fn a_name_that_leads_to_a_forbidden_address_is_refused() {
        for (addresses, private) in [
            (&["127.0.0.1"][..], false),
            (&["::ffff:10.0.0.1"], false),
            (&["93.184.215.14", "10.0.0.1"], false),
            (&["169.254.169.254"], true),
            (&["64:ff9b::7f00:1"], true),
        ] {
            let answer = post(&settings(true, private), always(addresses), "https://hooks.test/in").await;
            let Err(SendError::Connect(why)) = answer else { panic!("{addresses:?} gave {answer:?}") };
            assert!(why.contains("nothing is sent there"), "{why}");
        }
    }

    #[tokio::test]
    async fn addresses_in_a_url_are_judged_like_any_other() {
        // `lookup_host` reads these as addresses, some in forms that a text comparison would miss.
        for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0", "127.1", "2130706433", "0x7f.0.0.1", "localhost"]
        {
            let settings = settings(true, false);
            let sender = Sender::new(&settings);
            let endpoint = Endpoint::parse(&format!("http://{host}/in"), &settings).unwrap();
            let message = Message { id: "id", timestamp_s: 7, body: "{}".into(), secrets: Vec::new() };
            let answer = sender.send(&endpoint, message).await;
            let Err(SendError::Connect(why)) = answer else { panic!("{host} gave {answer:?}") };
            assert!(why.contains("nothing is sent there") || why.contains("cannot be resolved"), "{host}: {why}");
        }
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_is_not_followed() {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let location = target.local_addr().unwrap();
        let text: &'static str =
            format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{location}/\r\ncontent-length: 0\r\n\r\n")
                .leak();
        let (port, asked) = receiver(text).await;
        let url = format!("http://hooks.test:{port}/");
        let answer = post(&settings(true, true), always(&["127.0.0.1"]), &url).await.unwrap();
        assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
        asked.await.unwrap();
        let followed = tokio::time::timeout(Duration::from_millis(200), target.accept()).await;
        assert!(followed.is_err(), "the redirect was followed");
    }

    #[tokio::test]
    async fn a_silent_receiver_and_a_wrong_certificate_are_failures() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let url = format!("http://hooks.test:{port}/");
        let answer = post(&settings(true, true), always(&["127.0.0.1"]), &url).await;
        assert_eq!(answer, Err(SendError::Timeout));
        let (port, plain) = receiver("HTTP/1.1 200 OK\r\n\r\n").await;
        let answer = post(&settings(true, true), always(&["127.0.0.1"]), &format!("https://hooks.test:{port}/")).await;
        assert!(answer.is_err(), "plain text was taken for TLS: {answer:?}");
        plain.abort();
    }

    /// Answers every handshake that succeeds, by the certificate for `localhost`; counts them.
    fn https() -> (u16, Arc<std::sync::atomic::AtomicUsize>) {
        use std::io::{Read, Write};

        use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
        let pem = |name: &str| {
            std::fs::read(format!("{}/tests/identity_suite/tls/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
        };
        let certificate = CertificateDer::from_pem_slice(&pem("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_slice(&pem("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = Arc::clone(&served);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut tls = rustls::StreamOwned::new(connection, stream.unwrap());
                if tls.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {
                    counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    let _ = tls.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n");
                }
            }
        });
        (port, served)
    }

    #[tokio::test]
    async fn the_certificate_is_held_against_the_name_whatever_the_address() {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let mut roots = rustls::RootCertStore::empty();
        let ca = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/identity_suite/tls/ca.pem")).unwrap();
        roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let trusting = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (port, served) = https();
        let settings = settings(false, true);
        for (name, expected) in [("localhost", true), ("hooks.test", false)] {
            let sender = Sender::with(&settings, Ok(trusting.clone()), always(&["127.0.0.1"]));
            let endpoint = Endpoint::parse(&format!("https://{name}:{port}/in"), &settings).unwrap();
            let message = Message { id: "id", timestamp_s: 7, body: "{}".into(), secrets: Vec::new() };
            let answer = sender.send(&endpoint, message).await;
            assert_eq!(answer.is_ok(), expected, "{name}: {answer:?}");
        }
        // Trusted by nobody else.
        let answer = post(&settings, always(&["127.0.0.1"]), &format!("https://localhost:{port}/")).await;
        assert!(answer.is_err(), "{answer:?}");
        assert_eq!(served.load(std::sync::atomic::Ordering::SeqCst), 1);
    }
}
