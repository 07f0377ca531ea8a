//! Floor 1: rate limits.

pub mod settings;
