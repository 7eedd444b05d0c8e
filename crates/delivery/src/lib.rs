//! One engine that works a spool off: claims what is due, finds where it goes, attempts it, settles it. Two users: mx-edge
//! passes spooled mail inside, listserv delivers to the internet.
//!
//! The engine knows destinations, sites and replies. What a copy looks like and what an end means is its [`Owner`]'s.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod allowance;
pub mod attempt;
mod board;
mod bodies;
pub mod breaker;
mod claims;
mod domains;
pub mod egress;
mod ends;
pub mod engine;
pub mod expiry;
pub mod lane;
mod left_out;
mod metrics;
mod outcome;
pub mod pace;
mod pool;
mod progress;
pub mod queue;
pub mod retry;
pub mod rules;
mod run;
pub mod safekeeping;
mod schedule;
mod seat;
mod settle;
pub mod site;
#[cfg(test)]
mod testing;
pub mod tls;
mod transport;
mod turns;
pub mod vitals;
mod wanted;
mod withheld;
mod work;

pub use attempt::{Attempted, Copy, Result};
pub use board::{GateState, SITES_SHOWN_MAX, SiteState};
pub use ends::Ended;
pub use engine::{Engine, Owner};
pub use withheld::Withheld;
