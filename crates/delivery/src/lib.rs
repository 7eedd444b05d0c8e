//! One engine that works a spool off: claims what is due, finds where it goes, attempts it, settles it. Two users: mx-edge
//! passes spooled mail inside, listserv delivers to the internet.
//!
//! The engine knows destinations, sites and replies. What a copy looks like and what an end means is its [`Owner`]'s.

pub mod attempt;
pub mod engine;
pub mod retry;
pub mod site;

pub use attempt::{Attempted, Copy, Result};
pub use engine::{Engine, Owner};
