//! What makes a program a good daemon: configuration, logs, signals, control socket, TLS with the site's own CA. Knows no mail.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod authority;
pub mod config;
pub mod control;
pub mod gate;
pub mod listener;
pub mod log;
pub mod metrics;
pub mod program;
pub mod shutdown;
pub mod signing;
pub mod state;
pub mod tls;
pub mod trouble;
