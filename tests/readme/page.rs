//! The page taken apart: fenced blocks, and outputs with placeholders.

use std::fs;

/// Anything within a line, or any number of lines.
const ANYTHING: &str = "…";

/// One fenced block.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) info: String,
    pub(crate) text: String,
    /// Where its first line stands.
    pub(crate) line: usize,
    /// The `text` block right behind it.
    pub(crate) output: Option<String>,
}

pub(crate) fn page() -> &'static str {
    include_str!("../../README.md")
}

pub(crate) fn path() -> String {
    format!("{}/README.md", env!("CARGO_MANIFEST_DIR"))
}

/// What stands between two lines of the file as it is now.
pub(crate) fn between(begin: &str, end: &str) -> String {
    let text = fs::read_to_string(path()).unwrap();
    let (_, rest) = text.split_once(&format!("{begin}\n")).unwrap();
    rest.split_once(&format!("{end}\n")).unwrap().0.to_owned()
}

pub(crate) fn all() -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut open: Option<Block> = None;
    // Whether only empty lines stand between the last block and this line.
    let mut adjacent = false;
    for (number, line) in (1..).zip(page().lines()) {
        match (&mut open, line.strip_prefix("```")) {
            (Some(block), None) => block.text += &format!("{line}\n"),
            (Some(_), Some("")) => {
                let block = open.take().unwrap();
                if let Some(before) = found.last_mut().filter(|_| adjacent && block.info == "text") {
                    before.output = Some(block.text.clone());
                }
                found.push(block);
                adjacent = true;
            }
            (Some(_), Some(info)) => panic!("README.md:{number}: `{info}` within a block"),
            (None, Some(info)) => {
                open = Some(Block { info: info.to_owned(), text: String::new(), line: number + 1, output: None });
            }
            (None, None) => adjacent &= line.is_empty(),
        }
    }
    assert!(open.is_none(), "a block has no end");
    found
}

/// Blocks whose info string is this, or begins with it where it is one word.
pub(crate) fn blocks(info: &str) -> Vec<Block> {
    let whole = info.contains(' ');
    let fits = |block: &Block| block.info == info || !whole && block.info.split(' ').next() == Some(info);
    all().into_iter().filter(fits).collect()
}

/// What differs; `None`: nothing.
pub(crate) fn differs(expected: &str, actual: &str) -> Option<String> {
    let expected: Vec<&str> = expected.lines().map(str::trim_end).collect();
    let actual: Vec<&str> = actual.lines().map(str::trim_end).collect();
    if lines(&expected, &actual) {
        return None;
    }
    // The longest beginning that fits points to the line that does not.
    let fits = |count: usize| lines(&[&expected[..count], &[ANYTHING]].concat(), &actual);
    let told = (0..=expected.len()).rev().find(|count| fits(*count)).unwrap_or(0);
    Some(match expected.get(told) {
        Some(line) => format!("the output has no line `{line}` where it is expected"),
        None => "the output goes on where the page ends".to_owned(),
    })
}

fn lines(expected: &[&str], actual: &[&str]) -> bool {
    match (expected, actual) {
        ([], rest) => rest.is_empty(),
        ([first, others @ ..], _) if *first == ANYTHING => {
            (0..=actual.len()).any(|skipped| lines(others, &actual[skipped..]))
        }
        ([first, others @ ..], [line, rest @ ..]) => within(first, line) && lines(others, rest),
        ([_, ..], []) => false,
    }
}

fn within(expected: &str, line: &str) -> bool {
    match expected.split_once(ANYTHING) {
        None => expected == line,
        Some((start, rest)) => line.strip_prefix(start).is_some_and(|tail| {
            tail.char_indices().map(|(at, _)| at).chain([tail.len()]).any(|at| within(rest, &tail[at..]))
        }),
    }
}

#[test]
fn placeholders_stand_for_what_they_say_and_no_more() {
    assert_eq!(differs("a … c\n…\nz\n", "a b c\nx\ny\nz\n"), None);
    assert_eq!(differs("…\nz\n", "z\n"), None);
    for (expected, actual) in
        [("a … c\n", "a b d\n"), ("a\n", "a\nb\n"), ("a\nb\n", "a\n"), ("", "a\n"), ("…\nb\n", "a\n"), ("a …\n", "x\n")]
    {
        assert!(differs(expected, actual).is_some(), "{expected:?} is not {actual:?}");
    }
}
