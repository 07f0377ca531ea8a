//! The route table: from method and path to the one rule that decides, compiled once per configuration.
//!
//! Used by the proxy's first stage. Order of preference, at the first segment in which two matching patterns differ:
//! a literal before a parameter before a tail. So the order of rules in the file means nothing.
//!
//! **Methods are matched within the most specific matching path.** If no rule of that path takes the method, the answer
//! is [`Found::MethodNotAllowed`]; the search never falls through to a broader rule, which might ask for less. HEAD is
//! served by a GET rule unless the same path has a HEAD rule of its own. TRACE and CONNECT never match.
//!
//! Paths come here already checked by the proxy (no ambiguous spellings); nothing is decoded or repaired. A look-up
//! allocates nothing while a path has at most four parameters: exact paths cost one hash, the others a walk through a
//! tree that visits each of its nodes at most once.

use std::collections::HashMap;

use http::Method;
use smallvec::SmallVec;

use super::{
    pattern::{Pattern, Segment},
    route_conflict::{Methods, ParsedRoute, RouteConflict, parse_methods, report_overlaps},
    settings::RouteSettings,
};

/// Captured parameters, from left to right: name and raw, still percent-encoded value.
pub type Params<'t, 'p> = SmallVec<[(&'t str, &'p str); 4]>;

/// What a look-up finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'t, 'p> {
    /// Place of the rule in the list given to [`RouteTable::compile`], and what its parameters took.
    Route {
        index: usize,
        params: Params<'t, 'p>,
    },
    /// The most specific matching path does not serve this method; `allow` is ready for the `Allow` header.
    MethodNotAllowed {
        allow: &'t str,
    },
    NotFound,
}

/// The compiled table; immutable, shared by all workers.
#[derive(Debug)]
pub struct RouteTable {
    /// Paths without parameters: nothing that matches such a path is more specific than its exact rule.
    exact: HashMap<Box<str>, usize, ahash::RandomState>,
    nodes: Vec<Node>,
    paths: Vec<PathRules>,
}

/// One place in the tree of segments.
#[derive(Debug, Default)]
struct Node {
    /// Sorted by text.
    literals: Vec<(Box<str>, usize)>,
    param: Option<usize>,
    /// Index into `paths`.
    tail: Option<usize>,
    end: Option<usize>,
}

/// All rules of one set of paths.
#[derive(Debug)]
struct PathRules {
    /// By method, each with the rule's index and its parameter names.
    methods: Vec<(Method, Rule)>,
    any: Option<Rule>,
    allow: String,
}

#[derive(Clone, Debug)]
struct Rule {
    index: usize,
    names: Box<[Box<str>]>,
}

impl RouteTable {
    /// Compiles the rules; on failure every conflict is reported, not only the first.
    pub fn compile(routes: &[RouteSettings]) -> Result<Self, Vec<RouteConflict>> {
        let mut conflicts = Vec::new();
        let mut parsed: Vec<ParsedRoute<'_>> = Vec::with_capacity(routes.len());
        for (index, route) in routes.iter().enumerate() {
            let pattern = Pattern::parse(&route.path).map_err(|error| {
                conflicts.push(RouteConflict::Pattern { index, line: route.line, pattern: route.path.clone(), error });
            });
            let methods = parse_methods(index, route, &mut conflicts);
            if let (Ok(pattern), Some(methods)) = (pattern, methods) {
                parsed.push(ParsedRoute { index, route, pattern, methods });
            }
        }
        report_overlaps(&parsed, &mut conflicts);
        let table = Self::build(&parsed);
        table.report_unreachable(&parsed, &mut conflicts);
        if conflicts.is_empty() {
            Ok(table)
        } else {
            conflicts.sort_by_key(|conflict| (conflict.line(), conflict.index()));
            Err(conflicts)
        }
    }

