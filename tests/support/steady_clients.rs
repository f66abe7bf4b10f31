//! SteadyClients on every worker that open new connections at a steady rate, and expect that none is refused.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;
use trivet_instruments::Attempts;

use crate::attempts::{self, LOOPBACKS};
use crate::installation::Installation;
use crate::say::say;

/// New connections a second on each worker.
const RATE: u32 = 50;

/// Every apiserver answers it from its memory: at `/readyz` it asks etcd, and says no where bytes at full speed take the
/// whole machine.
const PATH: &str = "/version";

/// SteadyClients on every worker: on the first by IPv4, on the second by IPv6.
#[derive(Debug)]
pub struct SteadyClients {
    begun: Instant,
    attempts: Vec<(String, Attempts)>,
}

impl SteadyClients {
    /// Starts them.
    pub fn start(installation: &Installation) -> Result<Self> {
        Self::start_at(RATE, installation)
    }

    /// Starts them with so many new connections a second on each worker.
    pub fn start_at(rate: u32, installation: &Installation) -> Result<Self> {
        let client = installation.client()?.asking(PATH);
        let workers = installation.workers();
        let started = workers.iter().zip(LOOPBACKS).map(|(host, to)| {
            let attempts = attempts::start(host, &client, to, rate);
            (format!("{}, {to}", host.name()), attempts)
        });
        Ok(Self {
            begun: Instant::now(),
            attempts: started.collect(),
        })
    }

    /// Ends them, and fails if any of their connections failed, or was slower than `limit`.
    pub async fn none_was_refused(self, what: &str, limit: Duration) -> Result<()> {
        let took = self.begun.elapsed().as_secs_f32();
        let mut failed = Ok(());
        for (client, attempts) in self.attempts {
            let record = attempts.finish().await?;
            say(format!(
                "{what} ({took:.0} s): {client}: {} of {} new connections failed, slowest {:.2} s",
                record.failed().len(),
                record.attempts().len(),
                record.slowest().as_secs_f32()
            ));
            failed = failed.and(record.all_succeeded(&client));
            if record.slowest() > limit {
                failed = failed.and(Err(anyhow::anyhow!(
                    "{what}: {client}: the slowest connection took {:?}, and {limit:?} is promised",
                    record.slowest()
                )));
            }
        }
        failed
    }
}
