//! The configuration that `--print-default` prints: valid as it stands, every commented line valid, and every default
//! in it the one in force.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may stop")]

use std::path::Path;

use linkgate::config::{self, Config};

/// Lines ending in this have no default; they are tried one by one.
const EXAMPLE: &str = "# example";

fn load(text: &str) -> Result<Config, String> {
    config::load_text(text, Some("default.toml"), Path::new("/base"), []).map_err(|errors| errors.to_string())
}

/// The setting in a commented line, without the `#`.
fn commented(line: &str) -> Option<&str> {
    line.strip_prefix('#')
        .filter(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '"' | '[')))
}

fn is_example(line: &str) -> bool {
    line.trim_end().ends_with(EXAMPLE) || line.contains("# example in ")
}

#[test]
fn it_is_valid_as_printed_and_with_every_default_uncommented() {
    let printed = config::default_toml();
    let as_printed = load(&printed).unwrap();
    let all: Vec<&str> =
        printed.lines().map(|line| commented(line).filter(|_| !is_example(line)).unwrap_or(line)).collect();
    let uncommented = load(&all.join("\n")).unwrap();
    assert!(all.len() > 150);
    // The line numbers are the same, so the whole can be compared; `Debug` shows every field.
    assert_eq!(format!("{as_printed:#?}"), format!("{uncommented:#?}"));
}

#[test]
fn its_defaults_are_those_of_a_file_that_says_nothing() {
    let bare = r#"
        [issuers.main]
        issuer = "https://login.example"
        audiences = ["linkgate"]
        algorithms = ["ES256"]
        jwks_url = "https://login.example/.well-known/jwks.json"
        trusts = ["roles", "permissions"]
    "#;
    let (printed, bare) = (load(&config::default_toml()).unwrap(), load(bare).unwrap());
    for (a, b) in [
        (format!("{:?}", printed.listen), format!("{:?}", bare.listen)),
        (format!("{:?}", printed.health), format!("{:?}", bare.health)),
        (format!("{:?}", printed.database), format!("{:?}", bare.database)),
        (format!("{:?}", printed.links), format!("{:?}", bare.links)),
        (format!("{:?}", printed.identity), format!("{:?}", bare.identity)),
        (format!("{:?}", printed.policy), format!("{:?}", bare.policy)),
        (format!("{:?}", printed.audit), format!("{:?}", bare.audit)),
        (format!("{:?}", printed.checkpoints), format!("{:?}", bare.checkpoints)),
        (format!("{:?}", printed.limits), format!("{:?}", bare.limits)),
        (format!("{:?}", printed.headers), format!("{:?}", bare.headers)),
        (format!("{:?}", printed.log), format!("{:?}", bare.log)),
    ] {
        assert_eq!(a, b);
    }
}

#[test]
fn every_example_line_is_a_known_key_of_the_right_type() {
    let printed = config::default_toml();
    let lines: Vec<&str> = printed.lines().collect();
    let examples: Vec<usize> = (0..lines.len()).filter(|at| is_example(lines[*at])).collect();
    assert!(examples.len() > 15);
    for at in examples {
        let mut text: Vec<&str> = lines.clone();
        text[at] = commented(lines[at]).unwrap();
        if let Some((_, section)) = lines[at].split_once("# example in ") {
            let header = lines.iter().position(|line| line.starts_with(&format!("#[{}]", section.trim()))).unwrap();
            text[header] = commented(lines[header]).unwrap();
        }
        let errors = load(&text.join("\n")).err().unwrap_or_default();
        for wrong in ["unknown", "expected", "syntax"] {
            assert!(!errors.contains(wrong), "line {}: {}\n{errors}", at + 1, lines[at]);
        }
    }
}

#[test]
fn it_names_every_key_of_the_schema() {
    let schema: serde_json::Value = serde_json::from_str(&config::json_schema()).unwrap();
    let printed = config::default_toml();
    let mut keys = Vec::new();
    collect_keys(&schema, &mut keys);
    assert!(keys.len() > 90, "{}", keys.len());
    for key in keys {
        // Keys that are only for overrides are named in prose by their `_file` and `_env` forms.
        if ["postgres_url", "hs256_secret", "assertion_hmac", "secret", "key", "value"].contains(&key.as_str()) {
            continue;
        }
        let named = printed.lines().any(|line| {
            let line = commented(line).unwrap_or(line);
            line.starts_with(&format!("{key} ="))
                || line.contains(&format!("{key} = "))
                || line.starts_with('[') && line.contains(&key)
        });
        assert!(named, "the printed default does not name `{key}`");
    }
}

fn collect_keys(schema: &serde_json::Value, keys: &mut Vec<String>) {
    if let Some(properties) = schema.get("properties").and_then(|properties| properties.as_object()) {
        keys.extend(properties.keys().cloned());
    }
    if let Some(definitions) = schema.get("$defs").and_then(|definitions| definitions.as_object()) {
        definitions.values().for_each(|definition| collect_keys(definition, keys));
    }
}
