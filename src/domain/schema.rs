//! How ids, instants and permissions look in a JSON Schema: as the text that they are written as.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{DecisionId, LinkId, Millis, PartnerId, Permission, PermissionSet, TenantId};

macro_rules! text {
    ($($name:ident: $schema:tt),+ $(,)?) => {$(
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )+};
}

text! {
    TenantId: {"type": "string", "minLength": 1, "maxLength": 255},
    PartnerId: {"type": "string", "format": "uuid"},
    DecisionId: {"type": "string", "format": "uuid"},
    LinkId: {"type": "string", "format": "uuid"},
    Millis: {"type": "string", "format": "date-time"},
    Permission: {"type": "string"},
    PermissionSet: {"type": "array", "items": {"type": "string"}},
}
