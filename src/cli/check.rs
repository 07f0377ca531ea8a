//! `linkgate check`: configuration and policies, every error at once, without starting anything.
//!
//! What `serve` would refuse at its start is refused here: the file and the environment, key files and key sets, the
//! policy set, a `disk` promise on a file system that has none. Nothing is written and no port is opened.

use std::path::Path;

use serde::Serialize;

use super::{
    context::{Context, NO_FILE, chain, environment},
    outcome::{Exit, Failure},
};
use crate::{
    audit::{Durability, medium::volatile_file_system},
    config::{self, Config, ConfigError},
    identity::{Keyring, Verifier},
    policy::Bundle,
    server::descriptors::Descriptors,
    store::small_blocks,
    tls::ServerTls,
    upstream::Upstream,
};

/// Check configuration and policies, telling every error at once
#[derive(clap::Args, Debug)]
pub struct CheckArgs {}

/// What `--json` prints.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub valid: bool,
    pub config: Option<String>,
    pub errors: Vec<Finding>,
    pub warnings: Vec<Finding>,
    /// Hex digest of the policy set, if it is valid.
    pub policy_version: Option<String>,
    pub issuers: usize,
    pub upstreams: usize,
    pub routes: usize,
}

/// One error or warning.
#[derive(Debug, Serialize)]
pub struct Finding {
    pub file: Option<String>,
    pub line: Option<usize>,
    pub field: Option<String>,
    pub message: String,
    /// As it is printed.
    #[serde(skip)]
    shown: String,
}

pub fn run(_: &CheckArgs, context: &Context) -> Result<(), Failure> {
    let report = check(context.config_path().as_deref());
    context.console.show(&report, report.text())?;
    match report.errors.len() {
        0 => Ok(()),
        1 => Err(Failure::new(Exit::Invalid, "1 error")),
        many => Err(Failure::new(Exit::Invalid, format!("{many} errors"))),
    }
}

/// The command without its output.
pub fn check(path: Option<&Path>) -> Report {
    let mut report = Report { config: path.map(|path| path.display().to_string()), ..Report::default() };
    let checked = config::check(path, environment());
    match &checked.config {
        Ok(config) => report.look_into(config),
        Err(errors) => {
            if path.is_none() {
                report.errors.push(Finding::plain(NO_FILE.to_owned()));
            }
            report.errors.extend(errors.iter().map(Finding::of_config));
        }
    }
    // The policy folder is known even where other things are wrong.
    let dir = checked.policy.as_ref().and_then(|policy| policy.dir.as_deref());
    match Bundle::load(dir) {
        Ok(bundle) => {
            report.policy_version = Some(bundle.version().to_owned());
            report.warnings.extend(bundle.warnings().iter().map(|text| Finding::plain(text.clone())));
        }
        Err(errors) => report
            .errors
            .push(Finding { shown: errors.render(), ..Finding::plain(format!("the policies are invalid: {errors}")) }),
    }
    report.valid = report.errors.is_empty();
    report
}

