//! A steady stream of new TLS connections from one host, every one of them logged.
//!
//! Open loop: attempts start by the clock, so a slow one delays no other and a proxy that stalls cannot make its
//! own test gentler.

mod client;
mod record;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use trivet_testbed::Host;

pub use self::client::Client;
pub use self::record::{Attempt, Outcome, Record};
use crate::inside::inside;

/// The port of the pool's listener when `spec` is empty.
const LISTENER: u16 = 7443;

/// Where the proxy of a node accepts, in the order in which clients resolve `localhost`.
pub const LOOPBACKS: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), LISTENER),
    SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), LISTENER),
];

/// Attempts under way on one host.
#[derive(Debug)]
pub struct Attempts {
    stop: CancellationToken,
    record: JoinHandle<Result<Record>>,
}

impl Attempts {
    /// Opens `per_second` new connections a second from `host` to `to`, until told to finish.
    pub fn start(host: &Host, client: &Client, to: SocketAddr, per_second: u32) -> Self {
        let stop = CancellationToken::new();
        let (host, client, stopped) = (host.clone(), client.clone(), stop.clone());
        let work = move || stream(client, to, per_second, stopped);
        let record = tokio::spawn(async move { inside(&host, work).await });
        Self { stop, record }
    }

    /// Starts no further attempt, waits for those under way, and returns them all.
    pub async fn finish(self) -> Result<Record> {
        self.stop.cancel();
        self.record.await.context("the attempts were lost")?
    }
}

/// One attempt from `host`.
pub async fn once(host: &Host, client: &Client, to: SocketAddr) -> Result<Attempt> {
    let client = client.clone();
    inside(host, move || async move { client.attempt(to).await }).await
}

async fn stream(client: Client, to: SocketAddr, per_second: u32, stop: CancellationToken) -> Record {
    let client = Arc::new(client);
    let mut clock = interval(Duration::from_secs(1) / per_second.max(1));
    // A machine that was busy for a moment catches up, so that the promised number of attempts is made.
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut under_way, mut finished) = (JoinSet::new(), Vec::new());
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = clock.tick() => {
                let client = Arc::clone(&client);
                under_way.spawn(async move { client.attempt(to).await });
            }
            Some(Ok(attempt)) = under_way.join_next() => finished.push(attempt),
        }
    }
    finished.extend(under_way.join_all().await);
    Record::new(finished)
}
