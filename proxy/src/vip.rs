//! The kernel's side of a virtual IP address: what an agent needs to hold one and to announce it.
//!
//! [`address`] puts it on an interface for a few seconds at a time, so that the kernel removes it where its agent is dead.
//! [`interface`] reads what a node's interfaces are, and [`changes`] hears of their changes. [`sockets`] carries
//! advertisements and tells neighbours who has the address. All of it blocks only for the kernel, and needs no runtime.
//! Nothing here decides who holds the address.

pub mod address;
pub mod changes;
pub mod interface;
pub mod netlink;
pub mod sockets;