    /// Finds the rule for a method and a raw path (without query).
    pub fn find<'t, 'p>(&'t self, method: &Method, path: &'p str) -> Found<'t, 'p> {
        let mut values = SmallVec::new();
        let rules = match self.exact.get(path) {
            Some(rules) => self.paths.get(*rules),
            None => path.strip_prefix('/').and_then(|rest| self.walk(0, rest, &mut values)),
        };
        let Some(rules) = rules else { return Found::NotFound };
        match rules.rule(method) {
            Some(rule) => {
                let params = rule.names.iter().map(AsRef::as_ref).zip(values).collect();
                Found::Route { index: rule.index, params }
            }
            None => Found::MethodNotAllowed { allow: &rules.allow },
        }
    }

    /// The most specific match below `node` for what follows a slash. Depth is bounded by `MAX_SEGMENTS`, and each node
    /// is visited at most once, so a hostile path costs no more than the size of the table.
    fn walk<'p>(&self, node: usize, rest: &'p str, values: &mut SmallVec<[&'p str; 4]>) -> Option<&PathRules> {
        let here = self.nodes.get(node)?;
        let (segment, following) = match rest.split_once('/') {
            Some((segment, following)) => (segment, Some(following)),
            None => (rest, None),
        };
        let descend = |child: usize, values: &mut SmallVec<[&'p str; 4]>| match following {
            Some(following) => self.walk(child, following, values),
            None => self.nodes.get(child)?.end.and_then(|end| self.paths.get(end)),
        };
        if let Some(child) = here.literal(segment)
            && let Some(found) = descend(child, values)
        {
            return Some(found);
        }
        if let Some(child) = here.param
            && !segment.is_empty()
        {
            values.push(segment);
            if let Some(found) = descend(child, values) {
                return Some(found);
            }
            values.pop();
        }
        let tail = here.tail.and_then(|tail| self.paths.get(tail))?;
        values.push(rest);
        Some(tail)
    }

