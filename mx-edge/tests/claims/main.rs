//! Claims about an edge, each against a scripted next hop, over real sockets on loopback, in one process.

#![allow(clippy::unwrap_used)]

mod access;
mod asked;
mod client;
mod clients;
mod content;
mod directory;
mod dns;
mod door;
mod drained;
mod edge;
mod encrypted;
mod explained;
mod faulty;
mod inside;
mod ipv6;
mod killed;
mod limits;
mod list_host;
mod policy;
mod published;
mod raw;
mod refused;
mod refused_later;
mod report;
mod screened;
mod sender_policy;
mod sender_policy_suite;
mod shadowed;
mod smuggled;
mod spooled;
mod stays_standing;
mod tables;
mod through;
