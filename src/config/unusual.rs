//! Methods of rules that clients hardly send. Any name is allowed, and a slip makes a rule that nobody reaches.

use super::{Config, errors::nearest};

/// The registered methods (IANA) that a rule can name, in lower case.
const REGISTERED: [&str; 38] = [
    "acl",
    "baseline-control",
    "bind",
    "checkin",
    "checkout",
    "copy",
    "delete",
    "get",
    "head",
    "label",
    "link",
    "lock",
    "merge",
    "mkactivity",
    "mkcalendar",
    "mkcol",
    "mkredirectref",
    "mkworkspace",
    "move",
    "options",
    "orderpatch",
    "patch",
    "post",
    "propfind",
    "proppatch",
    "put",
    "query",
    "rebind",
    "report",
    "search",
    "unbind",
    "uncheckout",
    "unlink",
    "unlock",
    "update",
    "updateredirectref",
    "version-control",
    // Registered nowhere, and understood by most caches.
    "purge",
];

impl Config {
    /// A warning for each rule's method that is none of the usual ones.
    pub fn unusual_methods(&self) -> Vec<String> {
        let named = self.routes.iter().flat_map(|route| route.methods.iter().map(move |method| (route.line, method)));
        named.filter_map(|(line, method)| warning(line, method)).collect()
    }
}

fn warning(line: usize, method: &str) -> Option<String> {
    let lower = method.to_ascii_lowercase();
    if method == "*" || REGISTERED.contains(&&*lower) {
        return None;
    }
    let meant = nearest(&lower, REGISTERED.into_iter()).map(str::to_ascii_uppercase);
    let meant = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
    Some(format!("the route in line {line} of the configuration: `{method}` is no registered HTTP method{meant}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_told_and_methods_are_not() {
        for (method, told) in [
            ("GTE", "`GTE` is no registered HTTP method; did you mean `GET`?"),
            ("DELTE", "`DELTE` is no registered HTTP method; did you mean `DELETE`?"),
            ("ANNOUNCEMENT", "`ANNOUNCEMENT` is no registered HTTP method"),
        ] {
            assert_eq!(warning(7, method).unwrap(), format!("the route in line 7 of the configuration: {told}"));
        }
        for method in ["*", "GET", "PATCH", "PROPFIND", "VERSION-CONTROL", "PURGE"] {
            assert_eq!(warning(7, method), None);
        }
    }
}
