//! Tests of the route table: the rules by example, and by comparison with a matcher that tries every rule.

use proptest::prelude::*;

use super::*;
use crate::{
    audit::settings::Durability,
    config::settings::{Access, RouteClass},
};

fn route(line: usize, methods: &[&str], path: &str) -> RouteSettings {
    RouteSettings {
        methods: methods.iter().map(|method| (*method).to_owned()).collect(),
        path: path.to_owned(),
        access: Access::Home,
        upstream: Some("one".to_owned()),
        class: RouteClass::Read,
        durability: Durability::Os,
        max_body_bytes: 0,
        response_timeout: None,
        total_timeout: None,
        refuse_body_fields: Vec::new(),
        keep_cache_control: false,
        line,
    }
}

fn table(rules: &[(&[&str], &str)]) -> RouteTable {
    let routes: Vec<_> = rules.iter().enumerate().map(|(at, (methods, path))| route(at + 1, methods, path)).collect();
    RouteTable::compile(&routes).unwrap()
}

fn conflicts(rules: &[(&[&str], &str)]) -> Vec<String> {
    let routes: Vec<_> = rules.iter().enumerate().map(|(at, (methods, path))| route(at + 1, methods, path)).collect();
    let found = RouteTable::compile(&routes).unwrap_err();
    found.iter().map(|conflict| format!("{}: {conflict}", conflict.line())).collect()
}

/// `index name=value ...`, `405 allow` or `404`.
fn look(table: &RouteTable, method: Method, path: &str) -> String {
    match table.find(&method, path) {
        Found::Route { index, params } => {
            params.iter().fold(index.to_string(), |text, (name, value)| format!("{text} {name}={value}"))
        }
        Found::MethodNotAllowed { allow } => format!("405 {allow}"),
        Found::NotFound => "404".to_owned(),
    }
}

