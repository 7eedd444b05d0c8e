//! The client against our own server, and against scripts.

mod loopback;
mod scripted;
