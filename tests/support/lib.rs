//! What the scenarios share: a known state to start from, clients that count, observers that time.
//!
//! A scenario reads as its promise; the code that measures is here, once. Nothing in this crate depends on Trivet's
//! internals: it sees objects, metrics, and connections that succeed or fail.

pub mod accounts;
pub mod alerts;
pub mod attempts;
pub mod audit;
pub mod broken_releases;
pub mod demo;
pub mod documents;
pub mod edits;
mod events;
pub mod fault;
pub mod flows;
pub mod health;
pub mod held;
pub mod idle;
pub mod inside;
pub mod installation;
mod keep_alive;
pub mod local_ports;
pub mod mistakes;
pub mod names;
pub mod node_fault;
pub mod observe;
pub mod operators;
pub mod other_servers;
pub mod outage;
pub mod plugin;
pub mod pods;
pub mod power_cut;
pub mod printed_manifest;
pub mod prometheus;
pub mod proxies;
pub mod real_client;
pub mod retirement;
pub mod rights_revoked;
pub mod rollout;
pub mod say;
pub mod serving;
pub mod serving_certificate;
pub mod silence;
pub mod steady_clients;
pub mod stops;
pub mod streams;
pub mod table;
pub mod tools;
pub mod turn;
pub mod upgrades;
pub mod workload;
