//! What `gateway_rig` reads the journal with.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value, json};

pub fn lines(dir: &Path) -> Vec<Value> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    files.sort();
    let texts: Vec<String> = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    texts.iter().flat_map(|text| text.lines()).filter_map(|line| serde_json::from_str(line).ok()).collect()
}

pub fn exported(dir: &Path) -> Vec<Value> {
    let mut records: BTreeMap<String, Value> = BTreeMap::new();
    for line in lines(dir) {
        let mut fields = line["pub"].as_object().unwrap().clone();
        fields.extend(line["priv"].as_object().unwrap().clone());
        let Some(id) = fields.get("id").and_then(Value::as_str).map(str::to_owned) else { continue };
        records.entry(id).or_insert_with(|| json!({})).as_object_mut().unwrap().extend(fields);
    }
    records.into_values().collect()
}
