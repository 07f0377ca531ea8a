//! From the raw mirror to a valid [`Config`]: everything that a schema cannot say.
//!
//! Each section has a function that reads its raw part, reports what is wrong with it and gives a value all the same
//! (a harmless one where it was wrong), so that one run tells every error. The caller throws the result away if there
//! was any error, so a made-up value never configures anything.

mod admin;
mod alerts;
mod audit;
mod collector;
mod connectors;
mod cors;
mod decision;
mod endpoints;
mod exports;
mod identity;
mod portal;
mod resources;
mod routes;
mod secrets;
mod sections;
mod tls;
mod tracing;
mod upstreams;

use std::{
    collections::HashMap,
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    errors::{ConfigError, FieldPath, Step},
    raw::RawConfig,
    scalar::{self, DurationText, QuotaText, SizeText},
    settings::Config,
    tree::Node,
};
use crate::limit::settings::Quota;

/// Fields that were already reported, so that their absence is no second error.
pub(super) struct Reported {
    pub(super) fields: Vec<FieldPath>,
    /// Fields that a mistyped key was probably meant for.
    pub(super) meant: Vec<FieldPath>,
}

/// What every section reads with, and where its errors go.
pub(super) struct Resolver<'a> {
    tree: &'a Node,
    reported: &'a Reported,
    environment: &'a HashMap<String, String>,
    /// Folder that relative paths start from.
    base: &'a Path,
    errors: Vec<ConfigError>,
    /// Files that secrets were read from.
    secret_files: Vec<PathBuf>,
}

/// Resolves everything; the configuration counts only if the list of errors is empty.
pub(super) fn resolve(
    raw: &RawConfig,
    tree: &Node,
    reported: &Reported,
    environment: &HashMap<String, String>,
    base: &Path,
) -> (Config, Vec<ConfigError>) {
    let mut resolver = Resolver { tree, reported, environment, base, errors: Vec::new(), secret_files: Vec::new() };
    let config = resolver.config(raw);
    (config, resolver.errors)
}