#[test]
fn a_table_of_paths_and_the_rules_that_take_them() {
    let table = table(&[
        (&["GET"], "/tickets/"),               // 0
        (&["GET", "PATCH"], "/tickets/{id}"),  // 1
        (&["GET"], "/tickets/stats"),          // 2
        (&["POST"], "/tickets/{id}/messages"), // 3
        (&["GET"], "/files/{*rest}"),          // 4
        (&["DELETE"], "/files/{name}"),        // 5
        (&["*"], "/any"),                      // 6
        (&["GET"], "/t/{tenant_id}/a/{b}"),    // 7
        (&["GET"], "/t/x/a/y"),                // 8
        (&["GET"], "/t/x/{*rest}"),            // 9
        (&["HEAD"], "/t/x/a/y"),               // 10
        (&["GET"], "/"),                       // 11
        (&["PROPFIND"], "/dav"),               // 12
    ]);
    for (method, path, expected) in [
        (Method::GET, "/tickets/", "0"),
        (Method::GET, "/tickets", "404"),
        (Method::GET, "/tickets/42", "1 id=42"),
        (Method::GET, "/tickets/a%2Fb", "1 id=a%2Fb"),
        (Method::GET, "/tickets/42/", "404"),
        (Method::PATCH, "/tickets/42", "1 id=42"),
        (Method::PATCH, "/tickets/stats", "405 GET, HEAD"),
        (Method::GET, "/tickets/stats", "2"),
        (Method::HEAD, "/tickets/stats", "2"),
        (Method::DELETE, "/tickets/42", "405 GET, HEAD, PATCH"),
        (Method::POST, "/tickets/42/messages", "3 id=42"),
        (Method::HEAD, "/tickets/42/messages", "405 POST"),
        (Method::GET, "/files/a/b/c", "4 rest=a/b/c"),
        (Method::GET, "/files/a/", "4 rest=a/"),
        (Method::GET, "/files/", "4 rest="),
        (Method::GET, "/files", "404"),
        // The more specific path serves only DELETE: 405, though the tail would take GET.
        (Method::GET, "/files/a", "405 DELETE"),
        (Method::DELETE, "/files/a", "5 name=a"),
        (Method::DELETE, "/files/a/b", "405 GET, HEAD"),
        (Method::PATCH, "/any", "6"),
        (Method::HEAD, "/any", "6"),
        (Method::TRACE, "/any", "405 GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        (Method::CONNECT, "/any", "405 GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        (Method::GET, "/t/x/a/y", "8"),
        (Method::HEAD, "/t/x/a/y", "10"),
        // The literal `x` is preferred at the first difference, so its tail wins over the longer pattern.
        (Method::GET, "/t/x/a/z", "9 rest=a/z"),
        (Method::GET, "/t/w/a/z", "7 tenant_id=w b=z"),
        (Method::GET, "/t//a/z", "404"),
        (Method::GET, "/", "11"),
        (Method::GET, "", "404"),
        (Method::GET, "tickets/", "404"),
        (Method::GET, "*", "404"),
        (Method::from_bytes(b"PROPFIND").unwrap(), "/dav", "12"),
        (Method::GET, "/dav", "405 PROPFIND"),
        (Method::GET, "/TICKETS/", "404"),
    ] {
        assert_eq!(look(&table, method.clone(), path), expected, "{method} {path}");
    }
}

#[test]
fn a_literal_that_leads_nowhere_gives_way_to_the_parameter() {
    let table = table(&[(&["GET"], "/a/b/c"), (&["GET"], "/a/{x}/d"), (&["GET"], "/a/{x}/{y}/{*rest}")]);
    assert_eq!(look(&table, Method::GET, "/a/b/d"), "1 x=b");
    assert_eq!(look(&table, Method::GET, "/a/b/c/d"), "2 x=b y=c rest=d");
    assert_eq!(look(&table, Method::GET, "/a/b/e"), "404");
}

#[test]
fn more_than_eight_literals_are_found_too() {
    let paths: Vec<String> = (0..40).map(|at| format!("/{{v}}/s{at}/x")).collect();
    let routes: Vec<_> = paths.iter().enumerate().map(|(at, path)| route(at + 1, &["GET"], path)).collect();
    let table = RouteTable::compile(&routes).unwrap();
    for at in 0..40 {
        assert_eq!(look(&table, Method::GET, &format!("/1/s{at}/x")), format!("{at} v=1"));
    }
    assert_eq!(look(&table, Method::GET, "/1/s40/x"), "404");
}

#[test]
fn conflicts_are_reported_all_at_once_with_both_lines() {
    let found = conflicts(&[
        (&["GET", "POST"], "/a/{x}"),
        (&["POST", "PUT"], "/a/{y}"),
        (&["*"], "/b"),
        (&["GET"], "/b"),
        (&["GET"], "/c//d"),
        (&["TRACE"], "/e"),
        (&["get"], "/f"),
        (&[], "/g"),
        (&["GET", "*"], "/h"),
        (&["HEAD"], "/i"),
        (&["GET"], "/i"),
    ]);
    insta::assert_snapshot!(found.join("\n"));
}

#[test]
fn a_tail_hidden_by_more_specific_rules_is_reported() {
    let found =
        conflicts(&[(&["GET"], "/a/{*all}"), (&["GET"], "/a/"), (&["GET"], "/a/{x}"), (&["POST"], "/a/{x}/{*rest}")]);
    assert_eq!(
        found,
        ["1: `/a/{*all}` is unreachable: more specific rules, the last in line 4, take every path it matches"]
    );
    // Without the rule for the bare slash, the tail still has that one path.
    table(&[(&["GET"], "/a/{*all}"), (&["GET"], "/a/{x}"), (&["POST"], "/a/{x}/{*rest}")]);
}

/// Tries every rule in turn and keeps the most specific that matches: the definition, without a tree.
fn naive(rules: &[(Vec<&'static str>, Pattern)], method: &str, path: &str) -> String {
    let segments: Vec<&str> = path.strip_prefix('/').unwrap().split('/').collect();
    let mut best: Option<(Vec<u8>, Vec<usize>, Vec<String>)> = None;
    for (at, (_, pattern)) in rules.iter().enumerate() {
        let mut rank = Vec::new();
        let mut values = Vec::new();
        let mut place = 0;
        let mut fits = true;
        for segment in pattern.segments() {
            match (segment, segments.get(place)) {
                (Segment::Tail(name), Some(_)) => {
                    rank.push(2);
                    values.push(format!("{name}={}", segments[place..].join("/")));
                    place = segments.len();
                    continue;
                }
                (Segment::Literal(text), Some(found)) if text.as_ref() == *found => rank.push(0),
                (Segment::Param(name), Some(found)) if !found.is_empty() => {
                    rank.push(1);
                    values.push(format!("{name}={found}"));
                }
                _ => fits = false,
            }
            place += 1;
        }
        if !fits || place != segments.len() {
            continue;
        }
        match &mut best {
            Some((known, _, _)) if *known < rank => {}
            Some((known, indices, _)) if *known == rank => indices.push(at),
            _ => best = Some((rank, vec![at], values)),
        }
    }
    let Some((_, indices, _)) = best else { return "404".to_owned() };
    let serving = |wanted: &str| indices.iter().copied().find(|at| rules[*at].0.contains(&wanted));
    let found = serving(method).or_else(|| if method == "HEAD" { serving("GET") } else { None });
    match found {
        Some(at) => {
            // Values by the names of the rule that serves.
            let (_, pattern) = &rules[at];
            let mut text = at.to_string();
            for (place, segment) in pattern.segments().iter().enumerate() {
                match segment {
                    Segment::Literal(_) => {}
                    Segment::Param(name) => text += &format!(" {name}={}", segments[place]),
                    Segment::Tail(name) => text += &format!(" {name}={}", segments[place..].join("/")),
                }
            }
            text
        }
        None => "405".to_owned(),
    }
}

fn any_pattern() -> impl Strategy<Value = String> {
    let segment = prop_oneof![3 => Just("a"), 3 => Just("b"), 2 => Just("{x}"), 1 => Just("c")];
    (prop::collection::vec(segment, 0..4), prop_oneof![4 => Just(""), 2 => Just("/"), 1 => Just("/{*t}")]).prop_map(
        |(segments, end)| {
            let mut text = String::new();
            for (at, segment) in segments.iter().enumerate() {
                text.push('/');
                // Each parameter gets a name of its own.
                text.push_str(&segment.replace('x', &format!("p{at}")));
            }
            text.push_str(end);
            if text.is_empty() { "/".to_owned() } else { text }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn find_agrees_with_trying_every_rule(
        patterns in prop::collection::vec((any_pattern(), prop::sample::subsequence(vec!["GET", "POST", "HEAD"], 1..=2)), 1..10),
        paths in prop::collection::vec("(/(a|b|c|d|)){1,5}", 1..20),
        method in prop::sample::select(vec![Method::GET, Method::HEAD, Method::POST, Method::DELETE]),
    ) {
        let routes: Vec<_> = patterns.iter().enumerate().map(|(at, (path, methods))| route(at + 1, methods, path)).collect();
        // Overlapping and hidden rules are refused; they are tested above.
        let Ok(table) = RouteTable::compile(&routes) else { return Ok(()) };
        let rules: Vec<_> =
            patterns.iter().map(|(path, methods)| (methods.clone(), Pattern::parse(path).unwrap())).collect();
        for path in &paths {
            let found = look(&table, method.clone(), path);
            let found = if found.starts_with("405") { "405".to_owned() } else { found };
            prop_assert_eq!(found, naive(&rules, method.as_str(), path), "{} {}", method, path);
        }
    }
}
