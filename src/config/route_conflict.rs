//! Rules of the route table that cannot be read, that cannot stand together, or that can never apply.

use std::collections::BTreeMap;

use http::Method;

use super::{
    pattern::{Pattern, PatternError, Segment},
    settings::RouteSettings,
};

/// Rules that cannot stand together, or that can never apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteConflict {
    #[error("`{pattern}`: {error}")]
    Pattern { index: usize, line: usize, pattern: String, error: PatternError },
    #[error("`{method}` is not a method that a rule can name: upper-case letters, not TRACE or CONNECT, or `*` alone")]
    Method { index: usize, line: usize, method: String },
    #[error("is missing: name the methods, such as [\"GET\"], or [\"*\"] for any but TRACE and CONNECT")]
    NoMethods { index: usize, line: usize },
    #[error(
        "`{pattern}` matches the same paths as `{other_pattern}` in line {other_line}, and both take {methods}: merge them"
    )]
    Overlap { index: usize, line: usize, pattern: String, other_line: usize, other_pattern: String, methods: String },
    #[error(
        "`{pattern}` is unreachable: more specific rules, the last in line {other_line}, take every path it matches"
    )]
    Unreachable { index: usize, line: usize, pattern: String, other_line: usize },
}

impl RouteConflict {
    /// Place of the rule in the list given to [`RouteTable::compile`](super::RouteTable::compile).
    pub fn index(&self) -> usize {
        match self {
            Self::Pattern { index, .. }
            | Self::Method { index, .. }
            | Self::NoMethods { index, .. }
            | Self::Overlap { index, .. }
            | Self::Unreachable { index, .. } => *index,
        }
    }

    pub fn line(&self) -> usize {
        match self {
            Self::Pattern { line, .. }
            | Self::Method { line, .. }
            | Self::NoMethods { line, .. }
            | Self::Overlap { line, .. }
            | Self::Unreachable { line, .. } => *line,
        }
    }
}

/// A rule whose pattern and methods can be read.
pub(super) struct ParsedRoute<'a> {
    pub(super) index: usize,
    pub(super) route: &'a RouteSettings,
    pub(super) pattern: Pattern,
    pub(super) methods: Methods,
}

#[derive(Debug)]
pub(super) enum Methods {
    /// Any but TRACE and CONNECT.
    Any,
    These(Vec<Method>),
}

impl Methods {
    /// The methods that both take, ready to print; `None` where there is none.
    fn common(&self, other: &Self) -> Option<String> {
        match (self, other) {
            (Self::Any, Self::Any) => Some("every method".to_owned()),
            (Self::Any, Self::These(list)) | (Self::These(list), Self::Any) => Some(join(list.iter())),
            (Self::These(a), Self::These(b)) => {
                let both: Vec<&Method> = a.iter().filter(|method| b.contains(method)).collect();
                (!both.is_empty()).then(|| join(both.into_iter()))
            }
        }
    }
}

fn join<'a>(methods: impl Iterator<Item = &'a Method>) -> String {
    methods.map(Method::as_str).collect::<Vec<_>>().join(", ")
}

/// `None` where a method is bad (reported) or there is none.
pub(super) fn parse_methods(
    index: usize,
    route: &RouteSettings,
    conflicts: &mut Vec<RouteConflict>,
) -> Option<Methods> {
    if let [only] = route.methods.as_slice()
        && only == "*"
    {
        return Some(Methods::Any);
    }
    let mut list = Vec::with_capacity(route.methods.len());
    let before = conflicts.len();
    if route.methods.is_empty() {
        conflicts.push(RouteConflict::NoMethods { index, line: route.line });
    }
    for name in &route.methods {
        let upper = !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        match Method::from_bytes(name.as_bytes()) {
            Ok(method) if upper && !matches!(method, Method::TRACE | Method::CONNECT) => {
                if !list.contains(&method) {
                    list.push(method);
                }
            }
            _ => conflicts.push(RouteConflict::Method { index, line: route.line, method: name.clone() }),
        }
    }
    (conflicts.len() == before).then_some(Methods::These(list))
}

pub(super) fn report_overlaps(parsed: &[ParsedRoute<'_>], conflicts: &mut Vec<RouteConflict>) {
    let mut by_shape: BTreeMap<Vec<Shape<'_>>, Vec<&ParsedRoute<'_>>> = BTreeMap::new();
    for one in parsed {
        let shape = one.pattern.segments().iter().map(Shape::of).collect();
        let earlier = by_shape.entry(shape).or_default();
        for other in earlier.iter() {
            if let Some(methods) = one.methods.common(&other.methods) {
                conflicts.push(RouteConflict::Overlap {
                    index: one.index,
                    line: one.route.line,
                    pattern: one.route.path.clone(),
                    other_line: other.route.line,
                    other_pattern: other.route.path.clone(),
                    methods,
                });
            }
        }
        earlier.push(one);
    }
}

/// A segment without its parameter's name: equal shapes match equal paths.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Shape<'a> {
    Literal(&'a str),
    Param,
    Tail,
}

impl<'a> Shape<'a> {
    fn of(segment: &'a Segment) -> Self {
        match segment {
            Segment::Literal(text) => Self::Literal(text),
            Segment::Param(_) => Self::Param,
            Segment::Tail(_) => Self::Tail,
        }
    }
}
