//! Posts to a collector of OpenTelemetry: OTLP over HTTP, protobuf. What is posted, and what an answer means, is the caller's.

pub mod settings;

use std::{error::Error as _, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{DefaultServerNameResolver, FixedServerNameResolver, HttpsConnector, ResolveServerName};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
};
use rustls::{ClientConfig, pki_types::ServerName};

use self::settings::CollectorSettings;

/// A collector has little to say.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Why a post was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    #[error("the collector does not answer within its `timeout`")]
    Timeout,
    #[error("the collector cannot be reached or broke off: {0}")]
    Exchange(String),
    #[error("the collector answered with status {0}")]
    Status(StatusCode),
}

/// The way to one collector. To be used on the runtime on which it was used first.
pub struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    settings: CollectorSettings,
}

/// TLS to a collector, and the name that its certificate must have where that is not the host of its address.
pub type Secure = (Arc<ClientConfig>, Option<ServerName<'static>>);

impl Collector {
    /// Without `secure` an address in clear only.
    pub fn new(settings: CollectorSettings, secure: Option<Secure>) -> Result<Self, rustls::Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(settings.timeout));
        let only_secure = secure.is_some();
        let (config, name) = match secure {
            Some(secure) => secure,
            None => (nobody()?, None),
        };
        let name: Arc<dyn ResolveServerName + Send + Sync> = match name {
            Some(name) => Arc::new(FixedServerNameResolver::new(name)),
            None => Arc::new(DefaultServerNameResolver::default()),
        };
        let connector = HttpsConnector::new(tcp, config, only_secure, name);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector);
        Ok(Self { client, settings })
    }

    /// The body of a good answer, within the collector's time.
    pub async fn post(&self, body: Vec<u8>) -> Result<Bytes, NotTaken> {
        tokio::time::timeout(self.settings.timeout, self.exchange(body)).await.unwrap_or(Err(NotTaken::Timeout))
    }

    async fn exchange(&self, body: Vec<u8>) -> Result<Bytes, NotTaken> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.settings.endpoint.clone();
        *request.headers_mut() = self.settings.headers.clone();
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let agent = HeaderValue::from_static(concat!("linkgate/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        let answer = self.client.request(request).await.map_err(|error| {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            NotTaken::Exchange(format!("{error}{cause}"))
        })?;
        if !answer.status().is_success() {
            return Err(NotTaken::Status(answer.status()));
        }
        let told = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        Ok(told.map_err(|error| NotTaken::Exchange(error.to_string()))?.to_bytes())
    }
}

/// Believes no certificate.
fn nobody() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()))
}

/// Who posts; `more` beside the names of the program.
pub fn resource(more: Option<KeyValue>) -> Resource {
    let own = [named("service.name", text("linkgate")), named("service.version", text(env!("CARGO_PKG_VERSION")))];
    Resource { attributes: own.into_iter().chain(more).collect(), ..Resource::default() }
}

pub fn scope(name: &str) -> InstrumentationScope {
    InstrumentationScope { name: name.to_owned(), ..InstrumentationScope::default() }
}

pub fn text(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

pub fn named(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
