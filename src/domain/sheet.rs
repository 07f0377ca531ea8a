//! Text that a spreadsheet opens: what it would run as a formula is made text by an apostrophe in front.
//!
//! For every CSV that people get: exports of the consolidated API, reports of the command line. Amounts and other values
//! that the gateway writes itself do not pass here: a negative number must stay one.
//!
//! A spreadsheet whose country writes lists with `;` cuts our lines there: the quotes around a text hold them together only
//! where they open a cell, so each part that such a cut would make a cell is looked at, not the first alone.

use std::borrow::Cow;

/// What might begin a formula; full-width forms count too.
const FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// Where a spreadsheet may begin another cell though we mean none.
const CUTS: [char; 4] = [';', '\t', '\r', '\n'];

/// Whether a spreadsheet might take the text for a formula, by its first character.
pub fn is_formula(text: &str) -> bool {
    text.starts_with(FORMULA)
}

/// The text as a cell may hold it.
pub fn harmless(text: &str) -> Cow<'_, str> {
    if !is_formula(text) && !text.contains(CUTS) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 2);
    // A quote behind a cut is written twice, which there is an empty text in front of the rest.
    let mut begins = true;
    for c in text.chars() {
        let blank = CUTS.contains(&c) && !out.is_empty();
        if begins && !blank && FORMULA.contains(&c) {
            out.push('\'');
        }
        begins = CUTS.contains(&c) || begins && c == '"' && !out.is_empty();
        out.push(c);
    }
    Cow::Owned(out)
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

    #[test]
    fn a_cut_at_a_semicolon_makes_no_formula_either() {
        for (text, safe) in [
            ("x;=cmd()", "x;'=cmd()"),
            ("x;;+1;\t@a", "x;;'+1;\t'@a"),
            ("x;\"=1", "x;\"'=1"),
            ("two\r\n=lines", "two\r\n'=lines"),
            ("=1;=2", "'=1;'=2"),
        ] {
            assert_eq!(harmless(text), safe);
        }
        for text in ["a; b; c=1", "a;b", "two\r\nlines", "x; -", "say \"=\""] {
            assert_eq!(harmless(text), text);
        }
    }
}
