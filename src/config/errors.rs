//! Errors of the configuration: every one says where it stands, which field it is about and what to do.
//!
//! Values are shown only where they are no secret; nothing here ever receives one.

use std::{fmt, sync::Arc};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of the file, counted from 1; 0 where a value is missing altogether.
    Line(usize),
    /// An environment variable.
    Env(Arc<str>),
}

/// The way to a value, such as `routes[3].path`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldPath(Vec<Step>);

/// One step of the way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Key(String),
    Index(usize),
}

impl FieldPath {
    #[must_use]
    pub fn key(&self, name: &str) -> Self {
        self.then(Step::Key(name.to_owned()))
    }

    #[must_use]
    pub fn index(&self, at: usize) -> Self {
        self.then(Step::Index(at))
    }

    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(name) => {
                    if at > 0 {
                        f.write_str(".")?;
                    }
                    let bare = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
                    if bare && !name.is_empty() { f.write_str(name)? } else { write!(f, "{name:?}")? }
                }
            }
        }
        Ok(())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    pub origin: Origin,
    /// Empty for an error of the syntax.
    pub field: FieldPath,
    pub message: String,
    /// The file as it was named; `None` where there is no file.
    pub file: Option<Arc<str>>,
}

impl ConfigError {
    /// The line of the file; `None` for an override.
    pub fn line(&self) -> Option<usize> {
        match self.origin {
            Origin::Line(line) => Some(line),
            Origin::Env(_) => None,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, &self.file) {
            (Origin::Env(name), _) => write!(f, "{name}: ")?,
            (Origin::Line(0), Some(file)) => write!(f, "{file}: ")?,
            (Origin::Line(line), Some(file)) => write!(f, "{file}:{line}: ")?,
            (Origin::Line(_), None) => {}
        }
        if !self.field.steps().is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong with a configuration, in the order of the file, overrides last.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Sorted by line, overrides last; never empty when it is returned as an error.
    pub(super) fn new(mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by(|a, b| match (&a.origin, &b.origin) {
            (Origin::Line(x), Origin::Line(y)) => x.cmp(y),
            (Origin::Line(_), Origin::Env(_)) => std::cmp::Ordering::Less,
            (Origin::Env(_), Origin::Line(_)) => std::cmp::Ordering::Greater,
            (Origin::Env(x), Origin::Env(y)) => x.cmp(y),
        });
        Self(errors)
    }

    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

/// The nearest of the known words, if it is near enough to be what was meant.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, best) =
        known.map(|one| (strsim::damerau_levenshtein(one, &word.to_lowercase()), one)).min_by_key(|(d, _)| *d)?;
    // A third of the word may differ: enough for a typo, too little for another word.
    (distance <= (best.chars().count() / 3).max(2)).then_some(best)
}
