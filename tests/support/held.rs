//! Connections that stay open: each sends a request every second, and records when and how it ended.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use trivet_testbed::Host;

use crate::inside::inside;
use trivet_instruments::Client;

/// The pause between two requests: well below the idle time-out of any server.
const PAUSE: Duration = Duration::from_secs(1);

/// The limit of an answer. After a fault of seven seconds the kernel may retransmit up to seven seconds later.
const LIMIT: Duration = Duration::from_secs(15);

/// Served by every apiserver that lives, with etcd or without.
const PATH: &str = "/version";

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
                let tls = client.connect().await?;
                let server = client.server_of(&tls);
                let server = server.context("a server with a certificate of no master")?;
                let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
                let closed = tokio::spawn(async move {
                    match connection.await {
                        Ok(()) => "closed".to_owned(),
                        Err(error) => format!("{:#}", anyhow::Error::new(error)),
                    }
                });
                ask(&mut sender).await?;
                open.push((server, sender, closed));
            }
            if opened.send(()).is_err() {
                bail!("the caller no longer waits for the connections");
            }
            let mut held = JoinSet::new();
            for (server, sender, closed) in open {
                held.spawn(hold(server, sender, closed, stopped.clone()));
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

async fn hold(
    server: String,
    mut sender: SendRequest<Empty<Bytes>>,
    mut closed: JoinHandle<String>,
    stop: CancellationToken,
) -> Connection {
    let until_it_fails = async {
        loop {
            // An end between two requests is noticed at once, as by client-go.
            tokio::select! {
                () = sleep(PAUSE) => {}
                why = &mut closed => return (Timestamp::now(), why.unwrap_or_default()),
            }
            if let Err(error) = ask(&mut sender).await {
                return (Timestamp::now(), format!("{error:#}"));
            }
        }
    };
    let ended = stop.run_until_cancelled(until_it_fails).await;
    Connection { server, ended }
}

async fn ask(sender: &mut SendRequest<Empty<Bytes>>) -> Result<()> {
    let exchange = async {
        sender.ready().await.context("the connection was closed")?;
        let request = Request::get(PATH)
            .header(header::HOST, "kubernetes")
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await.context("no answer")?;
        let status = response.status();
        response.into_body().collect().await.context("no whole answer")?;
        // 401 and 403 are answers too.
        ensure!(!status.is_server_error(), "{status}");
        Ok(())
    };
    timeout(LIMIT, exchange).await.context("no answer in time")?
}
