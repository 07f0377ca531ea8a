//! A test file once it is read: questions under names, each with what should come of it.

use std::ops::Range;

use crate::{domain::Permission, policy::source_file::SourceFile};

/// One test file, read.
pub(super) struct Suite {
    pub(super) source: SourceFile,
    pub(super) switched_on: Vec<String>,
    pub(super) cases: Vec<Case>,
}

/// Some questions under one name.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) span: Range<usize>,
    pub(super) asks: Vec<Ask>,
}

/// One question and what should come of it.
pub(super) struct Ask {
    pub(super) permission: Permission,
    /// As a line of `linkgate decide`.
    pub(super) question: Vec<u8>,
    pub(super) span: Range<usize>,
    pub(super) expected: Expected,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) allowed: bool,
    pub(super) reason: Option<String>,
    pub(super) code: Option<String>,
    pub(super) gate: Option<String>,
    /// Exactly these, in any order.
    pub(super) policies: Option<Vec<String>>,
}
