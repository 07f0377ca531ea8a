//! Shipped connectors laid under what the file says, key by key, before its meaning is read.

use serde_json::{Map, Value};

use super::tree;
use crate::connector::presets;

/// Fills the connectors that name a preset. A list or a value of the file replaces the preset's; a table adds to it.
pub(super) fn lay_under(config: &mut Value) {
    let connectors = config.get_mut("connectors").and_then(Value::as_object_mut);
    for connector in connectors.into_iter().flat_map(Map::values_mut) {
        let text = connector.get("preset").and_then(Value::as_str).and_then(presets::text);
        if let Some(text) = text {
            let (preset, _) = tree::parse(text, None);
            let written = std::mem::replace(connector, preset.to_json());
            lay_over(connector, written);
        }
    }
}

fn lay_over(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                lay_over(below.entry(key).or_insert(Value::Null), value);
            }
        }
        (below, above) => *below = above,
    }
}
