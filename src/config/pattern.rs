//! The path pattern of one route: `/api/v1/tickets/{ticket_id}`, `/files/{*rest}`.
//!
//! A pattern is matched against the raw, percent-encoded bytes of a path, segment by segment: the path that is decided
//! is the path that is forwarded, so nothing is decoded here. Three kinds of segment: a literal, a parameter `{name}`
//! (one segment, not empty), and, only at the end, a tail `{*name}` (all that follows, even nothing after the slash).
//! The trailing slash is significant: `/tickets/` is a segment `tickets` and an empty last one.
//!
//! Literals hold only characters that a path may hold raw and that can be written in no other way (unreserved and most
//! sub-delimiters), because a path that spells them otherwise is refused as ambiguous before it comes here.

use std::fmt;

/// Most segments of a pattern; paths may be longer, a tail takes the rest.
pub const MAX_SEGMENTS: usize = 32;

/// One segment of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// These bytes; empty only as the last segment, which is a trailing slash.
    Literal(Box<str>),
    /// Any one segment that is not empty.
    Param(Box<str>),
    /// All that follows the slash, slashes included.
    Tail(Box<str>),
}

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    segments: Box<[Segment]>,
}

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("a path begins with `/`")]
    NoSlash,
    #[error("an empty segment (`//`) can never match: such paths are refused as ambiguous")]
    EmptySegment,
    #[error("the segment `{0}` can never match: dot segments are refused as ambiguous")]
    DotSegment(String),
    #[error(
        "the segment `{segment}` holds `{found}`: a literal is written in A-Z a-z 0-9 and - . _ ~ ! $ & ' ( ) * + , = : @"
    )]
    Character { segment: String, found: char },
    #[error("the segment `{0}` mixes text and braces: a parameter is a whole segment, such as `{{name}}`")]
    Mixed(String),
    #[error("the parameter name `{0}` is not of the form [a-z][a-z0-9_]*")]
    Name(String),
    #[error("the parameter `{0}` stands twice")]
    Repeated(String),
    #[error("`{{*{0}}}` takes all that follows and must be the last segment")]
    TailNotLast(String),
    #[error("more than {MAX_SEGMENTS} segments")]
    TooLong,
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let rest = text.strip_prefix('/').ok_or(PatternError::NoSlash)?;
        let pieces: Vec<&str> = rest.split('/').collect();
        if pieces.len() > MAX_SEGMENTS {
            return Err(PatternError::TooLong);
        }
        let last = pieces.len().saturating_sub(1);
        let mut segments: Vec<Segment> = Vec::with_capacity(pieces.len());
        for (at, piece) in pieces.into_iter().enumerate() {
            let segment = parse_segment(piece, at == last)?;
            if let Some(name) = segment.name()
                && segments.iter().any(|earlier| earlier.name() == Some(name))
            {
                return Err(PatternError::Repeated(name.to_owned()));
            }
            segments.push(segment);
        }
        Ok(Self { segments: segments.into() })
    }

    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Names of the parameters, from left to right.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(Segment::name)
    }

    /// Whether every segment is a literal, so that the pattern is one exact path.
    pub fn is_exact(&self) -> bool {
        self.segments.iter().all(|segment| matches!(segment, Segment::Literal(_)))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.segments.iter().try_for_each(|segment| match segment {
            Segment::Literal(text) => write!(f, "/{text}"),
            Segment::Param(name) => write!(f, "/{{{name}}}"),
            Segment::Tail(name) => write!(f, "/{{*{name}}}"),
        })
    }
}

impl Segment {
    /// The parameter's name; `None` for a literal.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Param(name) | Self::Tail(name) => Some(name),
        }
    }
}

fn parse_segment(piece: &str, is_last: bool) -> Result<Segment, PatternError> {
    if piece.is_empty() {
        return if is_last { Ok(Segment::Literal("".into())) } else { Err(PatternError::EmptySegment) };
    }
    if matches!(piece, "." | "..") {
        return Err(PatternError::DotSegment(piece.to_owned()));
    }
    if !piece.contains(['{', '}']) {
        return match piece.chars().find(|c| !is_literal(*c)) {
            Some(found) => Err(PatternError::Character { segment: piece.to_owned(), found }),
            None => Ok(Segment::Literal(piece.into())),
        };
    }
    let inner = piece
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .filter(|inner| !inner.contains(['{', '}']))
        .ok_or_else(|| PatternError::Mixed(piece.to_owned()))?;
    match inner.strip_prefix('*') {
        Some(name) if !is_last => Err(PatternError::TailNotLast(name.to_owned())),
        Some(name) => check_name(name).map(Segment::Tail),
        None => check_name(inner).map(Segment::Param),
    }
}

fn check_name(name: &str) -> Result<Box<str>, PatternError> {
    let mut bytes = name.bytes();
    let fits = bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if fits { Ok(name.into()) } else { Err(PatternError::Name(name.to_owned())) }
}

/// Unreserved characters, and those of `pchar` that need no encoding; not `;`, which the gateway refuses in paths.
fn is_literal(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~!$&'()*+,=:@".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_parses_prints_as_it_was_written() {
        for text in [
            "/",
            "/tickets/",
            "/tickets/{ticket_id}",
            "/t/{tenant_id}/files/{*rest}",
            "/{*rest}",
            "/a/b@c:d/x.y~z",
            "/{a}/{b}/",
        ] {
            assert_eq!(Pattern::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn every_malformed_pattern_has_its_own_reason() {
        for (text, expected) in [
            ("", PatternError::NoSlash),
            ("tickets", PatternError::NoSlash),
            ("//", PatternError::EmptySegment),
            ("/a//b", PatternError::EmptySegment),
            ("/a/../b", PatternError::DotSegment("..".into())),
            ("/a/.", PatternError::DotSegment(".".into())),
            ("/a%20b", PatternError::Character { segment: "a%20b".into(), found: '%' }),
            ("/a;b", PatternError::Character { segment: "a;b".into(), found: ';' }),
            ("/ä", PatternError::Character { segment: "ä".into(), found: 'ä' }),
            ("/a?b", PatternError::Character { segment: "a?b".into(), found: '?' }),
            ("/{id}.json", PatternError::Mixed("{id}.json".into())),
            ("/{a}{b}", PatternError::Mixed("{a}{b}".into())),
            ("/{id", PatternError::Mixed("{id".into())),
            ("/{}", PatternError::Name(String::new())),
            ("/{Id}", PatternError::Name("Id".into())),
            ("/{9}", PatternError::Name("9".into())),
            ("/{a}/{a}", PatternError::Repeated("a".into())),
            ("/{*rest}/x", PatternError::TailNotLast("rest".into())),
            ("/{*}", PatternError::Name(String::new())),
        ] {
            assert_eq!(Pattern::parse(text), Err(expected), "{text}");
        }
        assert_eq!(Pattern::parse(&"/a".repeat(MAX_SEGMENTS + 1)), Err(PatternError::TooLong));
    }
}
