//! The proxy of a node: a layer-4 balancer over all apiservers of a pool.
//!
//! A client connects to the node's loopback; [`listener`] accepts it, [`open`] finds the upstream that serves it,
//! [`relay`] moves the bytes. Which upstream that is, [`balance`] decides without touching a socket; [`upstream`] tells
//! it what happens, [`probe`] asks the upstreams how they are, and [`document`] says who they are.

pub mod admin;
pub mod app;
pub mod balance;
pub mod cause;
pub mod connection;
pub mod document;
pub mod ending;
pub mod listener;
pub mod log;
pub mod metrics;
pub mod net;
pub mod open;
pub mod probe;
pub mod readiness;
pub mod relay;
pub mod settings;
pub mod status;
pub mod trust;
pub mod upstream;
