//! What a policy set amounts to, and whether there is anything in it worth a look.

pub mod check;
pub mod show;
