//! Text on a page: one font in two weights, measured and cut to its space.
//!
//! Characters are set one after the other with their advance widths, which serves Latin, Greek, Cyrillic and Hebrew;
//! right-to-left text stands in its visual order. Nothing is shaped: Arabic letters stand unjoined, in the right order.
//! A character that the font does not hold (Chinese, Japanese, Korean, the scripts of India) is a box, never nothing. The
//! CSV holds every name exactly.

use krilla::{
    geom::Point,
    surface::Surface,
    text::{Font, GlyphId, KrillaGlyph},
};
use skrifa::{
    FontRef, MetadataProvider,
    charmap::Charmap,
    instance::{LocationRef, Size},
    metrics::GlyphMetrics,
};

use unicode_bidi::BidiInfo;

use super::sheet::SheetError;

static REGULAR: &[u8] = include_bytes!("fonts/DejaVuSansCondensed.ttf");
static BOLD: &[u8] = include_bytes!("fonts/DejaVuSansCondensed-Bold.ttf");

/// What stands for a character that the font does not hold.
const MISSING: char = '\u{25a1}';
const ELLIPSIS: char = '\u{2026}';

/// One weight.
pub(super) struct Face {
    font: Font,
    charmap: Charmap<'static>,
    metrics: GlyphMetrics<'static>,
    units_per_em: f32,
}

/// Both weights.
pub(super) struct Faces {
    pub regular: Face,
    pub bold: Face,
}

impl Faces {
    pub(super) fn load() -> Result<Self, SheetError> {
        Ok(Self { regular: Face::load(REGULAR)?, bold: Face::load(BOLD)? })
    }
}

/// Where text stands in its space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// A line ready to be drawn.
struct Line {
    /// In the order in which it stands on the page, from left to right.
    text: String,
    glyphs: Vec<KrillaGlyph>,
    /// In ems.
    width: f32,
}

impl Face {
    fn load(data: &'static [u8]) -> Result<Self, SheetError> {
        let bad = || SheetError::Pdf("the built-in font cannot be read".to_owned());
        let font = Font::new(data.into(), 0).ok_or_else(bad)?;
        let face = FontRef::new(data).map_err(|_| bad())?;
        Ok(Self {
            units_per_em: font.units_per_em(),
            font,
            charmap: face.charmap(),
            metrics: face.glyph_metrics(Size::unscaled(), LocationRef::default()),
        })
    }

    /// The glyph of a character with its advance in ems.
    fn glyph(&self, character: char) -> (GlyphId, f32) {
        let id = self.charmap.map(character).or_else(|| self.charmap.map(MISSING)).unwrap_or_default();
        let advance = self.metrics.advance_width(id).unwrap_or_default() / self.units_per_em;
        (GlyphId::new(id.to_u32()), advance)
    }

    /// At most `room` ems of the text, with an ellipsis where some of it is cut off. What breaks a line is a space.
    fn line(&self, text: &str, room: f32) -> Line {
        let mut line = Line { text: String::new(), glyphs: Vec::new(), width: 0.0 };
        for character in visual(&self.fitting(text, room)).chars() {
            let (id, advance) = self.glyph(character);
            let start = line.text.len();
            line.text.push(character);
            line.glyphs.push(KrillaGlyph::new(id, advance, 0.0, 0.0, 0.0, start..line.text.len(), None));
            line.width += advance;
        }
        line
    }

    /// The beginning of the text that fits, in the order in which it is read.
    fn fitting(&self, text: &str, room: f32) -> String {
        let (mut fitting, mut width) = (String::new(), 0.0);
        let (_, dots) = self.glyph(ELLIPSIS);
        // Bytes of what still leaves room for the ellipsis.
        let mut with_dots = 0;
        for character in text.chars().map(|c| if breaks_line(c) { ' ' } else { c }).filter(|c| !is_invisible(*c)) {
            let (_, advance) = self.glyph(character);
            if width + advance > room {
                fitting.truncate(with_dots);
                fitting.push(ELLIPSIS);
                return fitting;
            }
            fitting.push(character);
            width += advance;
            if width + dots <= room {
                with_dots = fitting.len();
            }
        }
        fitting
    }

    /// Draws one line into `room` points from `left` on, its base line at `y`.
    #[expect(clippy::too_many_arguments, reason = "text, place, size and room: each is said at every call")]
    pub(super) fn draw(
        &self,
        surface: &mut Surface<'_>,
        text: &str,
        left: f32,
        y: f32,
        size: f32,
        room: f32,
        align: Align,
    ) {
        let line = self.line(text, room / size);
        if line.glyphs.is_empty() {
            return;
        }
        let x = match align {
            Align::Left => left,
            Align::Right => left + room - line.width * size,
        };
        surface.draw_glyphs(Point::from_xy(x, y), &line.glyphs, self.font.clone(), &line.text, size, false);
    }
}

