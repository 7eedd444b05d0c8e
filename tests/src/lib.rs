//! The one harness of the end-to-end tests: a site in a temporary folder, a client that is not the product's, stubs that speak
//! spamd's and clamd's protocols for volume and for faults, and what arrived where.

pub mod alone;
pub mod block_lists;
pub mod client;
pub mod corpus;
pub mod list_host;
pub mod site;
pub mod small_disk;
pub mod stub;
pub mod tracer;

pub use client::{Client, post, python, submit};
pub use site::{Harness, hurried, settings};
pub use small_disk::SmallDisk;
pub use stub::Stubs;
pub use tracer::{Fault, Tracer};
