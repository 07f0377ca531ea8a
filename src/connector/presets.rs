//! The connectors that are shipped, as readable files: `preset = "gen1"` takes one, and whatever stands beside it wins.

/// Name and text of each.
pub const PRESETS: [(&str, &str); 2] =
    [("gen1", include_str!("presets/gen1.toml")), ("gen2", include_str!("presets/gen2.toml"))];

/// The text of a preset.
pub fn text(name: &str) -> Option<&'static str> {
    PRESETS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
