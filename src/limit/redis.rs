//! The shared buckets in Redis or Valkey: one number a bucket, counted by one script.

use std::{fmt, net::IpAddr, time::Duration};

use aws_lc_rs::digest;
use redis::{
    Client, RedisError, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

use super::{
    quota::BucketKey,
    settings::SharedSettings,
    shared::{SharedBuckets, Untold},
};

const SCRIPT: &str = include_str!("gcra.lua");
/// A Redis that takes longer is as good as away.
const PATIENCE: Duration = Duration::from_millis(500);
const CONNECT: Duration = Duration::from_secs(1);

/// One server, or what stands for one (a proxy, a virtual address of a primary).
pub struct RedisBuckets {
    connection: ConnectionManager,
    script: Script,
    prefix: String,
}

impl fmt::Debug for RedisBuckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBuckets").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Why the shared buckets cannot be used; never with the address, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    #[error("`limits.redis_url` is none: write `redis://host:6379/0`, or `rediss://` for TLS")]
    Address,
    #[error("Redis: {}", told(.0))]
    Redis(#[from] RedisError),
    #[error("Redis gave another answer than the script's")]
    Answer,
}

/// Kind and code, without what the server may quote of a request.
fn told(error: &RedisError) -> String {
    match error.code() {
        Some(code) => code.to_owned(),
        None => error.category().to_owned(),
    }
}

impl RedisBuckets {
    /// Nothing is connected yet: a server that is away at the start is away as it may be later.
    pub fn new(settings: &SharedSettings) -> Result<Self, SharedError> {
        let url = std::str::from_utf8(settings.url.expose()).map_err(|_| SharedError::Address)?;
        let client = Client::open(url).map_err(|_| SharedError::Address)?;
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(PATIENCE))
            .set_connection_timeout(Some(CONNECT))
            .set_number_of_retries(1);
        let connection = ConnectionManager::new_lazy_with_config(client, config)?;
        Ok(Self { connection, script: Script::new(SCRIPT), prefix: settings.prefix.clone() })
    }

    fn name(&self, key: &BucketKey) -> String {
        let prefix = &self.prefix;
        match key {
            BucketKey::Listing(partner) => format!("{prefix}:listing:{partner}"),
            BucketKey::Detail(partner) => format!("{prefix}:detail:{partner}"),
            BucketKey::Write(partner) => format!("{prefix}:write:{partner}"),
            BucketKey::Export(partner) => format!("{prefix}:export:{partner}"),
            BucketKey::Tenant(partner, tenant) => format!("{prefix}:tenant:{partner}:{tenant}"),
            BucketKey::Refusal(partner) => format!("{prefix}:refusal:{partner}"),
            BucketKey::Address(IpAddr::V4(ip)) => format!("{prefix}:address:{ip}"),
            BucketKey::Address(IpAddr::V6(ip)) => format!("{prefix}:address:{ip}"),
            BucketKey::Home(issuer, sub) => format!("{prefix}:home:{}", user(issuer, sub)),
            BucketKey::TenantAdmin(issuer, sub) => format!("{prefix}:tenant-admin:{}", user(issuer, sub)),
        }
    }
}

/// Issuers and subjects are of any length, and nobody else's to read.
fn user(issuer: &str, sub: &str) -> String {
    let length = u64::try_from(issuer.len()).unwrap_or(u64::MAX).to_be_bytes();
    let whole = [&length, issuer.as_bytes(), sub.as_bytes()].concat();
    let hash = digest::digest(&digest::SHA256, &whole);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl SharedBuckets for RedisBuckets {
    type Error = SharedError;

    async fn count(&self, untold: &[Untold]) -> Result<Vec<Duration>, SharedError> {
        let mut connection = self.connection.clone();
        if untold.is_empty() {
            redis::cmd("PING").query_async::<()>(&mut connection).await?;
            return Ok(Vec::new());
        }
        let mut call = self.script.prepare_invoke();
        for one in untold {
            let period = f64::from(one.quota.per_seconds.max(1)) * 1e6;
            let interval = period / f64::from(one.quota.requests.max(1));
            call.key(self.name(&one.key)).arg(interval).arg(period).arg(one.requests);
        }
        let answers: Vec<f64> = call.invoke_async(&mut connection).await?;
        if answers.len() != untold.len() || answers.iter().any(|ahead| !ahead.is_finite() || *ahead < 0.0) {
            return Err(SharedError::Answer);
        }
        Ok(answers.into_iter().map(|ahead| Duration::from_secs_f64(ahead / 1e6)).collect())
    }
}