impl Resolver<'_> {
    fn config(&mut self, raw: &RawConfig) -> Config {
        let root = FieldPath::default();
        let listen = self.listen(&raw.listen, &raw.issuers);
        let signing = self.signing(raw.signing.as_ref());
        let retention = self.retention(&raw.audit, signing.as_ref());
        let audit = self.audit(&raw.audit, retention);
        let upstreams = self.upstreams(&raw.upstreams, signing.is_some());
        let routes = self.routes(&raw.routes, &raw.upstreams, &audit);
        let database = self.database(&raw.database);
        let kept_in_database = self.kept_in_database(&raw.audit, &database);
        let config = Config {
            api_docs: raw.health.api_docs,
            admin: self.admin(&raw.admin, raw.health.enabled.then_some(raw.health.address.as_str()), &listen),
            health: self.health(&raw.health, &listen),
            exports: self.exports(&raw.exports, &database),
            database,
            decision: self.decision(&raw.decision, &listen, raw.health.enabled.then_some(raw.health.address.as_str())),
            links: self.links(&raw.links),
            identity: self.identity(raw, &listen, signing.as_ref()),
            checkpoints: self.checkpoints(&raw.audit, signing.as_ref()),
            ship: self.ship(&raw.audit.ship, &audit),
            retention,
            kept_in_database,
            signing,
            policy: self.policy(&raw.policy),
            audit,
            limits: self.limits(&raw.limits),
            headers: self.headers(&raw.headers, raw.identity.cookie.as_deref()),
            cors: self.cors(&raw.cors),
            upstreams,
            portal: self.portal(&raw.portal, &raw.alerts, &routes, !raw.connectors.is_empty()),
            webhooks: self.webhooks(&raw.webhooks),
            connectors: self.connectors(&raw.connectors, &raw.upstreams),
            routes,
            log: self.log(&raw.log),
            tracing: self.tracing(&raw.tracing),
            listen,
            // Behind all that read them.
            secret_files: std::mem::take(&mut self.secret_files),
        };
        if config.identity.issuers.is_empty() {
            self.fail(&root.key("issuers"), "at least one issuer is needed, else no token could ever be taken");
        }
        config
    }

    /// Reports an error, unless the structure of the field was found wrong already.
    fn fail(&mut self, field: &FieldPath, message: impl Into<String>) {
        if !self.was_reported(field) {
            let origin = self.tree.origin_of(field);
            self.errors.push(ConfigError { origin, field: field.clone(), message: message.into(), file: None });
        }
    }

    /// Whether the field, or an item of it, was cut out as wrong, or an unknown key was probably meant for it: then
    /// that it is missing now is no second error.
    fn was_reported(&self, field: &FieldPath) -> bool {
        let steps = field.steps();
        let itself = |known: &FieldPath| match known.steps().strip_prefix(steps) {
            Some([] | [Step::Index(_)]) => true,
            Some(_) | None => false,
        };
        self.reported.fields.iter().any(itself) || self.reported.meant.contains(field)
    }

    fn line_of(&self, field: &FieldPath) -> usize {
        match self.tree.origin_of(field) {
            super::errors::Origin::Line(line) => line,
            super::errors::Origin::Env(_) => 0,
        }
    }

    fn ok<T>(&mut self, field: &FieldPath, parsed: Result<T, String>) -> Option<T> {
        parsed.map_err(|message| self.fail(field, message)).ok()
    }

    fn duration(&mut self, field: &FieldPath, text: &DurationText, range: RangeInclusive<Duration>) -> Duration {
        let parsed = self.ok(field, scalar::parse_duration(&text.0)).unwrap_or(*range.start());
        if !range.contains(&parsed) {
            let (least, most) = (scalar::duration_text(*range.start()), scalar::duration_text(*range.end()));
            let message = format!("`{}` is out of range: {least} to {most}", text.0);
            self.fail(field, message);
        }
        parsed
    }

    fn optional_duration(
        &mut self,
        field: &FieldPath,
        text: Option<&DurationText>,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        text.map(|text| self.duration(field, text, range))
    }

    fn size(&mut self, field: &FieldPath, size: &SizeText, range: RangeInclusive<u64>) -> u64 {
        let parsed = self.ok(field, scalar::parse_size(size)).unwrap_or(*range.start());
        if !range.contains(&parsed) {
            self.fail(field, format!("{parsed} bytes are out of range: {} to {}", range.start(), range.end()));
        }
        parsed
    }

    fn quota(&mut self, field: &FieldPath, quota: &QuotaText) -> Quota {
        self.ok(field, scalar::parse_quota(quota)).unwrap_or(Quota { requests: 0, per_seconds: 1 })
    }

    fn at_least_one(&mut self, field: &FieldPath, number: u32) -> usize {
        if number == 0 {
            self.fail(field, "must be at least 1");
        }
        usize::try_from(number).unwrap_or(usize::MAX)
    }

    fn address(&mut self, field: &FieldPath, text: &str) -> SocketAddr {
        let parsed = text.parse().map_err(|_| {
            format!("`{text}` is no address with a port: write for example `127.0.0.1:8080` or `[::]:8080`")
        });
        self.ok(field, parsed).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// A path of the configuration: relative ones start from the folder of the file.
    fn path(&mut self, field: &FieldPath, text: &str) -> PathBuf {
        if text.is_empty() {
            self.fail(field, "is empty: name a path");
        }
        self.base.join(text)
    }

    /// As `path`, and the file must be readable now: better told here than at the first request.
    fn readable(&mut self, field: &FieldPath, text: &str) -> PathBuf {
        let path = self.path(field, text);
        if !text.is_empty()
            && let Err(error) = std::fs::File::open(&path)
        {
            self.fail(field, format!("`{}` cannot be read: {}", path.display(), reason(&error)));
        }
        path
    }
}

/// Short words for the usual causes.
fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

const fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

const fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// A day: the longest wait that makes sense anywhere.
const DAY: Duration = seconds(86_400);
