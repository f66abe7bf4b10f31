//! The proxy of a node: a layer-4 balancer over all apiservers of a pool.
//!
//! A client connects to the node's loopback. [`listener`] accepts the connection, [`open`] finds an upstream for it, and
//! [`relay`] moves the bytes. [`balance`] decides which upstream that is, without touching a socket; [`upstream`] feeds it
//! with events and carries out its decisions. [`probe`] checks the upstreams, and [`document`] says which ones there are.

pub mod admin;
pub mod api;
pub mod app;
pub mod authn;
pub mod balance;
pub mod cause;
pub mod clock;
pub mod connection;
pub mod document;
pub mod ending;
pub mod files;
pub mod handover;
pub mod listener;
pub mod log;
pub mod manifest;
pub mod metrics;
pub mod net;
pub mod open;
pub mod probe;
pub mod program;
pub mod readiness;
pub mod relay;
pub mod report;
pub mod settings;
pub mod source;
pub mod status;
pub mod systemd;
pub mod upstream;
pub mod vital;
pub mod vrrp;
pub mod warnings;

pub use trivet_trust as trust;
