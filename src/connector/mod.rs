//! Floor 1: what the services behind the gateway say, as typed rows.
//!
//! A connector is configuration: paths, parameters, JSON pointers, units, words and paging of one service, over one
//! engine. This room is pure: it makes requests and reads answers, and opens no socket.
//!
//! Reading order: [`rows`] what comes out, [`fields`] what may be mapped, [`settings`] one connector, `template` and
//! [`request`] the way out, `pointer`, `projection`, `misfit`, `cell` and [`answer`] the way back, [`presets`] what is shipped.

pub mod fields;
pub mod pointer;
pub mod presets;
pub mod rows;
pub mod settings;
pub mod template;

pub mod answer;
mod build;
mod cell;
mod misfit;
mod projection;
pub mod request;

pub use answer::Page;
pub use fields::ResourceKind;
pub use misfit::Misfit;
pub use settings::{ConnectorSettings, Resource};
