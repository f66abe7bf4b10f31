//! What the lab and the scenarios measure with: a client that is a stranger each time, attempts that start by the clock,
//! their record, and waiting for what must become true.
//!
//! Nothing here knows what is measured: a proxy in a lab, one on a real cluster, or an apiserver without any.

mod attempt;
mod attempts;
mod client;
mod namespace;
mod record;
mod waiting;

pub use self::{
    attempt::{Attempt, Outcome},
    attempts::{Attempts, stream},
    client::{Client, SERVER_NAME, trusting},
    namespace::inside,
    record::Record,
    waiting::{eventually, promptly},
};
