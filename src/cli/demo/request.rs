//! One request to try, as it is written down and sent.

use std::collections::BTreeMap;

use serde::Serialize;

use super::world::city_tenant;
use crate::domain::ErrorCode;

/// One line of the document's `requests`.
#[derive(Debug, Serialize)]
pub(super) struct Request {
    pub(super) what: &'static str,
    pub(super) method: &'static str,
    /// As it is sent, byte for byte.
    pub(super) path: String,
    pub(super) headers: BTreeMap<&'static str, String>,
    /// As it is sent, or null.
    pub(super) body: Option<&'static str>,
    pub(super) expect_status: u16,
    pub(super) expect_code: Option<&'static str>,
}

/// A request that expects 200 unless it is told otherwise.
pub(super) type Draft = Request;

pub(super) fn get(what: &'static str, path: impl Into<String>) -> Draft {
    Draft::new(what, "GET", path)
}

pub(super) fn post(what: &'static str, path: &str, body: &'static str) -> Draft {
    let mut draft = Draft::new(what, "POST", path).header("Content-Type", "application/json");
    draft.body = Some(body);
    draft
}

pub(super) fn patch(what: &'static str, path: &str, body: &'static str) -> Draft {
    Draft { method: "PATCH", ..post(what, path, body) }
}

impl Request {
    pub(super) fn new(what: &'static str, method: &'static str, path: impl Into<String>) -> Self {
        let headers = BTreeMap::new();
        Self { what, method, path: path.into(), headers, body: None, expect_status: 200, expect_code: None }
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.to_owned());
        self
    }

    pub(super) fn by(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    pub(super) fn active(self, tenant: &str) -> Self {
        self.header("X-Active-Tenant-Id", tenant)
    }

    /// `active` by the tenant's place in the list of cities.
    pub(super) fn at(self, place: usize) -> Self {
        self.active(&city_tenant(place))
    }

    pub(super) fn expect(mut self, status: u16, code: Option<ErrorCode>) -> Self {
        self.expect_status = status;
        self.expect_code = code.map(ErrorCode::as_str);
        self
    }
}
