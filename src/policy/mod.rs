//! Floor 1: policies and decisions, by Cedar.

pub mod settings;
