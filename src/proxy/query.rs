//! Drops `tenant_id` and `partner_id` from a forwarded query: upstreams of this family take the tenant from them.
//!
//! Names are compared after one percent-decoding, in any case, every occurrence; all else goes on byte for byte.

use std::borrow::Cow;

use super::path::decode_once;

const DROPPED: [&str; 2] = ["tenant_id", "partner_id"];

/// The query without the dropped parameters; `None` where nothing is left.
pub fn cleaned(query: &str) -> Option<Cow<'_, str>> {
    if query.is_empty() {
        return None;
    }
    // `;` is a separator to some parsers, so a name behind one counts too: then the whole pair goes.
    if !query.split('&').any(is_dropped) {
        return Some(Cow::Borrowed(query));
    }
    let kept: Vec<&str> = query.split('&').filter(|pair| !is_dropped(pair)).collect();
    if kept.is_empty() { None } else { Some(Cow::Owned(kept.join("&"))) }
}

/// The names of the dropped parameters, each once and as it is spelled: for a proxy that drops them itself. `None` where one
/// hides behind another's name, so that no name would drop it alone.
pub fn dropped_names(query: &str) -> Option<Vec<&str>> {
    let mut names: Vec<&str> = Vec::new();
    for pair in query.split('&').filter(|pair| is_dropped(pair)) {
        if pair.contains(';') {
            return None;
        }
        let name = pair.split('=').next().unwrap_or(pair);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Some(names)
}

fn is_dropped(pair: &str) -> bool {
    pair.split(';').any(|part| {
        let name = part.split('=').next().unwrap_or(part);
        // Shorter ones are the common case; longer ones may be padded by what a parser trims.
        if name.len() < 9 {
            return false;
        }
        let plain = name.replace('+', " ");
        decode_once(&plain).is_some_and(|name| {
            // PHP-like and array spellings (`tenant_id[]`) and padding mean the same parameter to some frameworks.
            let name = name.trim();
            let name = name.split('[').next().unwrap_or(name).trim();
            DROPPED.iter().any(|dropped| name.eq_ignore_ascii_case(dropped))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_every_spelling_and_keeps_the_rest() {
        for (query, expected) in [
            ("tenant_id=a", None),
            ("a=1&tenant_id=b&c=2", Some("a=1&c=2")),
            ("TENANT_ID=b&partner_id=c&x", Some("x")),
            ("%74enant_id=b&a=1", Some("a=1")),
            ("tenant%5Fid=b&a=1", Some("a=1")),
            ("tenant_id[]=b&a=1", Some("a=1")),
            ("tenant_id&a=1", Some("a=1")),
            ("a=1;tenant_id=2&b=3", Some("b=3")),
            ("+tenant_id=2&b=3", Some("b=3")),
            ("%20%20%20%20%20%20%20%20%20%20%20%20%20%20%20%20%20%20tenant_id=2&b=3", Some("b=3")),
            ("tenant_ids=1&my_tenant_id=2", Some("tenant_ids=1&my_tenant_id=2")),
            ("tenant%255Fid=b", Some("tenant%255Fid=b")),
            ("a=tenant_id", Some("a=tenant_id")),
            ("", None),
        ] {
            assert_eq!(cleaned(query).as_deref(), expected, "{query}");
        }
    }
}
