//! Sockets as the proxy needs them.

pub mod socket;
