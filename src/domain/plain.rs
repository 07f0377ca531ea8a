//! Text that people read: what in it would write on their screen, or turn its words round.
//!
//! Two sides of one rule. Where text comes in it is refused ([`fault`]); where it is shown, whatever its source, it is made
//! [`plain`]: rows of older versions, tokens and other people's files have seen no refusal.

/// What turns the direction of the text behind it: names shown beside one can trade places.
pub fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// What no terminal may be given: controls (C0, DEL, C1) and those of direction.
fn is_unfit(c: char) -> bool {
    c.is_control() || is_bidi_control(c)
}

fn replaced(text: &str, unfit: impl Fn(char) -> bool) -> String {
    text.chars().map(|c| if unfit(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// One value as a terminal may show it, on one line.
pub fn plain(text: &str) -> String {
    replaced(text, is_unfit)
}

/// A whole page that the program laid out: its line ends and tabs stay.
pub fn plain_page(text: &str) -> String {
    replaced(text, |c| is_unfit(c) && !matches!(c, '\n' | '\t'))
}

/// Why a name may not be written so.
pub fn fault(text: &str) -> Option<&'static str> {
    if text.chars().any(char::is_control) {
        Some("holds a control character")
    } else if text.chars().any(is_bidi_control) {
        Some("holds a character that turns the direction of text (U+061C, U+200E, U+200F, U+202A-202E, U+2066-2069)")
    } else {
        None
    }
}

/// Why a text of several lines may not be written so; it may have tabs, and lines that end as Unix or Windows ends them.
pub fn fault_of_lines(text: &str) -> Option<&'static str> {
    let rest = text.replace("\r\n", "\n");
    let unfit = rest.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t'));
    unfit.then_some("holds a control character other than line ends and tabs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_a_cursor_or_turns_words_is_shown() {
        for c in ['\0', '\u{7}', '\u{1b}', '\u{7f}', '\u{9b}', '\r', '\u{61c}', '\u{200e}', '\u{202e}', '\u{2068}'] {
            let text = format!("a{c}b");
            assert_eq!((plain(&text).as_str(), plain_page(&text).as_str()), ("a\u{fffd}b", "a\u{fffd}b"), "{c:?}");
        }
        assert_eq!(plain("a\nb\tc"), "a\u{fffd}b\u{fffd}c");
        assert_eq!(plain_page("a\nb\tc"), "a\nb\tc");
        // Joiners and marks that words are written with are no controls.
        for text in ["שלום, עולם", "می\u{200c}خواهم", "👩\u{200d}🚀 Ünï", "a -> b"] {
            assert_eq!((plain(text).as_str(), fault(text)), (text, None));
        }
    }

    #[test]
    fn a_fault_says_what_is_wrong() {
        assert!(fault("a\u{1b}[2J").unwrap().contains("control character"));
        assert!(fault("a\nb").unwrap().contains("control character"));
        assert!(fault("a\u{202e}b").unwrap().contains("direction"));
        assert_eq!(fault_of_lines("one\r\n\ttwo\nthree \u{202e}"), None);
        for text in ["a\rb", "a\u{1b}", "a\0", "a\u{9b}"] {
            assert!(fault_of_lines(text).is_some(), "{text:?}");
        }
    }
}
