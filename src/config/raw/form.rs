//! How the parts of the mirror are declared: a struct with its defaults, an enum with its words.

use serde::Serialize;

macro_rules! raw {
    ($($(#[$doc:meta])* struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)* })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub(in crate::config) struct $name { $($(#[$field_doc])* pub(in crate::config) $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    )+};
}

macro_rules! words {
    ($($(#[$doc:meta])* enum $name:ident { $($(#[$word_doc:meta])* $word:ident = $text:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub(in crate::config) enum $name { $($(#[$word_doc])* #[serde(rename = $text)] $word,)+ }
    )+};
}

pub(super) use {raw, words};

/// The word as it stands in the file.
pub(in crate::config) fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
