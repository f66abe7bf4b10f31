//! What the proxy promises, on real sockets against apiservers that misbehave on command.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says by its panic what is wrong, its helpers too"
)]

#[path = "../support/addresses.rs"]
mod addresses;
mod documents;
mod draining;
mod extras;
mod handover;
mod health;
mod locality;
mod opening;
mod pairs;
mod pairs_faults;
mod relaying;
mod reporting;
mod resorting;
mod scraping;
mod seeding;
mod standby;
mod status;
mod support;
mod systemd;
mod unix_sockets_denied;
mod versions;
mod watching;
