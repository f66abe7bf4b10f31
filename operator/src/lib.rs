//! The operator, as a library so that its parts can be tested and rendered without a cluster.
//!
//! One pass over a pool is observe → plan → render → apply → report, see [`controller`]. `plan`, `render` and
//! `report::status` are pure. `preview` makes a plan and writes nothing. `wake` helps the DaemonSet controller on. `leader`
//! decides which of several operators writes. `api` talks to the Kubernetes API, and `serve` answers kubelet and Prometheus.

pub mod api;
pub mod app;
pub mod apply;
pub mod cli;
pub mod context;
pub mod controller;
pub mod dns;
pub mod gather;
pub mod health;
pub mod leader;
pub mod logging;
pub mod marks;
pub mod observe;
pub mod plan;
pub mod pools;
pub mod preview;
pub mod probe;
pub mod prober;
pub mod render;
pub mod report;
pub mod reports;
pub mod resolve;
pub mod retire;
pub mod serve;
pub mod wake;

/// The field manager of everything that the operator applies, and its name in events.
pub const MANAGER: &str = "trivet-operator";
