//! Connections of many kinds that go on through the proxy of each worker while something happens to it: client-go's watches,
//! kubectl's streams, small requests, bytes at full speed in both directions, and a reader that is too slow.
//!
//! Some kinds run directly to a master too: what those have to wait for is the machine's share.

mod blocks;
mod bulk;
mod flow;
mod informers;
mod kubectl;
mod pace;
mod requests;
mod verdict;
mod worker;

use anyhow::Result;
use futures::future::{join_all, try_join_all};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use trivet_testbed::Host;

use self::worker::{Controls, Worker};
use crate::attempts::LOOPBACKS;
use crate::installation::Installation;

pub use self::flow::{Flow, Kind, Route, Seen};
pub use self::pace::Pace;
pub use self::verdict::noticed;

/// Flows under way: on the first worker by IPv4, on the second by IPv6.
pub struct Flows {
    workers: Vec<Worker>,
    bulk: watch::Sender<Pace>,
    slow: watch::Sender<Pace>,
    stop: DropGuard,
}

impl Flows {
    /// Starts them on every worker; all are open when this returns. Bulk bytes move slowly at first.
    pub async fn start(installation: &Installation) -> Result<Self> {
        let (bulk, slow) = (watch::Sender::new(Pace::Slow), watch::Sender::new(Pace::Slow));
        let stop = CancellationToken::new();
        let controls = &Controls {
            bulk: bulk.subscribe(),
            slow: slow.subscribe(),
            stop: stop.clone(),
        };
        let stop = stop.drop_guard();
        let hosts = installation.workers();
        let workers = hosts.iter().zip(LOOPBACKS);
        let workers = workers.map(|(host, proxy)| Worker::start(installation, host, proxy, controls));
        Ok(Self {
            workers: try_join_all(workers).await?,
            bulk,
            slow,
            stop,
        })
    }

    /// Where the pods of a worker's flows are.
    pub fn namespace(worker: &Host) -> String {
        format!("flows-{}", worker.name())
    }

    /// Sets how fast bulk bytes move.
    pub fn set_pace(&self, pace: Pace) {
        self.bulk.send_replace(pace);
    }

    /// Fails if any of them has ended.
    pub fn are_whole(&self) -> Result<()> {
        self.workers.iter().try_for_each(Worker::is_whole)
    }

    /// Ends them. Bulk streams go on until they have carried a gibibyte; what a slow reader has not read yet, it reads.
    pub async fn finish(self) -> Vec<Flow> {
        drop(self.stop);
        self.bulk.send_replace(Pace::ToTheEnd);
        self.slow.send_replace(Pace::ToTheEnd);
        let workers = join_all(self.workers.into_iter().map(Worker::finish)).await;
        workers.into_iter().flatten().collect()
    }
}
