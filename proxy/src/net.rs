//! Sockets as the proxy needs them.

pub mod port_holders;
pub mod socket;
pub mod spare;
