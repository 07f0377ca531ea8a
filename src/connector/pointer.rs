//! JSON pointers (RFC 6901), parsed once. A step `-` is the last element of a list: the newest message, say.

use std::{fmt, sync::Arc};

/// A way into an answer. The empty one is the answer itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Pointer {
    text: Arc<str>,
    steps: Arc<[Box<str>]>,
}

/// The text is no pointer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no JSON pointer: write `/` before each name, such as `/revenue_metrics/mrr`")]
pub struct InvalidPointer(String);

impl Pointer {
    pub fn parse(text: &str) -> Result<Self, InvalidPointer> {
        let wrong = || InvalidPointer(text.to_owned());
        let steps = match text.strip_prefix('/') {
            None if text.is_empty() => Vec::new(),
            None => return Err(wrong()),
            Some(rest) => rest.split('/').map(unescape).collect::<Option<_>>().ok_or_else(wrong)?,
        };
        Ok(Self { text: text.into(), steps: steps.into() })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn steps(&self) -> &[Box<str>] {
        &self.steps
    }

    /// The same way, begun at another place.
    pub(super) fn below(&self, base: &Self) -> Self {
        Self {
            text: format!("{}{}", base.text, self.text).into(),
            steps: base.steps.iter().chain(self.steps.iter()).cloned().collect(),
        }
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pointer({})", self.text)
    }
}

/// `~1` is a slash, `~0` a tilde; any other tilde is wrong.
fn unescape(step: &str) -> Option<Box<str>> {
    let mut parts = step.split('~');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (letter, rest) = match (part.strip_prefix('0'), part.strip_prefix('1')) {
            (Some(rest), _) => ('~', rest),
            (_, Some(rest)) => ('/', rest),
            (None, None) => return None,
        };
        text.push(letter);
        text.push_str(rest);
    }
    Some(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_those_of_the_standard() {
        let steps =
            |text: &str| Pointer::parse(text).unwrap().steps().iter().map(|s| s.to_string()).collect::<Vec<_>>();
        assert!(steps("").is_empty());
        assert_eq!(steps("/a~1b/~01/-/0/"), ["a/b", "~1", "-", "0", ""]);
        for wrong in ["a", "a/b", "/~", "/~2", "#/a"] {
            assert!(Pointer::parse(wrong).is_err(), "{wrong}");
        }
    }
}