impl Report {
    /// What is valid by itself and yet does not work.
    fn look_into(&mut self, config: &Config) {
        self.issuers = config.identity.issuers.len();
        self.upstreams = config.upstreams.len();
        self.routes = config.routes.len();
        let keyring = config.signing.as_ref().map(Keyring::load).transpose();
        let own = keyring.as_ref().ok().and_then(Option::as_ref).map(Keyring::issuer);
        if let Err(error) = Verifier::new(&config.identity, own) {
            self.errors.push(Finding::plain(chain(&error)));
        }
        if let Err(error) = &keyring {
            self.errors.push(Finding::plain(chain(error)));
        }
        if let Some(Err(error)) = config.listen.tls.clone().map(|settings| ServerTls::load(settings, &[])) {
            self.errors.push(Finding::plain(format!("the files of `listen.tls` cannot be used: {}", chain(&error))));
        }
        if let Err(error) = config.checkpoints.keys() {
            self.errors.push(Finding::plain(chain(&error)));
        }
        let wants_disk = config.audit.reads == Durability::Disk
            || config.audit.writes == Durability::Disk
            || config.routes.iter().any(|route| route.durability == Durability::Disk);
        let dir = config.audit.dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
        if wants_disk && let Ok(Some(kind)) = volatile_file_system(dir) {
            let message = format!(
                "`{}` is on {kind}, where nothing is on stable storage: move `audit.dir`, or set levels `os`",
                config.audit.dir.display()
            );
            self.errors.push(Finding::plain(message));
        }
        for upstream in &config.upstreams {
            let routed = config.routes.iter().any(|route| route.upstream.as_ref() == Some(&upstream.name));
            let resources = || config.connectors.iter().flat_map(|connector| &connector.resources);
            let asked = resources().any(|resource| {
                let mut witnesses = resource.failed_when.iter().filter_map(|rule| rule.witness.as_ref());
                resource.upstream == upstream.name || witnesses.any(|witness| witness.upstream == upstream.name)
            });
            if !routed && !asked {
                self.warnings.push(Finding::plain(format!(
                    "neither a route nor a connector leads to the upstream `{}`",
                    upstream.name
                )));
            }
        }
        for upstream in &config.upstreams {
            if let Err(error) = Upstream::new(upstream.clone()) {
                let message =
                    format!("the certificates of the upstream `{}` cannot be used: {}", upstream.name, chain(&error));
                self.errors.push(Finding::plain(message));
            }
        }
        if !config.policy.enforce {
            let message = "policy.enforce is false: guardrails and role rules are NOT ENFORCED, they only note what they would refuse";
            self.warnings.push(Finding::plain(message.to_owned()));
        }
        // Beside the set in force a bad one stops nothing at run time; here is where it is told.
        if let Some(Err(errors)) = config.policy.shadow.as_deref().map(|dir| Bundle::load(Some(dir))) {
            let message = format!("the shadow policies are invalid: {errors}");
            self.errors.push(Finding { shown: format!("{message}\n{}", errors.render()), ..Finding::plain(message) });
        }
        self.warnings.extend(config.exposed_files().into_iter().map(Finding::plain));
        self.warnings.extend(config.unusual_methods().into_iter().map(Finding::plain));
        // As `serve` will have it; it may be started elsewhere with other limits.
        self.warnings.extend(Descriptors::at_most().warning(config).map(Finding::plain));
        self.warnings.extend(small_blocks(&config.database).map(Finding::plain));
        if config.routes.is_empty() {
            self.warnings.push(Finding::plain("there are no routes: every request is refused".to_owned()));
        }
    }

    fn text(&self) -> String {
        let mut lines: Vec<String> = self.errors.iter().map(|finding| finding.shown.trim_end().to_owned()).collect();
        lines.extend(self.warnings.iter().map(|finding| format!("warning: {}", finding.shown)));
        if self.valid {
            let file = self.config.as_deref().unwrap_or("the environment");
            let count = |number: usize, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
            lines.push(format!(
                "{file}: valid ({}, {}, {})",
                count(self.issuers, "issuer"),
                count(self.upstreams, "upstream"),
                count(self.routes, "route")
            ));
            let version = self.policy_version.as_deref().unwrap_or_default();
            lines.push(format!("policies: valid (version {})", version.get(..12).unwrap_or(version)));
        }
        lines.join("\n")
    }
}

impl Finding {
    fn plain(message: String) -> Self {
        Self { file: None, line: None, field: None, shown: message.clone(), message }
    }

    fn of_config(error: &ConfigError) -> Self {
        let field = error.field.to_string();
        Self {
            file: error.file.as_deref().map(str::to_owned),
            line: error.line().filter(|line| *line > 0),
            field: Some(field).filter(|field| !field.is_empty()),
            message: error.message.clone(),
            shown: error.to_string(),
        }
    }
}
