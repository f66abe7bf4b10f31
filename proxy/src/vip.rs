//! The kernel's side of a virtual IP address: what an agent needs to hold one, to announce it and to lead its clients to
//! the proxy.
//!
//! [`address`] puts it on an interface for a few seconds at a time, so that the kernel removes it where its agent is dead.
//! [`interface`] reads what a node's interfaces are, and [`changes`] hears of their changes. [`sockets`] carries
//! advertisements and tells neighbours who has the address; [`steering`] redirects its clients. All of it blocks only for
//! the kernel, never for a peer, and needs no runtime: the agent has a thread of its own. Nothing here decides who holds
//! the address.
//!
//! What clients of the last holder send to the next one needs nothing of us: its kernel does not know their connections and
//! resets them, redirected or not.

pub mod address;
pub mod changes;
pub mod interface;
pub mod netlink;
pub mod sockets;
pub mod steering;
