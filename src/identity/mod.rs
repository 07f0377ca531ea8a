//! Floor 1: who is calling. Tokens to callers, and the tokens that the gateway itself signs.

pub mod settings;
