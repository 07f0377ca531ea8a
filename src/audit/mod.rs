//! Floor 1: the audit record, its journal and its chain.

pub mod settings;
