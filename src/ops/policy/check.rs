//! Whether a set can be loaded, and what in it is worth a look.
//!
//! What is refused here cannot be loaded by a server either: there is one `Bundle::load`.

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use crate::policy::{Bundle, Problem};

/// What is to be said of a set.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PolicyCheck")]
pub struct Report {
    pub policies: String,
    pub valid: bool,
    /// Hex digest of the set; null where it is not valid.
    pub version: Option<String>,
    pub errors: Vec<Finding>,
    pub warnings: Vec<Finding>,
}

/// One thing in a file of the set.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PolicyFinding")]
pub struct Finding {
    pub file: String,
    pub line: Option<usize>,
    pub column: Option<usize>,
    pub message: String,
    pub help: Option<String>,
    /// As it is printed.
    #[serde(skip)]
    pub shown: String,
}

impl Finding {
    fn error(problem: &Problem) -> Self {
        Self { shown: problem.render(), ..Self::warning(problem) }
    }

    fn warning(problem: &Problem) -> Self {
        Self {
            file: problem.file.clone(),
            line: problem.line(),
            column: problem.column(),
            message: problem.message.clone(),
            help: problem.help.clone(),
            shown: problem.render_warning(),
        }
    }
}

impl Report {
    /// `dir`: `None` for the set built into the binary. Beside the report the files of the set, as far as it can be loaded.
    pub fn of(dir: Option<&Path>, name: String) -> (Self, Vec<String>) {
        let mut report = Self { policies: name, valid: false, version: None, errors: Vec::new(), warnings: Vec::new() };
        let mut files = Vec::new();
        match Bundle::load(dir) {
            Ok(bundle) => {
                report.valid = true;
                report.version = Some(bundle.version().to_owned());
                report.warnings = bundle.findings().iter().map(Finding::warning).collect();
                files.extend(bundle.files().map(str::to_owned));
            }
            Err(errors) => report.errors = errors.problems.iter().map(Finding::error).collect(),
        }
        (report, files)
    }

    pub fn text(&self) -> String {
        let shown = self.errors.iter().chain(&self.warnings).map(|finding| finding.shown.trim_end().to_owned());
        let mut lines: Vec<String> = shown.collect();
        if let Some(version) = &self.version {
            let short = version.get(..12).unwrap_or(version);
            lines.push(format!("{}: valid (version {short})", self.policies));
        }
        lines.join("\n")
    }
}