/// One line's text in the order in which it stands on the page.
///
/// The directions that the text's own letters give decide (Unicode Bidirectional Algorithm); marks that a text brings
/// along to steer it were left out before, so that a name cannot turn what stands beside it.
fn visual(text: &str) -> String {
    // Nothing before Hebrew runs from right to left.
    if text.chars().all(|c| c < '\u{590}') {
        return text.to_owned();
    }
    let info = BidiInfo::new(text, None);
    let mut out = String::with_capacity(text.len());
    for paragraph in &info.paragraphs {
        let (levels, runs) = info.visual_runs(paragraph, paragraph.range.clone());
        for run in runs {
            let piece = text.get(run.clone()).unwrap_or_default();
            match levels.get(run.start).is_some_and(unicode_bidi::Level::is_rtl) {
                true => backwards(piece, &mut out),
                false => out.push_str(piece),
            }
        }
    }
    out
}

/// Last character first, each with the marks that belong to it behind it, and brackets turned around.
fn backwards(piece: &str, out: &mut String) {
    let mut end = piece.len();
    for (at, character) in piece.char_indices().rev() {
        if is_mark(character) && at > 0 {
            continue;
        }
        let mut cluster = piece.get(at..end).unwrap_or_default().chars();
        out.extend(cluster.next().map(mirrored));
        out.extend(cluster);
        end = at;
    }
}

/// Marks over, under and in letters.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{591}'..='\u{5bd}' | '\u{5bf}' | '\u{5c1}' | '\u{5c2}' | '\u{5c4}'
        | '\u{5c5}' | '\u{5c7}' | '\u{610}'..='\u{61a}' | '\u{64b}'..='\u{65f}' | '\u{670}')
}

fn mirrored(c: char) -> char {
    match c {
        '(' => ')',
        ')' => '(',
        '[' => ']',
        ']' => '[',
        '{' => '}',
        '}' => '{',
        '<' => '>',
        '>' => '<',
        '«' => '»',
        '»' => '«',
        other => other,
    }
}

fn breaks_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Marks that steer direction and joining; they have no look of their own and would show as boxes.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_with_an_ellipsis_and_never_wider_than_its_room() {
        let face = Faces::load().unwrap().regular;
        for text in [
            "",
            "short",
            "a name that is much too long for its column",
            "Ελληνικά Кириллица żółć",
            "日本語の名前です",
            "חברת החשמל לישראל בע״מ",
        ] {
            for room in [0.5, 1.0, 3.0, 8.0, 100.0] {
                let (line, fitting) = (face.line(text, room), face.fitting(text, room));
                assert!(fitting == text || fitting.ends_with(ELLIPSIS), "{text} in {room}: {fitting}");
                assert_eq!(line.text, visual(&fitting));
                assert!(line.width <= room || line.text == "\u{2026}", "{text} in {room}: {}", line.width);
            }
        }
        assert_eq!(face.line("two\r\nlines\u{202e}", 100.0).text, "two  lines");
    }

    #[test]
    fn right_to_left_text_stands_in_its_visual_order() {
        assert_eq!(visual("Smith & Söhne (2) «x»"), "Smith & Söhne (2) «x»");
        assert_eq!(visual("שלום"), "םולש");
        // Numbers and names of other scripts keep their own direction, and brackets stay around what they hold.
        assert_eq!(visual("אב (12) Ltd"), "Ltd (12) בא");
        assert_eq!(visual("Ltd (אב) 12"), "Ltd (בא) 12");
        assert_eq!(visual("אב\u{2026}"), "\u{2026}בא");
        // A mark stays with its letter.
        assert_eq!(visual("ש\u{5b8}לום"), "םולש\u{5b8}");
        let face = Faces::load().unwrap().regular;
        assert_eq!(face.line("x\u{202e}abc\u{2029}d", 100.0).text, "xabc d", "a text does not turn itself around");
    }

    #[test]
    fn what_the_font_lacks_is_a_box() {
        let face = Faces::load().unwrap().bold;
        let (missing, _) = face.glyph(MISSING);
        assert_eq!(face.glyph('日').0, missing);
        for held in ['a', 'Ж', 'ω', 'ß', '€', 'ł', 'ש', 'م'] {
            assert_ne!(face.glyph(held).0, missing, "{held}");
        }
    }
}
