//! The configuration reference, made from the JSON Schema. `LINKGATE_UPDATE_README=1` writes it into the page.

use std::{collections::HashMap, fmt::Write, fs};

use linkgate::config;
use serde_json::Value;

use super::page;

const BEGIN: &str = "<!-- reference: begin -->";
const END: &str = "<!-- reference: end -->";

pub(crate) fn compare() {
    let schema: Value = serde_json::from_str(&config::json_schema()).unwrap();
    let (mut made, mut told) = (String::new(), Told::new());
    for (name, property) in schema["properties"].as_object().unwrap() {
        let (definition, kind) = target(&schema, property).unwrap();
        let heading = match kind {
            Kind::One => format!("[{name}]"),
            Kind::Named => format!("[{name}.NAME]"),
            Kind::Many => format!("[[{name}]]"),
        };
        section(&schema, &heading, definition, &mut told, &mut made);
    }
    assert!(made.matches("\n| `").count() > 90);
    let is_whole = |row: &&str| row.ends_with(" |") && row.replace("\\|", "").matches('|').count() == 4;
    let broken = made.lines().filter(|line| line.starts_with("| ")).find(|row| !is_whole(row));
    assert_eq!(broken, None, "a row of the reference is not three cells");
    made.insert(0, '\n');
    if page::between(BEGIN, END) == made {
        return;
    }
    if std::env::var_os("LINKGATE_UPDATE_README").is_none() {
        panic!("the reference is not up to date: run this test with LINKGATE_UPDATE_README=1\n{made}");
    }
    let text = fs::read_to_string(page::path()).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    fs::write(page::path(), format!("{before}{BEGIN}\n{made}{END}{after}")).unwrap();
}

enum Kind {
    One,
    /// A table of tables, by the operator's names.
    Named,
    /// A list of tables.
    Many,
}

/// The structure behind a property; `None` for a plain value.
fn target<'a>(schema: &'a Value, property: &'a Value) -> Option<(&'a Value, Kind)> {
    let structure = |value: &Value| {
        let name = value["$ref"].as_str()?.strip_prefix("#/$defs/")?;
        let definition = &schema["$defs"][name];
        definition.get("properties").is_some().then_some(definition)
    };
    let optional = property["anyOf"].as_array().and_then(|any| any.iter().find_map(structure));
    let one = structure(property).or(optional).map(|found| (found, Kind::One));
    one.or_else(|| Some((structure(&property["additionalProperties"])?, Kind::Named)))
        .or_else(|| Some((structure(&property["items"])?, Kind::Many)))
}

/// The heading under which a structure was told: each is told once.
type Told = HashMap<*const Value, String>;

fn section(schema: &Value, heading: &str, definition: &Value, told: &mut Told, made: &mut String) {
    told.insert(definition, heading.to_owned());
    let about = definition["description"].as_str().unwrap();
    let _ = writeln!(made, "**`{heading}`** {about}\n\n| key | default | meaning |\n| --- | --- | --- |");
    let properties = definition["properties"].as_object().unwrap();
    for (key, property) in properties {
        let mut meaning = property["description"].as_str().unwrap().to_owned();
        let words = words(schema, property);
        if !words.is_empty() {
            let how = if property["type"] == "array" { "Any" } else { "One" };
            let _ = write!(meaning, " {how} of {}.", words.join(", "));
        }
        let default = match target(schema, property) {
            Some((inner, _)) => match told.get(&std::ptr::from_ref(inner)) {
                Some(heading) => format!("as `{heading}`"),
                None => "see below".to_owned(),
            },
            None => default(&property["default"]),
        };
        // Either would end the cell or the row.
        let meaning = meaning.replace('\n', " ").replace('|', "\\|");
        let _ = writeln!(made, "| `{key}` | {default} | {meaning} |");
    }
    made.push('\n');
    for (key, property) in properties {
        if let Some((inner, kind)) = target(schema, property)
            && !told.contains_key(&std::ptr::from_ref(inner))
        {
            let heading = heading.split(" = ").next().unwrap_or(heading);
            let heading = heading.trim_start_matches('[').trim_end_matches(']');
            let heading = match kind {
                Kind::Many => format!("{heading}.{key} = [{{ … }}]"),
                Kind::One | Kind::Named => format!("[{heading}.{key}]"),
            };
            section(schema, &heading, inner, told, made);
        }
    }
}

fn default(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() => format!("`{text}`"),
        Value::Bool(_) | Value::Number(_) => format!("`{value}`"),
        Value::Array(items) if !items.is_empty() => format!("`{value}`"),
        _ => "–".to_owned(),
    }
}

/// The words that a property takes, where they are listed; with their meanings, where those are told.
fn words(schema: &Value, property: &Value) -> Vec<String> {
    let any = property["anyOf"].as_array().into_iter().flatten();
    let definition = |one: &Value| Some(&schema["$defs"][one["$ref"].as_str()?.strip_prefix("#/$defs/")?]);
    let Some(definition) = any.chain([property, &property["items"]]).find_map(definition) else { return Vec::new() };
    let plain = definition["enum"].as_array().into_iter().flatten().map(|word| format!("`{}`", word.as_str().unwrap()));
    let told = definition["oneOf"].as_array().into_iter().flatten().map(|one| {
        let about = one["description"].as_str().unwrap().trim_end_matches('.');
        let about = about.chars().take(1).flat_map(char::to_lowercase).chain(about.chars().skip(1));
        format!("`{}` ({})", one["const"].as_str().unwrap(), about.collect::<String>())
    });
    plain.chain(told).collect()
}
