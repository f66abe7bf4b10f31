//! Connections without traffic, as a client-go connection whose watches are quiet: only the kernel's keepalive packets are
//! sent on them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use trivet_testbed::Host;

use crate::inside::inside;
use trivet_instruments::Client;

/// The limit of an answer on a connection that works.
const LIMIT: Duration = Duration::from_secs(10);

/// A whole request, so that an answer shows that the connection works.
const REQUEST: &[u8] = b"GET /version HTTP/1.1\r\nHost: kubernetes\r\n\r\n";

/// Idle connections under way on one host.
#[derive(Debug)]
pub struct Idle {
    stop: CancellationToken,
    connections: JoinHandle<Result<Vec<IdleConnection>>>,
}

/// One idle connection and how it ended.
#[derive(Debug, Clone)]
pub struct IdleConnection {
    /// The master at its other end.
    pub server: String,
    /// When and why it ended too early; none if it answered a request at the end.
    pub ended: Option<(Timestamp, String)>,
}

impl Idle {
    /// Opens `count` connections from `host` to `to`, evenly spread over `phases`, so that their keepalive timers are
    /// too. All are open when this returns.
    pub async fn open(
        host: &Host,
        client: &Client,
        to: SocketAddr,
        count: u32,
        phases: Duration,
    ) -> Result<Self> {
        let stop = CancellationToken::new();
        let (opened, all_open) = oneshot::channel();
        let (host, client, stopped) = (host.clone(), client.clone().at(to), stop.clone());
        let work = move || async move {
            let mut idle = JoinSet::new();
            for _ in 0..count {
                let mut tls = client.connect().await?;
                let server = client.server_of(&tls);
                let server = server.context("the server's certificate names no master")?;
                // An answer before the silence: the connection is established end to end.
                exchange(&mut tls).await?;
                idle.spawn(stay_idle(tls, server, stopped.clone()));
                sleep(phases / count).await;
            }
            ensure!(
                opened.send(()).is_ok(),
                "the scenario ended before the connections were open"
            );
            Ok(idle.join_all().await)
        };
        let connections = tokio::spawn(async move { inside(&host, work).await? });
        if all_open.await.is_err() {
            let outcome: Result<Vec<IdleConnection>> =
                connections.await.context("the idle connections were lost")?;
            outcome.context("failed to open idle connections")?;
            anyhow::bail!("the idle connections ended before all were open");
        }
        Ok(Self { stop, connections })
    }

    /// Sends a request on each connection that is still open, and returns how each ended.
    pub async fn finish(self) -> Result<Vec<IdleConnection>> {
        self.stop.cancel();
        self.connections.await.context("the idle connections were lost")?
    }
}

/// Fails, naming the first, if any connection ended.
pub fn all_survived(client: &str, connections: &[IdleConnection]) -> Result<()> {
    let ended: Vec<_> = connections.iter().filter(|idle| idle.ended.is_some()).collect();
    ensure!(
        ended.is_empty(),
        "{client}: {} of {} idle connections were cut, the first: {:?}",
        ended.len(),
        connections.len(),
        ended.first()
    );
    Ok(())
}

async fn stay_idle(mut tls: TlsStream<TcpStream>, server: String, stop: CancellationToken) -> IdleConnection {
    let mut byte = [0];
    let ended = match stop.run_until_cancelled(tls.read(&mut byte)).await {
        Some(Ok(0)) => Some("closed".to_owned()),
        Some(Ok(_)) => Some("the apiserver spoke without a request".to_owned()),
        Some(Err(error)) => Some(error.to_string()),
        None => exchange(&mut tls).await.err().map(|error| format!("{error:#}")),
    };
    IdleConnection {
        server,
        ended: ended.map(|why| (Timestamp::now(), why)),
    }
}

/// One request and its whole answer.
async fn exchange(tls: &mut TlsStream<TcpStream>) -> Result<()> {
    let exchange = async {
        tls.write_all(REQUEST).await.context("failed to send a request")?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let read = tls
                .read_buf(&mut answer)
                .await
                .context("failed to read the answer")?;
            ensure!(read > 0, "closed before the answer was whole");
        }
        ensure!(
            answer.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        Ok(())
    };
    timeout(LIMIT, exchange).await.context("no answer in time")?
}
