//! Delivery to the internet: what a copy looks like, and what an end means. The engine is crates/delivery.

mod leaving;
mod names;
mod note;
pub mod notify;
mod owner;
mod render;
mod report;
mod rule;
mod settings;
#[cfg(test)]
mod tests;

pub use leaving::Leaving;
pub use names::Names;
pub use owner::{Deliverer, copies};
pub use settings::settings;
