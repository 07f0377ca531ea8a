//! What is wrong with a policy set: every problem at once, each with file, line and a caret.
//!
//! One type for all sources (schema, role table, Cedar text), so that `check`, `reload` and a failed start print alike.

use std::{fmt, ops::Range, sync::Arc};

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity, SourceCode};

use super::source_file::SourceFile;

/// What an action begins with in Cedar's messages; its name and a quote follow.
const ACTION: &str = "Action::\"";

/// One problem at one place of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// As the operator knows it: a path, or `built-in/...`.
    pub file: String,
    text: Arc<str>,
    /// Byte range in the file; `None` where the file as a whole is meant.
    span: Option<Range<usize>>,
    label: Option<String>,
}

impl Problem {
    /// A problem of the whole file (or of its absence).
    pub(super) fn of_file(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, file: file.into(), text: "".into(), span: None, label: None }
    }

    pub(super) fn at(source: &SourceFile, span: Range<usize>, message: impl Into<String>) -> Self {
        let end = source.text.len();
        let span = span.start.min(end)..span.end.min(end);
        Self {
            message: message.into(),
            help: None,
            file: source.name.clone(),
            text: source.text.clone(),
            span: Some(span),
            label: None,
        }
    }

    #[must_use]
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// What Cedar says, at the place that Cedar names; `fallback` where it names none.
    pub(super) fn from_cedar(source: &SourceFile, error: &dyn Diagnostic, fallback: Option<Range<usize>>) -> Self {
        let label = error.labels().and_then(|mut labels| labels.next());
        let span = label.as_ref().map(|label| label.offset()..label.offset() + label.len()).or(fallback);
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let text = inner.to_string();
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = inner.source();
        }
        Self {
            message,
            help: error.help().map(|help| help.to_string()),
            file: source.name.clone(),
            text: source.text.clone(),
            span,
            label: label.and_then(|label| label.label().map(str::to_owned)),
        }
    }

    /// The order in which they are told: by file, then by line.
    pub(super) fn by_place(&self, other: &Self) -> std::cmp::Ordering {
        let key = |problem: &Self| (problem.file.clone(), problem.span.as_ref().map(|span| (span.start, span.end)));
        key(self).cmp(&key(other)).then_with(|| self.message.cmp(&other.message))
    }

    /// In their order, and those that differ only in the action that they name told once: Cedar says of one mistake what it
    /// means for each action, in an order that changes from run to run.
    pub(super) fn by_action(mut problems: Vec<Self>) -> Vec<Self> {
        problems.sort_by(Self::by_place);
        let mut told: Vec<(Self, String, usize)> = Vec::new();
        for problem in problems {
            let Some(general) = problem.without_action() else {
                told.push((problem, String::new(), 1));
                continue;
            };
            let same = told.iter_mut().find(|(one, message, _)| {
                *message == general
                    && (&one.file, &one.span, &one.help) == (&problem.file, &problem.span, &problem.help)
            });
            match same {
                Some((_, _, count)) => *count += 1,
                None => told.push((problem, general, 1)),
            }
        }
        let one = |(problem, general, count): (Self, String, usize)| match count {
            1 => problem,
            _ => Self { message: general.replace(ACTION, &format!("{count} actions")), ..problem },
        };
        told.into_iter().map(one).collect()
    }

    /// The message with [`ACTION`] in place of the action that it names, if it names one.
    fn without_action(&self) -> Option<String> {
        let (before, named) = self.message.split_once(ACTION)?;
        let (_, after) = named.split_once('"')?;
        Some(format!("{before}{ACTION}{after}"))
    }

    /// With the place put where `to` says: Cedar counts from the start of what it was given, which may be a part.
    #[cfg(feature = "prove")]
    #[must_use]
    pub(super) fn moved(mut self, to: impl FnOnce(Range<usize>) -> Range<usize>) -> Self {
        self.span = self.span.map(to);
        self
    }

    /// Line, counted from 1; `None` where the whole file is meant.
    pub fn line(&self) -> Option<usize> {
        Some(self.before()?.matches('\n').count() + 1)
    }

    /// Column in characters, counted from 1.
    pub fn column(&self) -> Option<usize> {
        let before = self.before()?;
        Some(before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1)
    }

    fn before(&self) -> Option<&str> {
        self.text.get(..self.span.as_ref()?.start)
    }

    /// The place as editors understand it: `file:line:column`.
    pub fn place(&self) -> String {
        match (self.line(), self.column()) {
            (Some(line), Some(column)) => format!("{}:{line}:{column}", self.file),
            _ => self.file.clone(),
        }
    }

    /// Several lines: message, the source line with a caret under it, help.
    pub fn render(&self) -> String {
        self.render_as(Severity::Error)
    }

    /// The same for what is only worth a look.
    pub fn render_warning(&self) -> String {
        self.render_as(Severity::Warning)
    }

    fn render_as(&self, severity: Severity) -> String {
        let mut out = String::new();
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(110);
        let view = ProblemView { problem: self, severity, source: NamedSource::new(&self.file, self.text.clone()) };
        if handler.render_report(&mut out, &view).is_err() {
            out = self.to_string();
        }
        out
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

/// A policy set that was refused; the one in force stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyErrors {
    /// Never empty; in the order of files, then of lines.
    pub problems: Vec<Problem>,
}

impl PolicyErrors {
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(Problem::by_place);
        problems.dedup();
        Self { problems }
    }

    /// For a terminal: every problem with its source line and caret.
    pub fn render(&self) -> String {
        self.problems.iter().map(Problem::render).collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        write!(f, "the policy set has {count} error{}", if count == 1 { "" } else { "s" })?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n{problem}"))
    }
}

impl std::error::Error for PolicyErrors {}

/// miette wants a source that it can borrow with the report.
struct ProblemView<'a> {
    problem: &'a Problem,
    severity: Severity,
    source: NamedSource<Arc<str>>,
}

impl fmt::Debug for ProblemView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl fmt::Display for ProblemView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.problem.span.is_none() {
            write!(f, "{}: ", self.problem.file)?;
        }
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for ProblemView<'_> {}

impl Diagnostic for ProblemView<'_> {
    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.problem.span.is_some().then_some(&self.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.problem.span.clone()?;
        let label = self.problem.label.clone().unwrap_or_else(|| "here".to_owned());
        Some(Box::new(std::iter::once(LabeledSpan::new_primary_with_span(Some(label), span))))
    }
}