    fn build(parsed: &[ParsedRoute<'_>]) -> Self {
        let mut table = Self { exact: HashMap::default(), nodes: vec![Node::default()], paths: Vec::new() };
        for one in parsed {
            let place = table.place(&one.pattern);
            let names = one.pattern.names().map(Into::into).collect();
            if let Some(rules) = table.paths.get_mut(place) {
                rules.add(&one.methods, Rule { index: one.index, names });
            }
            if one.pattern.is_exact() {
                table.exact.insert(one.pattern.to_string().into(), place);
            }
        }
        for rules in &mut table.paths {
            rules.allow = rules.allow_header();
        }
        table
    }

    /// Walks the pattern into the tree, making what is missing, and gives the index of its rules.
    fn place(&mut self, pattern: &Pattern) -> usize {
        let mut at = 0;
        for segment in pattern.segments() {
            if let Segment::Tail(_) = segment {
                let known = self.nodes.get(at).and_then(|node| node.tail);
                return known.unwrap_or_else(|| {
                    let made = self.new_rules();
                    if let Some(node) = self.nodes.get_mut(at) {
                        node.tail = Some(made);
                    }
                    made
                });
            }
            at = self.child(at, segment);
        }
        let known = self.nodes.get(at).and_then(|node| node.end);
        known.unwrap_or_else(|| {
            let made = self.new_rules();
            if let Some(node) = self.nodes.get_mut(at) {
                node.end = Some(made);
            }
            made
        })
    }

    fn child(&mut self, at: usize, segment: &Segment) -> usize {
        let fresh = self.nodes.len();
        let Some(node) = self.nodes.get_mut(at) else { return at };
        let child = match segment {
            Segment::Literal(text) => match node.literals.binary_search_by(|(known, _)| known.cmp(text)) {
                Ok(place) => node.literals.get(place).map_or(fresh, |(_, child)| *child),
                Err(place) => {
                    node.literals.insert(place, (text.clone(), fresh));
                    fresh
                }
            },
            Segment::Param(_) | Segment::Tail(_) => *node.param.get_or_insert(fresh),
        };
        if child == fresh {
            self.nodes.push(Node::default());
        }
        child
    }

    fn new_rules(&mut self) -> usize {
        self.paths.push(PathRules { methods: Vec::new(), any: None, allow: String::new() });
        self.paths.len() - 1
    }

    /// A tail rule can be hidden entirely by others: by `/a/`, `/a/{x}` and `/a/{x}/{*rest}` together.
    fn report_unreachable(&self, parsed: &[ParsedRoute<'_>], conflicts: &mut Vec<RouteConflict>) {
        for one in parsed {
            if !matches!(one.pattern.segments().last(), Some(Segment::Tail(_))) {
                continue;
            }
            let above = one.pattern.segments().len().saturating_sub(1);
            let node = one.pattern.segments().iter().take(above).try_fold(0, |at, segment| self.step(at, segment));
            if let Some(hidden_by) = node.and_then(|node| self.hidden_below(node)) {
                let other_line =
                    parsed.iter().find(|other| other.index == hidden_by).map_or(0, |other| other.route.line);
                conflicts.push(RouteConflict::Unreachable {
                    index: one.index,
                    line: one.route.line,
                    pattern: one.route.path.clone(),
                    other_line,
                });
            }
        }
    }

    fn step(&self, at: usize, segment: &Segment) -> Option<usize> {
        let node = self.nodes.get(at)?;
        match segment {
            Segment::Literal(text) => node.literal(text),
            Segment::Param(_) | Segment::Tail(_) => node.param,
        }
    }

    /// Whether literals and parameters take everything that the tail at `node` could; the last rule that does so.
    fn hidden_below(&self, node: usize) -> Option<usize> {
        let here = self.nodes.get(node)?;
        self.nodes.get(here.literal("")?)?.end?;
        let param = here.param?;
        let below = self.nodes.get(param)?;
        below.end?;
        match below.tail {
            Some(tail) => self.paths.get(tail)?.first_index(),
            None => self.hidden_below(param),
        }
    }
}

impl Node {
    fn literal(&self, segment: &str) -> Option<usize> {
        // Most nodes have few children: comparing lengths first beats a binary search there.
        if self.literals.len() <= 8 {
            return self.literals.iter().find(|(text, _)| text.as_ref() == segment).map(|(_, child)| *child);
        }
        let place = self.literals.binary_search_by(|(text, _)| text.as_ref().cmp(segment)).ok()?;
        self.literals.get(place).map(|(_, child)| *child)
    }
}

impl PathRules {
    fn add(&mut self, methods: &Methods, rule: Rule) {
        match methods {
            Methods::Any => self.any = Some(rule),
            Methods::These(list) => self.methods.extend(list.iter().map(|method| (method.clone(), rule.clone()))),
        }
    }

    fn rule(&self, method: &Method) -> Option<&Rule> {
        let named = |wanted: &Method| self.methods.iter().find(|(known, _)| known == wanted).map(|(_, rule)| rule);
        named(method)
            .or_else(|| if *method == Method::HEAD { named(&Method::GET) } else { None })
            .or_else(|| self.any.as_ref().filter(|_| !matches!(*method, Method::TRACE | Method::CONNECT)))
    }

    fn allow_header(&self) -> String {
        if self.any.is_some() {
            return "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS".to_owned();
        }
        let mut names: Vec<&str> = self.methods.iter().map(|(method, _)| method.as_str()).collect();
        if names.contains(&"GET") && !names.contains(&"HEAD") {
            names.push("HEAD");
        }
        names.sort_unstable();
        names.join(", ")
    }

    fn first_index(&self) -> Option<usize> {
        self.methods.first().map(|(_, rule)| rule.index).or_else(|| self.any.as_ref().map(|rule| rule.index))
    }
}

#[cfg(test)]
#[path = "route_table_tests.rs"]
mod tests;
