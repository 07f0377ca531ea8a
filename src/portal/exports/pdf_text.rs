//! Text on a page: one font in two weights, measured and cut to its space.
//!
//! Characters are set one after the other with their advance widths, which serves Latin, Greek, Cyrillic and what else
//! the font holds; a character that it does not hold is a box, never nothing. The CSV holds every name exactly.

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
        let (_, dots) = self.glyph(ELLIPSIS);
        // Where the ellipsis still fits: text, glyphs, width.
        let mut fits = (0, 0, 0.0);
        let mut characters = text.chars().map(|c| if c.is_control() { ' ' } else { c }).filter(|c| !is_invisible(*c));
        for character in characters.by_ref() {
            let (_, advance) = self.glyph(character);
            if line.width + advance > room {
                let (bytes, glyphs, width) = fits;
                line.text.truncate(bytes);
                line.glyphs.truncate(glyphs);
                line.width = width;
                self.push(&mut line, ELLIPSIS);
                return line;
            }
            self.push(&mut line, character);
            if line.width + dots <= room {
                fits = (line.text.len(), line.glyphs.len(), line.width);
            }
        }
        line
    }

    fn push(&self, line: &mut Line, character: char) {
        let (id, advance) = self.glyph(character);
        let start = line.text.len();
        line.text.push(character);
        line.glyphs.push(KrillaGlyph::new(id, advance, 0.0, 0.0, 0.0, start..line.text.len(), None));
        line.width += advance;
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
        for text in
            ["", "short", "a name that is much too long for its column", "Ελληνικά Кириллица żółć", "日本語の名前です"]
        {
            for room in [0.5, 1.0, 3.0, 8.0, 100.0] {
                let line = face.line(text, room);
                let whole = line.text == text;
                assert!(whole || line.text.ends_with(ELLIPSIS), "{text} in {room}: {}", line.text);
                assert!(line.width <= room || line.text == "\u{2026}", "{text} in {room}: {}", line.width);
            }
        }
        assert_eq!(face.line("two\r\nlines\u{202e}", 100.0).text, "two  lines");
    }

    #[test]
    fn what_the_font_lacks_is_a_box() {
        let face = Faces::load().unwrap().bold;
        let (missing, _) = face.glyph(MISSING);
        assert_eq!(face.glyph('日').0, missing);
        for held in ['a', 'Ж', 'ω', 'ß', '€', 'ł'] {
            assert_ne!(face.glyph(held).0, missing, "{held}");
        }
    }
}
