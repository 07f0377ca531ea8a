//! Floor 2: from one TOML file and the environment to a valid configuration.
//!
//! The way: file text → tree with lines (`tree`) → environment laid over it, structure checked against the schema of
//! the raw mirror (`shape`, `raw`) → meaning (`resolve`) → [`Config`]. Every stage reports all it finds and hands on
//! what is left, so that one run tells every error, each with its line and field. A configuration with any error does
//! not exist: there is no half-valid [`Config`].
//!
//! Rules of the environment: `LINKGATE__SECTION__KEY=value` overrides one key (text without quotes, all else in TOML's
//! syntax: `LINKGATE__LISTEN__WORKERS=4`, `LINKGATE__LISTEN__TRUSTED_PROXIES='["10.0.0.0/8"]'`). An unknown name fails
//! like an unknown key. Variables with one underscore (`LINKGATE_CONFIG`) are no overrides and are left alone.
//!
//! Secrets come by `*_file`, by `*_env`, or inline in an override; they are never printed, and values of other keys
//! are shown in errors only where they are no secrets.

mod errors;
mod exposed;
pub mod pattern;
mod presets;
mod raw;
mod resolve;
mod route_conflict;
pub mod route_table;
mod scalar;
pub mod settings;
mod shape;
mod tree;
mod unusual;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use errors::{ConfigError, ConfigErrors, FieldPath, Origin, Step};
pub use pattern::{Pattern, PatternError, Segment};
pub use route_conflict::RouteConflict;
pub use route_table::{Found, Params, RouteTable};
pub use scalar::parse_duration;
pub use settings::Config;
pub use shape::OVERRIDE_PREFIX;

use crate::policy::settings::PolicySettings;

/// Reads the file (if any), lays the environment over it and resolves the whole.
///
/// Relative paths in the configuration start from the folder of the file, or from the current folder without a file.
/// All errors are told at once.
pub fn load(path: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Result<Config, ConfigErrors> {
    check(path, env).config
}

/// As [`load`], from text; `name` stands in errors, `base` is where relative paths start.
pub fn load_text(
    text: &str,
    name: Option<&str>,
    base: &Path,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigErrors> {
    check_text(text, name, base, env).config
}

/// A configuration, or its errors and what could be read all the same.
#[derive(Debug)]
pub struct Checked {
    pub config: Result<Config, ConfigErrors>,
    /// Known even where other sections are wrong, so that `linkgate check` can look at the policies in the same run.
    pub policy: Option<PolicySettings>,
}

/// As [`load`], for a look at what is wrong.
pub fn check(path: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Checked {
    let Some(path) = path else { return check_text("", None, Path::new("."), env) };
    let name: Arc<str> = path.display().to_string().into();
    match std::fs::read_to_string(path) {
        Ok(text) => {
            // `parent` of a bare file name is the empty path, which means the current folder.
            let base = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
            check_text(&text, Some(&name), &base, env)
        }
        Err(error) => {
            let message = format!("the configuration file cannot be read: {error}");
            let error = ConfigError {
                origin: Origin::Line(0),
                field: FieldPath::default(),
                message,
                file: Some(Arc::clone(&name)),
            };
            Checked { config: Err(ConfigErrors::new(vec![error])), policy: None }
        }
    }
}

fn check_text(text: &str, name: Option<&str>, base: &Path, env: impl IntoIterator<Item = (String, String)>) -> Checked {
    let file: Option<Arc<str>> = name.map(Into::into);
    let environment: HashMap<String, String> = env.into_iter().collect();
    let (resolved, mut errors) = read(text, file.as_ref(), base, &environment);
    let policy = resolved.as_ref().map(|config| config.policy.clone());
    let config = match resolved {
        Some(config) if errors.is_empty() => Ok(config),
        _ => {
            for error in &mut errors {
                error.file.clone_from(&file);
            }
            Err(ConfigErrors::new(errors))
        }
    };
    Checked { config, policy }
}

/// The stages, one after the other. What is resolved counts only where there is no error.
fn read(
    text: &str,
    file: Option<&Arc<str>>,
    base: &Path,
    environment: &HashMap<String, String>,
) -> (Option<Config>, Vec<ConfigError>) {
    let schema = schema();
    let (mut tree, mut errors) = tree::parse(text, file);
    let syntax_is_good = errors.is_empty();
    let mut shape = shape::Shape::new(&schema);
    let mut overrides: Vec<_> = environment.iter().filter(|(name, _)| name.starts_with(OVERRIDE_PREFIX)).collect();
    overrides.sort();
    for (name, value) in overrides {
        shape.overlay(&mut tree, name, value);
    }
    shape.check(&mut tree);
    let reported = resolve::Reported {
        fields: shape.errors.iter().map(|error| error.field.clone()).collect(),
        meant: std::mem::take(&mut shape.meant),
    };
    // Behind the first hole of a file that does not parse, keys may stand in the wrong table; and what its values mean
    // would be guessing.
    let first_hole = errors.iter().filter_map(ConfigError::line).min().unwrap_or(usize::MAX);
    errors.extend(shape.errors.drain(..).filter(|error| error.line().is_none_or(|line| line < first_hole)));
    if !syntax_is_good {
        return (None, errors);
    }
    let mut json = tree.to_json();
    presets::lay_under(&mut json);
    match serde_json::from_value::<raw::RawConfig>(json) {
        Ok(raw) => {
            let (config, more) = resolve::resolve(&raw, &tree, &reported, environment, base);
            errors.extend(more);
            (Some(config), errors)
        }
        // Not the error's own text: it would show values, and one of them might be a secret.
        Err(_) => {
            errors.push(ConfigError {
                origin: Origin::Line(0),
                field: FieldPath::default(),
                message: "passes its own schema but cannot be read: this is a fault of linkgate".to_owned(),
                file: None,
            });
            (None, errors)
        }
    }
}

/// The commented default configuration: every setting with its default, and an example of what has none.
pub fn default_toml() -> String {
    include_str!("default.toml").to_owned()
}

/// The JSON Schema of the configuration file.
pub fn json_schema() -> String {
    format!("{:#}\n", schema())
}

fn schema() -> serde_json::Value {
    schemars::schema_for!(raw::RawConfig).to_value()
}
