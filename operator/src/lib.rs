//! The operator, as a library so that its parts can be tested and rendered without a cluster.
//!
//! One pass over a pool is observe → plan → render → apply → report, see [`controller`]. `plan`, `render` and `status`
//! are pure; everything that awaits is in the other modules.

pub mod app;
pub mod apply;
pub mod backoff;
pub mod cli;
pub mod client;
pub mod complaints;
pub mod context;
pub mod controller;
pub mod events;
pub mod health;
pub mod logging;
pub mod metrics;
pub mod observe;
pub mod plan;
pub mod probe;
pub mod prober;
pub mod render;
pub mod report;
pub mod resolve;
pub mod server;
pub mod shutdown;
pub mod status;
pub mod watch;

/// The field manager of everything the operator applies, its name in events, and its user agent.
pub const MANAGER: &str = "trivet-operator";
