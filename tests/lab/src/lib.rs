//! A laboratory for the proxy: a node with the real program, and fake apiservers in network namespaces of their own.
//!
//! The testbed shows that a whole cluster survives a fault; the lab measures one proxy. Every attempt and every tick of a
//! watch is recorded, and faults act on the network, on processes and inside the apiserver. Each lab has its own namespaces,
//! so several run side by side.

mod apiserver;
mod authority;
pub mod behaviour;
mod document;
mod fault;
mod lab;
mod network;
mod process;
mod proxy;
mod watches;

pub use self::{
    apiserver::Apiserver,
    authority::{Authority, Dates},
    document::Pool,
    fault::{Family, Fault},
    lab::{Lab, Programs, run},
    network::Place,
    process::Usage,
    proxy::Proxy,
    watches::{Stay, Watches},
};
