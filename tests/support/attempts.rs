//! Attempts from inside a host, at its proxy or at a master.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use trivet_instruments::{Attempt, Attempts, Client, Record, stream};
use trivet_testbed::Host;

use crate::inside::inside;

/// The port of the pool's listener when `spec` is empty.
const LISTENER: u16 = 7443;

/// Where the proxy of a node accepts, in the order in which clients resolve `localhost`.
pub const LOOPBACKS: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), LISTENER),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), LISTENER),
];

/// Opens `per_second` new connections a second from `host` to `to`, until `finish` is called.
pub fn start(host: &Host, client: &Client, to: SocketAddr, per_second: u32) -> Attempts {
    let (host, client) = (host.clone(), client.clone().at(to));
    let period = Duration::from_secs(1) / per_second.max(1);
    Attempts::start(move |stop| async move {
        let made = inside(&host, move || stream(client, period, stop)).await;
        made.map(Record::new)
    })
}

/// One attempt from `host`.
pub async fn once(host: &Host, client: &Client, to: SocketAddr) -> Result<Attempt> {
    let client = client.clone().at(to);
    inside(host, move || async move { client.attempt().await }).await
}
