//! One pass over an answer that keeps what pointers lead to, as the text it was written with, and skips the rest.
//!
//! Numbers stay text until a field's unit is known, so none is ever rounded through a binary fraction. A list of rows is
//! handed out row by row while it is read.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::pointer::Pointer;

/// What pointers led to, by slot.
pub(super) type Slots<'de> = Vec<Option<&'de RawValue>>;

/// Which parts of a value are kept, and where.
#[derive(Clone, Debug, Default)]
pub(super) struct Projection {
    root: Node,
    slots: usize,
}

#[derive(Clone, Debug, Default)]
struct Node {
    slot: Option<usize>,
    /// The rows are the elements of this list.
    rows: bool,
    below: Vec<(Box<str>, Node)>,
}

/// Takes the rows as they are read; an error ends the reading.
pub(super) type TakeRow<'de, 't> = dyn FnMut(&'de RawValue) -> Result<(), Stop> + 't;

/// The taker wants no more: it has its reason already.
pub(super) struct Stop;

impl Projection {
    /// Keeps what the pointer leads to; gives its slot. The same pointer has one slot.
    pub(super) fn keep(&mut self, pointer: &Pointer) -> usize {
        let next = self.slots;
        let slot = *self.root.at(pointer).slot.get_or_insert(next);
        self.slots = self.slots.max(slot + 1);
        slot
    }

    /// The list whose elements are rows.
    pub(super) fn rows_at(&mut self, pointer: &Pointer) {
        self.root.at(pointer).rows = true;
    }

    /// Reads a whole text. `false` where a list of rows was expected and none was there.
    pub(super) fn read<'de>(
        &self,
        text: &'de str,
        slots: &mut Slots<'de>,
        rows: &mut TakeRow<'de, '_>,
    ) -> Result<bool, serde_json::Error> {
        slots.clear();
        slots.resize(self.slots, None);
        let mut found = false;
        let mut from = serde_json::Deserializer::from_str(text);
        Keep { node: &self.root, slots, rows, found: &mut found }.deserialize(&mut from)?;
        from.end()?;
        Ok(found)
    }

    /// Reads one value without rows.
    pub(super) fn read_value<'de>(&self, text: &'de str, slots: &mut Slots<'de>) -> Result<(), serde_json::Error> {
        self.read(text, slots, &mut |_| Ok(())).map(|_| ())
    }
}

impl Node {
    fn at(&mut self, pointer: &Pointer) -> &mut Self {
        pointer.steps().iter().fold(self, |node, step| {
            let at = node.below.iter().position(|(name, _)| name == step);
            let at = at.unwrap_or_else(|| {
                node.below.push((step.clone(), Self::default()));
                node.below.len() - 1
            });
            #[expect(clippy::indexing_slicing, reason = "found or pushed just now")]
            &mut node.below[at].1
        })
    }

    fn child(&self, name: &str) -> Option<&Self> {
        self.below.iter().find(|(known, _)| &**known == name).map(|(_, node)| node)
    }
}

struct Keep<'a, 'de, 't> {
    node: &'a Node,
    slots: &'a mut Slots<'de>,
    rows: &'a mut TakeRow<'de, 't>,
    found: &'a mut bool,
}

impl<'de> DeserializeSeed<'de> for Keep<'_, 'de, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        let Some(slot) = self.node.slot else { return from.deserialize_any(self) };
        let raw = <&RawValue>::deserialize(from)?;
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(raw);
        }
        if self.node.below.is_empty() && !self.node.rows {
            return Ok(());
        }
        serde_json::Deserializer::from_str(raw.get()).deserialize_any(self).map_err(D::Error::custom)
    }
}

macro_rules! nothing_below {
    ($($name:ident($type:ty)),+) => {$(
        fn $name<E>(self, _: $type) -> Result<(), E> {
            Ok(())
        }
    )+};
}

impl<'de> Visitor<'de> for Keep<'_, 'de, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    // A scalar where a way goes on: the pointers below it lead nowhere.
    nothing_below!(visit_bool(bool), visit_i64(i64), visit_u64(u64), visit_f64(f64), visit_str(&str));

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = 0_u128;
        while let Some(at) = map.next_key_seed(Name(self.node))? {
            let Some((at, (_, node))) = at.and_then(|at| Some((at, self.node.below.get(at)?))) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            // Two parsers may take either of two values: neither is believed.
            let bit = 1_u128.checked_shl(u32::try_from(at).unwrap_or(u32::MAX)).unwrap_or(0);
            if seen & bit != 0 {
                return Err(A::Error::custom("a key stands twice"));
            }
            seen |= bit;
            map.next_value_seed(Keep { node, slots: self.slots, rows: self.rows, found: self.found })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if self.node.rows {
            *self.found = true;
            while list.next_element_seed(EachRow(&mut *self.rows))?.is_some() {}
            return Ok(());
        }
        // The last element is known when none comes after it: each takes the place of the one before.
        let last = self.node.child("-");
        for index in 0_usize.. {
            let node = if self.node.below.is_empty() { None } else { self.node.child(&index.to_string()).or(last) };
            let more = match node {
                Some(node) => {
                    let keep = Keep { node, slots: self.slots, rows: self.rows, found: self.found };
                    list.next_element_seed(keep)?.is_some()
                }
                None => list.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }
}

/// Which entry below the node a key names.
struct Name<'p>(&'p Node);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.below.iter().position(|(known, _)| &**known == name))
    }
}

