//! The sections that need little beyond parsing: listeners, database, links, policy, limits, headers, log.

use std::{collections::BTreeMap, collections::HashMap, hash::Hash, net::SocketAddr, str::FromStr, time::Duration};

use ipnet::IpNet;

use super::{DAY, FieldPath, Resolver, millis, seconds, secrets::SecretWays};
use crate::{
    config::{
        raw::form::word,
        raw::identity::RawIssuer,
        raw::links::{RawDatabase, RawLinks},
        raw::listen::{RawHeaders, RawHealth, RawListen},
        raw::log::{RawLog, RawLogFormat},
        raw::policy::{RawLimits, RawPolicy},
        scalar::QuotaText,
        settings::{DatabaseSettings, HeaderSettings, LinkSettings, ListenSettings, LogSettings},
    },
    domain::ApprovalRules,
    limit::settings::{LimitSettings, Quota, SharedSettings},
    policy::settings::PolicySettings,
};

/// Headers that carry the message itself; stripping them would break every request.
const FRAMING: [&str; 5] = ["host", "content-length", "transfer-encoding", "connection", "authorization"];

pub(super) fn section(name: &str) -> FieldPath {
    FieldPath::default().key(name)
}

impl Resolver<'_> {
    pub(super) fn listen(&mut self, raw: &RawListen, issuers: &BTreeMap<String, RawIssuer>) -> ListenSettings {
        let at = section("listen");
        let head = self.size(&at.key("max_header_size"), &raw.max_header_size, 1 << 10..=1 << 20);
        let uri = self.size(&at.key("max_uri_size"), &raw.max_uri_size, 256..=1 << 16);
        if uri > head {
            self.fail(&at.key("max_uri_size"), "is larger than `max_header_size`, which it is a part of");
        }
        if raw.max_header_count == 0 {
            self.fail(&at.key("max_header_count"), "must be at least 1");
        }
        let streams = self.at_least_one(&at.key("max_concurrent_streams"), raw.max_concurrent_streams);
        ListenSettings {
            address: self.address(&at.key("address"), &raw.address),
            workers: usize::from(raw.workers),
            max_connections: self.at_least_one(&at.key("max_connections"), raw.max_connections),
            max_header_count: usize::from(raw.max_header_count),
            max_header_bytes: usize::try_from(head).unwrap_or(usize::MAX),
            max_uri_bytes: usize::try_from(uri).unwrap_or(usize::MAX),
            header_timeout: self.duration(&at.key("header_timeout"), &raw.header_timeout, millis(100)..=DAY),
            body_idle_timeout: self.duration(&at.key("body_idle_timeout"), &raw.body_idle_timeout, millis(100)..=DAY),
            max_concurrent_streams: u32::try_from(streams).unwrap_or(u32::MAX),
            drain_timeout: self.duration(&at.key("drain_timeout"), &raw.drain_timeout, seconds(0)..=DAY),
            trusted_proxies: self.networks(&at.key("trusted_proxies"), &raw.trusted_proxies),
            // A TLS listener serves nothing else.
            public_scheme: raw.tls.as_ref().map_or_else(|| word(&raw.public_scheme), |_| "https".to_owned()),
            tls: raw.tls.as_ref().map(|tls| self.server_tls(&at.key("tls"), tls)),
            clients: raw
                .tls
                .as_ref()
                .map_or_else(Vec::new, |tls| self.client_rules(&at.key("tls").key("clients"), tls, issuers)),
            proxy_protocol_from: self.networks(&at.key("proxy_protocol_from"), &raw.proxy_protocol_from),
        }
    }

    fn networks(&mut self, field: &FieldPath, texts: &[String]) -> Vec<IpNet> {
        let mut found = Vec::with_capacity(texts.len());
        for (at, text) in texts.iter().enumerate() {
            let net = text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
            match net {
                Ok(net) => found.push(net),
                Err(_) => {
                    self.fail(&field.index(at), format!("`{text}` is no network: write for example `10.0.0.0/8`"))
                }
            }
        }
        found
    }

    pub(super) fn health(&mut self, raw: &RawHealth, listen: &ListenSettings) -> Option<SocketAddr> {
        let field = section("health").key("address");
        let address = self.address(&field, &raw.address);
        if raw.enabled && address.port() != 0 && address == listen.address {
            self.fail(&field, "is the address of the public listener too: give it one of its own");
        }
        raw.enabled.then_some(address)
    }

    pub(super) fn database(&mut self, raw: &RawDatabase) -> DatabaseSettings {
        let at = section("database");
        let ways = SecretWays {
            table: &at,
            name: "postgres_url",
            file: raw.postgres_url_file.as_ref(),
            env: raw.postgres_url_env.as_ref(),
            inline: raw.postgres_url.as_ref(),
        };
        let is_postgres = ways.file.is_some() || ways.env.is_some() || ways.inline.is_some();
        let url = self.secret(&ways, 1);
        let connections = self.at_least_one(&at.key("max_connections"), raw.max_connections);
        if let Some(url) = &url {
            let scheme = [b"postgres://".as_slice(), b"postgresql://"];
            if !scheme.iter().any(|scheme| url.expose().starts_with(scheme)) {
                // The value itself may hold a password, so it is not shown.
                self.fail(&at, "the Postgres URL does not begin with `postgres://` or `postgresql://`");
            }
        }
        match (is_postgres, &raw.sqlite, url) {
            (true, Some(_), _) => {
                self.fail(&at.key("sqlite"), "stands beside a Postgres URL: choose one database");
                DatabaseSettings::Sqlite { path: self.base.to_path_buf() }
            }
            (true, None, Some(url)) => {
                DatabaseSettings::Postgres { url, max_connections: u32::try_from(connections).unwrap_or(u32::MAX) }
            }
            (true, None, None) => DatabaseSettings::Sqlite { path: self.base.to_path_buf() },
            (false, path, _) => {
                let text = path.as_deref().unwrap_or("linkgate.db");
                DatabaseSettings::Sqlite { path: self.path(&at.key("sqlite"), text) }
            }
        }
    }

    pub(super) fn links(&mut self, raw: &RawLinks) -> LinkSettings {
        let at = section("links");
        let max_staleness = self.duration(&at.key("max_staleness"), &raw.max_staleness, millis(200)..=seconds(60));
        let heartbeat = self.duration(&at.key("heartbeat"), &raw.heartbeat, millis(20)..=seconds(30));
        if heartbeat * 2 > max_staleness {
            self.fail(
                &at.key("heartbeat"),
                "is more than half of `max_staleness`: one late beat would refuse every cross-tenant request",
            );
        }
        if raw.cached_partners == 0 {
            self.fail(&at.key("cached_partners"), "must be at least 1");
        }
        if raw.four_eyes && !raw.require_approval {
            self.fail(&at.key("four_eyes"), "needs `require_approval = true`: without it nobody is asked at all");
        }
        LinkSettings {
            max_staleness,
            heartbeat,
            cached_partners: raw.cached_partners,
            approvals: ApprovalRules { required: raw.require_approval, four_eyes: raw.four_eyes },
        }
    }

    pub(super) fn policy(&mut self, raw: &RawPolicy) -> PolicySettings {
        let at = section("policy");
        let mut folder = |name, text: &Option<String>| {
            let field = at.key(name);
            let dir = self.path(&field, text.as_ref()?);
            if !dir.is_dir() {
                self.fail(&field, format!("`{}` is no folder", dir.display()));
            }
            Some(dir)
        };
        PolicySettings {
            dir: folder("dir", &raw.dir),
            memo_entries: usize::try_from(raw.memo_entries).unwrap_or(usize::MAX),
            enforce: raw.enforce,
            shadow: folder("shadow", &raw.shadow),
        }
    }

    pub(super) fn limits(&mut self, raw: &RawLimits) -> LimitSettings {
        let at = section("limits");
        LimitSettings {
            listing: self.quota(&at.key("listing"), &raw.listing),
            detail: self.quota(&at.key("detail"), &raw.detail),
            write: self.quota(&at.key("write"), &raw.write),
            export: self.quota(&at.key("export"), &raw.export),
            tenant: self.quota(&at.key("tenant"), &raw.tenant),
            refusal: self.quota(&at.key("refusal"), &raw.refusal),
            unauthenticated: self.quota(&at.key("unauthenticated"), &raw.unauthenticated),
            home: self.quota(&at.key("home"), &raw.home),
            tenant_admin: self.quota(&at.key("tenant_admin"), &raw.tenant_admin),
            partners: self.quotas(&at.key("partners"), &raw.partners),
            links: self.quotas(&at.key("links"), &raw.links),
            max_keys: self.at_least_one(&at.key("max_keys"), raw.max_keys),
            shared: self.shared_limits(raw),
        }
    }

    fn shared_limits(&mut self, raw: &RawLimits) -> Option<SharedSettings> {
        let at = section("limits");
        let ways = SecretWays {
            table: &at,
            name: "redis_url",
            file: raw.redis_url_file.as_ref(),
            env: raw.redis_url_env.as_ref(),
            inline: raw.redis_url.as_ref(),
        };
        let asked = ways.file.is_some() || ways.env.is_some() || ways.inline.is_some();
        let prefix = &raw.redis_prefix;
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_:.".contains(&byte)) {
            self.fail(&at.key("redis_prefix"), "is made of letters, digits, `-`, `_`, `.` and `:`");
        }
        let bounds = millis(5)..=seconds(1);
        let interval = self.duration(&at.key("sync_interval"), &raw.sync_interval, bounds);
        if !asked {
            return None;
        }
        let url = self.secret(&ways, 1)?;
        let schemes = [b"redis://".as_slice(), b"rediss://"];
        if !schemes.iter().any(|scheme| url.expose().starts_with(scheme)) {
            // The value itself may hold a password, so it is not shown.
            self.fail(&at, "the Redis URL does not begin with `redis://` or `rediss://`");
        }
        Some(SharedSettings { url, prefix: prefix.clone(), interval })
    }

    fn quotas<K: FromStr + Eq + Hash>(
        &mut self,
        field: &FieldPath,
        raw: &BTreeMap<String, QuotaText>,
    ) -> HashMap<K, Quota> {
        let mut found = HashMap::with_capacity(raw.len());
        for (name, quota) in raw {
            let quota = self.quota(&field.key(name), quota);
            match name.parse::<K>() {
                Ok(id) => {
                    if found.insert(id, quota).is_some() {
                        self.fail(&field.key(name), "names the same id as another key");
                    }
                }
                Err(_) => self.fail(&field.key(name), format!("`{name}` is no id: write a UUID")),
            }
        }
        found
    }

    /// `token`: the cookie that may carry the token, which is a credential whether the list names it or not.
    pub(super) fn headers(&mut self, raw: &RawHeaders, token: Option<&str>) -> HeaderSettings {
        let at = section("headers");
        let mut strip = Vec::with_capacity(raw.strip.len());
        for (place, name) in raw.strip.iter().enumerate() {
            let lower = name.to_ascii_lowercase();
            if http::HeaderName::from_bytes(lower.as_bytes()).is_err() {
                self.fail(&at.key("strip").index(place), format!("`{name}` is no header name"));
            } else if FRAMING.contains(&lower.as_str()) {
                self.fail(
                    &at.key("strip").index(place),
                    format!("`{name}` is handled by the gateway itself and cannot be stripped"),
                );
            }
            strip.push(lower);
        }
        for (place, name) in raw.session_cookies.iter().enumerate() {
            self.cookie_name(&at.key("session_cookies").index(place), name);
        }
        let mut session_cookies = raw.session_cookies.clone();
        session_cookies
            .extend(token.filter(|token| !raw.session_cookies.iter().any(|name| name == token)).map(str::to_owned));
        HeaderSettings { strip, session_cookies, platform_admin_target: raw.platform_admin_target }
    }

    pub(super) fn cookie_name(&mut self, field: &FieldPath, name: &str) {
        // A cookie name is a token, like a header name, but with its case.
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            self.fail(field, format!("`{name}` is no cookie name"));
        }
    }

    pub(super) fn log(&mut self, raw: &RawLog) -> LogSettings {
        let field = section("log").key("filter");
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&raw.filter) {
            self.fail(&field, format!("`{}` is no filter: {error}", raw.filter));
        }
        LogSettings { json: raw.format == RawLogFormat::Json, filter: raw.filter.clone(), requests: raw.requests }
    }

    /// Used by routes too.
    pub(super) fn response_wait(&mut self, field: &FieldPath, text: &crate::config::scalar::DurationText) -> Duration {
        self.duration(field, text, millis(1)..=DAY)
    }
}
