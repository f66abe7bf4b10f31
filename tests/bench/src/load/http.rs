//! Clients that speak HTTP/2 over TLS, as client-go does.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsConnector;
use trivet_testbed::Stopwatch;

use super::Outcome;
use crate::authority::{self, NAME};
use crate::cli::Load;
use crate::server::{LIST, SMALL};

/// What Go's HTTP/2 client grants a stream; a connection it grants all it can.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 1 << 30;

/// The clients of a node.
const CONNECTIONS: usize = 10;

/// Lists, or requests, before the clock starts.
const WARM_UP: u64 = 3;

type Sender = SendRequest<Empty<Bytes>>;

/// Runs a client's future to its end.
pub(super) fn run(client: impl Future<Output = Result<Outcome>>) -> Result<Outcome> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(client)
}

#[expect(clippy::cast_precision_loss, reason = "some gigabytes")]
pub(super) async fn lists(load: &Load, count: u64) -> Result<Outcome> {
    let mut sender = connect(load).await?;
    let watch = Stopwatch::start();
    for _ in 0..count {
        get(&mut sender, "/list", LIST).await?;
    }
    let bytes = count * LIST as u64;
    Ok(Outcome::of_amount(watch.elapsed().as_secs_f64(), bytes as f64))
}

pub(super) async fn requests(load: &Load, count: u64) -> Result<Outcome> {
    let mut clients = JoinSet::new();
    let watch = Stopwatch::start();
    for _ in 0..CONNECTIONS {
        let mut sender = connect(load).await?;
        clients.spawn(async move {
            let mut waits = Vec::new();
            for _ in 0..count {
                waits.push(get(&mut sender, "/small", SMALL).await?);
            }
            Ok::<_, anyhow::Error>(waits)
        });
    }
    let mut waits = Vec::new();
    while let Some(client) = clients.join_next().await {
        waits.extend(client??);
    }
    Ok(Outcome::of_waits(watch.elapsed().as_secs_f64(), &waits))
}

pub(super) async fn paced(load: &Load, seconds: u64) -> Result<Outcome> {
    let mut sender = connect(load).await?;
    for _ in 0..WARM_UP {
        get(&mut sender, "/small", SMALL).await?;
    }
    let mut pace = interval(Duration::from_millis(1));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watch = Stopwatch::start();
    let mut waits = Vec::new();
    while watch.elapsed() < Duration::from_secs(seconds) {
        pace.tick().await;
        waits.push(get(&mut sender, "/small", SMALL).await?);
    }
    Ok(Outcome::of_waits(watch.elapsed().as_secs_f64(), &waits))
}

async fn connect(load: &Load) -> Result<Sender> {
    let config = authority::client(&load.authority)?;
    let stream = TcpStream::connect(load.address).await?;
    stream.set_nodelay(true)?;
    let tls = TlsConnector::from(Arc::clone(&config))
        .connect(NAME.try_into()?, stream)
        .await?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(TokioIo::new(tls))
        .await?;
    // Its end shows in the requests.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// One request, answered in full; how long it took in seconds.
async fn get(sender: &mut Sender, path: &str, length: usize) -> Result<f64> {
    let watch = Stopwatch::start();
    let request = Request::get(format!("https://{NAME}{path}")).body(Empty::new())?;
    let response = sender.send_request(request).await?;
    ensure!(
        response.status() == StatusCode::OK,
        "{path}: {}",
        response.status()
    );
    let mut body = response.into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += frame
            .context("the answer broke off")?
            .data_ref()
            .map_or(0, Bytes::len);
    }
    ensure!(read == length, "{path} answered {read} bytes and not {length}");
    Ok(watch.elapsed().as_secs_f64())
}
