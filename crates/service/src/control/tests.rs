//! Readiness, the daemon's routes, and requests between hosts.
