//! Path and query as they are forwarded: byte for byte, less what names another tenant.

use http::{Uri, uri::PathAndQuery};

use super::{query, respond::Failure};
use crate::domain::ErrorCode;

/// Path and query as they are forwarded.
#[derive(Debug)]
pub struct Target(Uri);

impl Target {
    /// Drops the query parameters by which upstreams would take another tenant.
    pub fn of(uri: &Uri) -> Result<Self, Failure> {
        let unfit = || Failure::new(ErrorCode::BadRequest, "target");
        let target = uri.path_and_query().filter(|target| has_path(target)).ok_or_else(unfit)?;
        let Some(asked) = target.query().filter(|query| !query.is_empty()) else {
            // Without a query, or with an empty one, the bytes go on as they are.
            return Ok(Self(Uri::from(target.clone())));
        };
        let text = match query::cleaned(asked) {
            Some(kept) if kept.len() == asked.len() => return Ok(Self(Uri::from(target.clone()))),
            Some(kept) => format!("{}?{kept}", target.path()),
            None => target.path().to_owned(),
        };
        text.parse().map(Self).map_err(|_| unfit())
    }

    pub fn into_uri(self) -> Uri {
        self.0
    }

    pub fn path(&self) -> &str {
        self.0.path()
    }

    pub fn query(&self) -> &str {
        self.0.query().unwrap_or_default()
    }
}

/// Whether a path is there. The parser shows an empty one as `/`, and it would be written as nothing at all.
pub fn has_path(target: &PathAndQuery) -> bool {
    match target.as_str() {
        "/" => *target == PathAndQuery::from_static("/"),
        shown => shown.starts_with('/'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_goes_on_byte_for_byte_and_tenant_parameters_do_not() {
        for (asked, expected) in [
            ("/a/%C3%BC?x=%20", "/a/%C3%BC?x=%20"),
            ("/a?tenant_id=b", "/a"),
            ("/a?x=1&PARTNER_ID=b&y", "/a?x=1&y"),
            ("/a?", "/a?"),
        ] {
            let target = Target::of(&asked.parse().unwrap()).unwrap();
            assert_eq!(target.into_uri().to_string(), expected);
        }
        for bad in ["?a=1", "*", "#", "#x"] {
            let uri = Uri::from(bad.parse::<PathAndQuery>().unwrap());
            assert!(Target::of(&uri).is_err(), "{bad}");
        }
        assert_eq!(Target::of(&"http://a".parse().unwrap()).unwrap().into_uri(), "/");
        assert!(Target::of(&"http://a?b".parse().unwrap()).is_err());
    }
}
