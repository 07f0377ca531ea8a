//! Where a condition's text stands in the file that it was read from.

use std::ops::Range;

use crate::policy::source_file::SourceFile;

/// Where the condition's text stands in the file, so that Cedar's positions can be told as the file's.
pub(super) struct Place {
    span: Range<usize>,
    /// Where the text itself begins; `None` where escapes make it differ from what is written.
    verbatim: Option<Range<usize>>,
}

impl Place {
    pub(super) fn of(source: &SourceFile, text: &str, span: Range<usize>) -> Self {
        let written = source.text.get(span.clone()).unwrap_or_default();
        let verbatim = written.find(text).map(|at| span.start + at..span.start + at + text.len());
        Self { span, verbatim }
    }

    pub(super) fn whole(&self) -> Range<usize> {
        self.verbatim.clone().unwrap_or_else(|| self.span.clone())
    }

    /// `at`: within a text that begins `head` bytes before the condition.
    pub(super) fn from(&self, at: Range<usize>, head: usize) -> Range<usize> {
        match &self.verbatim {
            Some(text) if at.start >= head && text.start + (at.end - head) <= text.end => {
                text.start + (at.start - head)..text.start + (at.end - head)
            }
            _ => self.whole(),
        }
    }
}
