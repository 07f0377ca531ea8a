//! Floor 1: what the services behind the gateway say, as typed rows.
//!
//! A connector is configuration: paths, parameters, JSON pointers, units, words and paging of one service, over one
//! engine. This room is pure: it makes requests and reads answers, and opens no socket.

pub mod rows;
