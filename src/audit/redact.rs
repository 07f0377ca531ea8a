//! Query values never enter the journal: they may be tokens, names or addresses.
//!
//! Names stay, because they tell what was asked for. Applied by `encode` to every path that is written, so that no
//! caller can forget it.

/// The path as it is, each query value as `_`. A part without `=` might be a value as well and becomes `_` too.
/// Applying it twice changes nothing.
pub fn redact_path_and_query(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    redact_each(path, |piece| out.push_str(piece));
    out
}

/// The same, piece by piece, for a writer that allocates nothing.
pub(super) fn redact_each(path: &str, mut piece: impl FnMut(&str)) {
    let Some((path, query)) = path.split_once('?') else {
        piece(path);
        return;
    };
    piece(path);
    piece("?");
    for (at, part) in query.split('&').enumerate() {
        if at > 0 {
            piece("&");
        }
        match part.split_once('=') {
            Some((name, "")) => {
                piece(name);
                piece("=");
            }
            Some((name, _)) => {
                piece(name);
                piece("=_");
            }
            None if part.is_empty() => {}
            None => piece("_"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_and_values_go() {
        for (path, redacted) in [
            ("/a/b", "/a/b"),
            ("/a?", "/a?"),
            ("/a?x=1", "/a?x=_"),
            ("/a?x=1&y=a=b&z=&eyJhbGciOi", "/a?x=_&y=_&z=&_"),
            ("/a?x=1?y=2&&q=%20", "/a?x=_&&q=_"),
        ] {
            assert_eq!(redact_path_and_query(path), redacted);
            assert_eq!(redact_path_and_query(redacted), redacted, "twice");
        }
    }
}