struct EachRow<'a, 'de, 't>(&'a mut TakeRow<'de, 't>);

impl<'de> DeserializeSeed<'de> for EachRow<'_, 'de, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        let raw = <&RawValue>::deserialize(from)?;
        (self.0)(raw).map_err(|Stop| D::Error::custom("stopped"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-zé\"]{0,3}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[ab01]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// The one pass finds what the library's own pointers find in the whole tree, however pointers overlap.
        #[test]
        fn it_finds_what_pointers_find(value in json(), pointers in prop::collection::vec("(/[ab01]){0,4}", 1..5)) {
            let text = value.to_string();
            let mut projection = Projection::default();
            let found: Vec<usize> =
                pointers.iter().map(|pointer| projection.keep(&Pointer::parse(pointer).unwrap())).collect();
            let mut slots = Slots::new();
            projection.read_value(&text, &mut slots).unwrap();
            for (pointer, slot) in pointers.iter().zip(found) {
                let kept: Option<Value> = slots[slot].map(|raw| serde_json::from_str(raw.get()).unwrap());
                prop_assert_eq!(kept.as_ref(), value.pointer(pointer), "{} in {}", pointer, text);
            }
        }

        /// Whatever comes is read or refused.
        #[test]
        fn it_takes_any_bytes(text in ".{0,60}", pointers in prop::collection::vec("(/[ab0-]){0,3}", 1..4)) {
            let mut projection = Projection::default();
            for pointer in &pointers {
                projection.keep(&Pointer::parse(pointer).unwrap());
            }
            let is_json = serde_json::from_str::<Value>(&text).is_ok();
            let read = projection.read_value(&text, &mut Slots::new()).is_ok();
            prop_assert!(!read || is_json, "{}", text);
        }
    }

    fn kept(pointers: &[&str], text: &str) -> Result<Vec<Option<String>>, String> {
        let mut projection = Projection::default();
        for pointer in pointers {
            projection.keep(&Pointer::parse(pointer).unwrap());
        }
        let mut slots = Slots::new();
        projection.read_value(text, &mut slots).map_err(|error| error.to_string())?;
        Ok(slots.iter().map(|slot| slot.map(|raw| raw.get().to_owned())).collect())
    }

    #[test]
    fn keeps_the_text_of_what_pointers_lead_to() {
        let text = r#"{"a": {"b": 0.10, "x": [1]}, "list": [{"n": 1}, {"n": 2}], "big": 12345678901234567890.5, "t": "\u00e9"}"#;
        let found = kept(&["/a/b", "/list/0/n", "/list/-/n", "/big", "/a", "/none", "/a/b/c", "/t"], text).unwrap();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            found,
            [
                some("0.10"),
                some("1"),
                some("2"),
                some("12345678901234567890.5"),
                some(r#"{"b": 0.10, "x": [1]}"#),
                None,
                None,
                some(r#""\u00e9""#)
            ]
        );
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_not_read() {
        assert!(kept(&["/a"], r#"{"a": 1, "a": 2}"#).is_err());
        assert!(kept(&["/a"], r#"{"b": 1, "b": 2}"#).is_ok(), "nobody reads it");
        for broken in ["", "{", r#"{"a": 1} x"#, "<html>", r#"{"a": 01}"#] {
            assert!(kept(&["/a"], broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn rows_come_one_by_one() {
        let mut projection = Projection::default();
        projection.rows_at(&Pointer::parse("/items").unwrap());
        let total = projection.keep(&Pointer::parse("/total").unwrap());
        let (mut rows, mut slots) = (Vec::new(), Slots::new());
        let text = r#"{"items": [{"a": 1}, {"a": 2}], "total": 2}"#;
        let found = projection.read(text, &mut slots, &mut |raw| {
            rows.push(raw.get().to_owned());
            Ok(())
        });
        assert!(found.unwrap());
        assert_eq!(rows, [r#"{"a": 1}"#, r#"{"a": 2}"#]);
        assert_eq!(slots[total].unwrap().get(), "2");
        assert!(!projection.read(r#"{"items": null}"#, &mut slots, &mut |_| Ok(())).unwrap());
    }
}
