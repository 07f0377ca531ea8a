//! The floors of the architecture page, held against the `use crate::` lines of the sources.

#![expect(clippy::unwrap_used, clippy::string_slice, reason = "helpers of tests: what fails here fails the test")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Room, floor. A file imports only from lower floors, or from its own room. `sample` stands beside them.
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

/// Stands for services of others: knows nothing of linkgate, and only the demo knows of it.
const BESIDE: &str = "sample";

/// Files of `src` itself.
const ROOT: [&str; 3] = ["contract.md", "lib.rs", "main.rs"];

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
        let text = fs::read_to_string(&file).unwrap();
        if own == BESIDE {
            let others: Vec<_> = named(&text).into_iter().filter(|(room, _)| room != BESIDE).collect();
            assert!(others.is_empty(), "{} imports {others:?}", file.display());
        }
        let Some(own_floor) = floor(&own) else { continue };
        for (room, rest) in named(&text) {
            assert!(room != BESIDE || own == "cli", "{} imports crate::{BESIDE}", file.display());
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

/// Without its comments, which may name what the code must not.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Whether the code names this crate, in a `use` line or in a path.
fn names(code: &str, banned: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(banned).any(|(at, _)| {
        let (before, behind) = (&code[..at], &code[at + banned.len()..]);
        !before.ends_with(is_word)
            && (behind.starts_with("::") || (before.ends_with("use ") && !behind.starts_with(is_word)))
    })
}

#[test]
fn every_room_has_its_floor() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let found: BTreeSet<String> = fs::read_dir(&src)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !ROOT.contains(&name.as_str()))
        .collect();
    let listed: BTreeSet<String> = FLOORS.iter().map(|(room, _)| (*room).to_owned()).chain([BESIDE.into()]).collect();
    assert_eq!(found, listed, "a folder or file of src stands on no floor, or a floor lists what is not there");
}

#[test]
fn the_domain_knows_no_runtime_no_socket_and_no_engine() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/domain");
    for file in sources(&src) {
        let code = code(&file);
        for banned in ["tokio", "http", "hyper", "sqlx", "cedar_policy", "std::fs"] {
            assert!(!names(&code, banned), "{} names {banned}", file.display());
        }
    }
}

#[test]
fn a_crate_is_found_wherever_it_is_named() {
    for code in ["use tokio;", "use tokio::time;", "fn f() -> tokio::time::Instant {", "let at = (tokio::time::now)()"]
    {
        assert!(names(code, "tokio"), "{code}");
    }
    for code in ["use my_tokio::time;", "let tokio = 1;", "use tokio_util;"] {
        assert!(!names(code, "tokio"), "{code}");
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
