//! Connections that stay open: each sends a request every second, and records when and how it ended.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http_body_util::Empty;
use hyper::body::Bytes;
use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use trivet_testbed::Host;

use crate::inside::inside;
use crate::keep_alive::KeepAlive;
use trivet_instruments::Client;

/// The pause between two requests: well below the idle time-out of any server.
const PAUSE: Duration = Duration::from_secs(1);

/// Connections that are held.
#[derive(Debug)]
pub struct Held {
    stop: CancellationToken,
    connections: JoinHandle<Result<Vec<Connection>>>,
}

/// One connection.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The master at its other end.
    pub server: String,
    /// When and why it ended, if it did.
    pub ended: Option<(Timestamp, String)>,
}

impl Held {
    /// Opens `count` connections from `host` to `to`. All have answered when this returns.
    pub async fn open(host: &Host, client: &Client, to: SocketAddr, count: usize) -> Result<Self> {
        let stop = CancellationToken::new();
        let (opened, all_open) = oneshot::channel();
        let (host, client, stopped) = (host.clone(), client.clone().at(to), stop.clone());
        let work = move || async move {
            let mut open = Vec::new();
            for _ in 0..count {
                let mut connection = KeepAlive::open(&client).await?;
                connection.ask().await?;
                open.push(connection);
            }
            if opened.send(()).is_err() {
                bail!("the caller no longer waits for the connections");
            }
            let mut held = JoinSet::new();
            for connection in open {
                held.spawn(hold(connection, stopped.clone()));
            }
            Ok(held.join_all().await)
        };
        let connections = tokio::spawn(async move { inside(&host, work).await? });
        if all_open.await.is_err() {
            let outcome: Result<Vec<Connection>> = connections.await.context("they were lost")?;
            outcome.context("failed to open connections to hold")?;
            bail!("the connections to hold were never all open");
        }
        Ok(Self { stop, connections })
    }

    /// Closes the connections, and returns how each ended.
    pub async fn finish(self) -> Result<Vec<Connection>> {
        self.stop.cancel();
        self.connections.await.context("the held connections were lost")?
    }
}

async fn hold(mut connection: KeepAlive<Empty<Bytes>>, stop: CancellationToken) -> Connection {
    let server = connection.server.clone();
    let until_it_fails = async {
        loop {
            // An end between two requests is noticed at once, as by client-go.
            tokio::select! {
                () = sleep(PAUSE) => {}
                why = &mut connection.closed => return (Timestamp::now(), why.unwrap_or_default()),
            }
            if let Err(error) = connection.ask().await {
                return (Timestamp::now(), format!("{error:#}"));
            }
        }
    };
    let ended = stop.run_until_cancelled(until_it_fails).await;
    Connection { server, ended }
}
