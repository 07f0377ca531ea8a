//! From what is asked to a request: method, target, body. Nothing is sent here.

use bytes::Bytes;
use http::Method;

use super::{
    settings::{Resource, Witness},
    template::{UnfitForPath, Values, query},
};

/// A request without headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub method: Method,
    pub path: String,
    /// With its question mark; may be empty.
    pub query: String,
    pub body: Option<Bytes>,
}

impl Outgoing {
    /// Path and query as they stand in the request line.
    pub fn target(&self) -> String {
        format!("{}{}", self.path, self.query)
    }
}

impl Resource {
    pub fn request(&self, values: &Values) -> Result<Outgoing, UnfitForPath> {
        let body = self.body.as_ref().map(|body| Bytes::from(body.fill(values).to_string()));
        Ok(Outgoing {
            method: self.method.clone(),
            path: self.path.fill(values)?,
            query: query(&self.query, values),
            body,
        })
    }
}

impl Witness {
    pub fn request(&self, values: &Values) -> Result<Outgoing, UnfitForPath> {
        Ok(Outgoing {
            method: Method::GET,
            path: self.path.fill(values)?,
            query: query(&self.query, values),
            body: None,
        })
    }
}
