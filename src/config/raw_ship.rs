//! The raw mirror of `[audit.ship]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    raw::{RawShipForm, raw},
    scalar::SizeText,
};

raw! {
    /// Where the lines of the journal are shipped to. Nowhere, unless a target is set.
    struct RawShip {
        /// What of a line is shipped.
        lines: RawShipForm = RawShipForm::Public,
        /// To standard output.
        stdout: bool = false,
        /// To this file.
        file: Option<String> = None,
        /// Size at which the file is renamed to `FILE.SEQ`, by the number of its first line, and another one is begun.
        file_size: SizeText = SizeText::of("64MiB"),
    }
}
