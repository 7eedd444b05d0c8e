//! The one harness of the end-to-end tests: a site in a temporary folder, a client that is not the product's, stubs that speak
//! spamd's and clamd's protocols for volume and for faults, and what arrived where.

pub mod client;
pub mod corpus;
pub mod site;
pub mod stub;

pub use client::{Client, post, python, submit};
pub use site::{Harness, hurried, settings};
pub use stub::Stubs;
