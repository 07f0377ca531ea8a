//! Text that a spreadsheet opens: what it would run as a formula is made text by an apostrophe in front.
//!
//! For every CSV that people get: exports of the consolidated API, reports of the command line. Amounts and other values
//! that the gateway writes itself do not pass here: a negative number must stay one.

use std::borrow::Cow;

/// Whether a spreadsheet might take the text for a formula, by its first character; full-width forms count too.
pub fn is_formula(text: &str) -> bool {
    text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'])
}

/// The text as a cell may hold it.
pub fn harmless(text: &str) -> Cow<'_, str> {
    if is_formula(text) { Cow::Owned(format!("'{text}")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_no_formula() {
        for text in ["=cmd()", "+1", "-1", "@x", "\tx", "\rx", "\nx", "＝1"] {
            assert_eq!(harmless(text), format!("'{text}"));
        }
        for text in ["", "deny -> allow", "a=1", "שלום", "'=1"] {
            assert_eq!(harmless(text), text);
        }
    }
}
