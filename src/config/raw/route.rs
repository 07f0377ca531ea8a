//! The raw mirror of a route.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    audit::RawDurability,
    form::{raw, words},
};
use crate::config::scalar::{DurationText, SizeText};

raw! {
    /// One rule of the route table.
    struct RawRoute {
        /// Upper-case methods, or `["*"]` for any but TRACE and CONNECT.
        methods: Vec<String> = Vec::new(),
        /// Such as `/tickets/{ticket_id}`; `{tenant_id}` names the tenant; `{*rest}` takes all that follows.
        path: String = String::new(),
        /// The permission it needs; or else `access`.
        permission: Option<String> = None,
        /// Who may use it where no permission is named.
        access: Option<RawAccess> = None,
        /// Name of the upstream; none for `deny`.
        upstream: Option<String> = None,
        /// Not set: from the permission's kind, else from the methods.
        class: Option<RawClass> = None,
        /// Not set: `audit.reads` or `audit.writes` by class.
        durability: Option<RawDurability> = None,
        /// Longest request body.
        max_body: SizeText = SizeText::of("10MiB"),
        /// From the request's head to the response's head. Not set: the upstream's.
        response_timeout: Option<DurationText> = None,
        /// From the request's head to the end of the response. Not set: as long as it lasts.
        total_timeout: Option<DurationText> = None,
        /// JSON pointers that a request body must not hold, such as `/tenant_id`; names in any case.
        refuse_body_fields: Vec<String> = Vec::new(),
        /// Keep what the upstream says to caches (`Cache-Control` and its kin). `Vary` names the tenant and the credential all the same.
        keep_cache_control: bool = false,
    }
}

words! {
    /// Who may use a route that names no permission.
    enum RawAccess {
        /// The own tenant only.
        Home = "home",
        /// Anyone; neither token nor tenant is read.
        Public = "public",
        /// Nobody.
        Deny = "deny",
    }

    /// Class of a route.
    enum RawClass { Read = "read", Write = "write", Export = "export", }
}
