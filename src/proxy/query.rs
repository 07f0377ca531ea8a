//! Drops `tenant_id` and `partner_id` from a forwarded query: upstreams of this family take the tenant from them.
//!
//! Names are compared after one percent-decoding, in any case, every occurrence, and as any reader could take them
//! (`spelling`); all else goes on byte for byte.

use std::borrow::Cow;

use super::{path::hex, spelling::reads_as};

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
        if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return DROPPED.iter().any(|dropped| name.eq_ignore_ascii_case(dropped));
        }
        let (decoded, broken_at) = decoded(name);
        // Where it cannot be decoded, one reader takes the rest as it stands, another one leaves it out or ends there.
        let whole = decoded.utf8_chunks().map(|chunk| chunk.valid()).collect::<String>();
        let before =
            decoded.get(..broken_at).unwrap_or_default().utf8_chunks().next().map_or("", |chunk| chunk.valid());
        DROPPED.iter().any(|dropped| reads_as(&whole, dropped) || reads_as(before, dropped))
    })
}

/// Decoded once. What is no escape stays as it is; the first such place is told, or the end.
fn decoded(name: &str) -> (Vec<u8>, usize) {
    let mut out = Vec::with_capacity(name.len());
    let mut broken_at = None;
    let mut rest = name.as_bytes();
    while let [byte, behind @ ..] = rest {
        rest = behind;
        let escaped = match behind {
            [high, low, after @ ..] if *byte == b'%' => hex(*high).zip(hex(*low)).map(|escaped| (escaped, after)),
            _ => None,
        };
        if let Some(((high, low), after)) = escaped {
            out.push(high << 4 | low);
            rest = after;
            continue;
        }
        if *byte == b'%' {
            broken_at.get_or_insert(out.len());
        }
        out.push(if *byte == b'+' { b' ' } else { *byte });
    }
    let end = broken_at.unwrap_or(out.len());
    (out, end)
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
            // As PHP folds names, and where readers differ on what cannot be decoded.
            ("tenant.id=b&a=1", Some("a=1")),
            ("tenant+id=b&tenant%20id=c&a=1", Some("a=1")),
            ("tenant[id=b&tenant%5Bid=c&a=1", Some("a=1")),
            ("tenant_id%00=b&tenant_id%00x=c&a=1", Some("a=1")),
            ("tenant_id[%]=b&partner%5Fid[%]=c&a=1", Some("a=1")),
            ("tenant_id%=b&tenant_id%zz=c&%74enant_id%f=d&a=1", Some("a=1")),
            ("tenant_id%ff=b&tenant_%ffid=c&a=1", Some("a=1")),
            ("tenant_%C4%B1d=b&a=1", Some("a=1")),
            ("tenant[id]=1&tenant_ids%=2&a%00tenant_id=3", Some("tenant[id]=1&tenant_ids%=2&a%00tenant_id=3")),
            ("%=1&%%%%%%%%%%=2&a_long_name%2=3", Some("%=1&%%%%%%%%%%=2&a_long_name%2=3")),
            ("", None),
        ] {
            assert_eq!(cleaned(query).as_deref(), expected, "{query}");
        }
    }
}
