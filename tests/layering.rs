//! The floors of the architecture page, held against the `use crate::` lines of the sources.

#![expect(clippy::unwrap_used, clippy::string_slice, reason = "helpers of tests: what fails here fails the test")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Room, floor. A file imports only from lower floors, or from its own room.
const FLOORS: &[(&str, u8)] = &[
    ("domain", 0),
    ("tls", 0),
    ("collector", 0),
    ("identity", 1),
    ("policy", 1),
    ("audit", 1),
    ("upstream", 1),
    ("limit", 1),
    ("connector", 1),
    ("spans", 1),
    ("store", 2),
    ("config", 2),
    ("portal", 3),
    ("proxy", 4),
    ("ops", 4),
    ("server", 5),
    ("app", 6),
    ("cli", 7),
];

/// Where a higher floor needs no more than another room's settings, that is what it names.
const SETTINGS: &str = "settings";

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}

/// Every `crate::room` that a file names, in `use` lines, nested groups and paths; each with what follows the room.
fn named(text: &str) -> BTreeSet<(String, String)> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 1;
            let mut entry = String::new();
            for letter in group.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 || (depth == 1 && letter == ',') {
                    found.extend(split(entry.trim()));
                    entry.clear();
                    if depth == 0 {
                        break;
                    }
                } else {
                    entry.push(letter);
                }
            }
        } else {
            found.extend(split(rest));
        }
    }
    found
}

fn split(path: &str) -> Option<(String, String)> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let room = word(path);
    let rest = path.get(room.len()..)?.strip_prefix("::").map(word).unwrap_or_default();
    (!room.is_empty()).then_some((room, rest))
}

#[test]
fn files_import_only_from_lower_floors() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in sources(&src) {
        let own = file.strip_prefix(&src).unwrap().iter().next().unwrap().to_str().unwrap().to_owned();
        let Some(own_floor) = floor(&own) else { continue };
        for (room, rest) in named(&fs::read_to_string(&file).unwrap()) {
            let Some(other) = floor(&room) else { continue };
            seen += 1;
            let settings_only = own == "store" && room == "config" && rest == SETTINGS;
            if room != own && other >= own_floor && !settings_only {
                wrong.push(format!(
                    "{} (floor {own_floor}) imports crate::{room}::{rest} (floor {other})",
                    file.display()
                ));
            }
        }
    }
    assert!(seen > 100, "the reader of imports found only {seen}: it is broken");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_domain_knows_no_runtime_no_socket_and_no_engine() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/domain");
    for file in sources(&src) {
        let text = fs::read_to_string(&file).unwrap();
        for banned in ["tokio", "http::", "hyper", "sqlx", "cedar_policy"] {
            assert!(!text.contains(&format!("use {banned}")), "{} uses {banned}", file.display());
        }
    }
}

#[test]
fn every_file_says_what_it_is_for_and_none_is_a_wall() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in sources(&src) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//!"), "{} opens without a word of what it is for", file.display());
        let lines = text.lines().count();
        assert!(lines <= 500, "{} has {lines} lines: a module is asking to be born", file.display());
    }
}
