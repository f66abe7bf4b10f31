//! The clients. Each is a process that does one thing, says in one line of JSON how long it took, and ends.

mod http;
mod plain;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::cli::{Kind, Load};
use crate::process;
use crate::statistics::{quantile, sorted};

/// What a client did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// How long it took.
    pub(crate) seconds: f64,
    /// Bytes, requests, rounds or connections.
    pub(crate) amount: f64,
    /// Half of its waits were shorter, in seconds; 0 if it did not look.
    pub(crate) p50: f64,
    /// 99 of a hundred were.
    pub(crate) p99: f64,
}

impl Outcome {
    fn of_amount(seconds: f64, amount: f64) -> Self {
        Self {
            seconds,
            amount,
            p50: 0.0,
            p99: 0.0,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "some ten thousand waits")]
    fn of_waits(seconds: f64, waits: &[f64]) -> Self {
        let sorted = sorted(waits);
        Self {
            seconds,
            amount: waits.len() as f64,
            p50: quantile(&sorted, 0.5).unwrap_or_default(),
            p99: quantile(&sorted, 0.99).unwrap_or_default(),
        }
    }
}

/// Does it, and prints the outcome.
pub(crate) fn run(load: &Load) -> Result<()> {
    process::end_with_parent()?;
    crate::measure::pin(&[std::process::id()], load.cpu)?;
    let address = load.address;
    let outcome = match load.kind {
        Kind::Bulk { bytes } => plain::bulk(address, bytes),
        Kind::Echo { rounds } => plain::echo(address, rounds),
        Kind::Churn { count } => plain::churn(address, count),
        Kind::Bursts { seconds } => plain::bursts(address, seconds),
        Kind::Idle { connections } => plain::idle(address, connections),
        Kind::Lists { count } => http::run(http::lists(load, count)),
        Kind::Requests { count } => http::run(http::requests(load, count)),
        Kind::Paced { seconds } => http::run(http::paced(load, seconds)),
    }
    .with_context(|| format!("failed at {:?} through {address}", load.kind))?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}
