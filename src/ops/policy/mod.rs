//! What a policy set amounts to, whether there is anything in it worth a look, what it answers, and what another one would.

pub mod check;
pub mod decide;
pub mod show;

pub mod flips;
pub mod shadow;
