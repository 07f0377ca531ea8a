//! JSON in which no object repeats a key: the first and the last of two are both somebody's reading. And objects that are
//! objects: a list in the place of one would be read by the order of fields that nobody ever wrote down.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};
use serde_json::{Map, Value};

/// Any JSON value without repeated keys, at any depth.
#[derive(Clone, Debug, PartialEq)]
pub struct StrictJson(pub Value);

impl<'de> Deserialize<'de> for StrictJson {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AnyVisitor).map(Self)
    }
}

struct AnyVisitor;

impl<'de> Visitor<'de> for AnyVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated keys")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(StrictJson(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(all.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let StrictJson(value) = entries.next_value()?;
            if all.contains_key(&key) {
                return Err(A::Error::custom(format_args!("repeated key `{key}`")));
            }
            all.insert(key, value);
        }
        Ok(all.into())
    }
}

/// A map whose text repeats no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueKeys<T>(pub BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for UniqueKeys<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(UniqueVisitor(PhantomData)).map(Self)
    }
}

struct UniqueVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for UniqueVisitor<T> {
    type Value = BTreeMap<String, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object without repeated keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut all = BTreeMap::new();
        while let Some((key, value)) = entries.next_entry::<String, T>()? {
            if all.contains_key(&key) {
                return Err(A::Error::custom(format_args!("repeated key `{key}`")));
            }
            all.insert(key, value);
        }
        Ok(all)
    }
}

/// A struct that is written as an object; serde alone would take a list as well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_keys_are_refused_at_every_depth_and_in_every_spelling() {
        for bad in [r#"{"a":1,"a":2}"#, r#"{"x":[{"a":1,"\u0061":2}]}"#, r#"{"a":1"#, "\u{feff}{}", "{} {}"] {
            assert!(serde_json::from_slice::<StrictJson>(bad.as_bytes()).is_err(), "{bad}");
        }
        let good = r#"{"a":[1,-2,3.5,true,null,"x"],"b":{"a":1}}"#;
        let StrictJson(value) = serde_json::from_str(good).unwrap();
        assert_eq!(value.pointer("/b/a").unwrap(), 1);
        assert!(serde_json::from_str::<UniqueKeys<bool>>(r#"{"a":true,"a":false}"#).is_err());
        assert_eq!(serde_json::from_str::<UniqueKeys<bool>>(r#"{"a":true}"#).unwrap().0.len(), 1);
    }

    #[test]
    fn a_list_is_no_object() {
        #[derive(Debug, Default, PartialEq, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct Row<'a> {
            name: &'a str,
            below: Option<Box<Object<Row<'a>>>>,
        }
        assert_eq!(serde_json::from_str::<Row<'_>>(r#"["a"]"#).unwrap().name, "a", "what serde alone does");
        let read = |text| serde_json::from_str::<Object<Row<'_>>>(text).map_err(|error| error.to_string());
        for bad in [r#"["a"]"#, "[]", r#"{"below":["b"]}"#, r#"{"nam":"a"}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read("[]").unwrap_err().contains("expected a JSON object at line 1"), "{:?}", read("[]"));
        let Object(row) = read(r#"{"name":"a","below":{"name":"b"}}"#).unwrap();
        assert_eq!((row.name, row.below.unwrap().0.name), ("a", "b"));
    }

    #[test]
    fn an_escaped_name_is_the_same_name() {
        let StrictJson(value) = serde_json::from_slice(br#"{"tenant\u005fid":"x"}"#).unwrap();
        assert!(value.pointer("/tenant_id").is_some());
    }
}
