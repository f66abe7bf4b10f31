//! The admin server: `/metrics`, `/livez` and `/readyz` over TCP for Prometheus, and everything over a unix socket for the
//! proxy's own subcommands. Exec probes use the unix socket because another process of the host could take the TCP port.

use std::{convert::Infallible, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client, header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener, UnixStream},
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::{metrics, readiness::Readiness, status::Subject};

/// The most connections at once per socket, so that scrapers that hang do not take the proxy's file descriptors. Each
/// socket has a limit of its own; otherwise scrapers could block the exec probes, and kubelet would restart the proxy.
const CONNECTIONS: usize = 16;

/// How long a peer may take to send its request.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// The longest connection. A peer that never reads the answer would hold its slot for ever. A scraper whose idle
/// connection is closed opens another one.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);

/// How soon a metrics port that is taken is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// The admin server.
#[derive(Debug)]
pub struct Admin {
    registry: Registry,
    readiness: Arc<Readiness>,
    subject: Subject,
}

/// The socket by which a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AdminSocket {
    Tcp,
    Unix,
}

/// The content type of Prometheus' text format, as prometheus-client writes it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Admin {
    /// A server that answers from these.
    pub fn new(registry: Registry, readiness: Arc<Readiness>, subject: Subject) -> Arc<Self> {
        Arc::new(Self {
            registry,
            readiness,
            subject,
        })
    }

    /// Serves on a TCP address for ever. Traffic is forwarded even if the port is taken.
    pub async fn serve_tcp(self: Arc<Self>, address: SocketAddr) {
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(error) => warn!(%address, %error, "failed to listen for metrics; trying again"),
            }
            sleep(BIND_AGAIN).await;
        };
        info!(%address, "serving metrics");
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            match listener.accept().await {
                Ok((stream, _peer)) => self.serve(stream, AdminSocket::Tcp, &slots),
                Err(error) => pause(&error).await,
            }
        }
    }

    /// Serves on a bound unix socket for ever.
    pub async fn serve_unix(self: Arc<Self>, listener: UnixListener) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            match listener.accept().await {
                Ok((stream, _peer)) => self.serve(stream, AdminSocket::Unix, &slots),
                Err(error) => pause(&error).await,
            }
        }
    }

    fn serve(
        self: &Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        socket: AdminSocket,
        slots: &Arc<Semaphore>,
    ) {
        let Ok(slot) = Arc::clone(slots).try_acquire_owned() else {
            debug!(?socket, "too many admin connections at once");
            return;
        };
        let admin = Arc::clone(self);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = admin.answer(&request, socket);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(REQUEST_LIMIT);
            let connection = server.serve_connection(TokioIo::new(stream), service);
            match timeout(CONNECTION_LIMIT, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(?socket, %error, "admin connection broke"),
                Err(_elapsed) => debug!(?socket, "admin connection took too long"),
            }
            drop(slot);
        });
    }

    fn answer(&self, request: &Request<Incoming>, socket: AdminSocket) -> Response<Full<Bytes>> {
        match (request.uri().path(), socket) {
            ("/metrics", AdminSocket::Tcp | AdminSocket::Unix) => {
                typed(metrics::encode(&self.registry), OPEN_METRICS)
            }
            // The status quotes the apiservers' answers, which only the node's root may read.
            ("/status", AdminSocket::Unix) => match serde_json::to_string_pretty(&self.subject.status()) {
                Ok(text) => typed(text, "application/json"),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            },
            ("/startupz", AdminSocket::Tcp | AdminSocket::Unix) => {
                agree(self.readiness.unstarted(Instant::now()), "started")
            }
            ("/livez", AdminSocket::Tcp | AdminSocket::Unix) => agree(self.readiness.lifeless(), "alive"),
            ("/readyz", AdminSocket::Tcp | AdminSocket::Unix) => agree(self.readiness.objection(), "ready"),
            _ => plain(
                StatusCode::NOT_FOUND,
                "try /metrics, /startupz, /livez or /readyz; and, over the unix socket, /status".to_owned(),
            ),
        }
    }
}

fn agree(objection: Option<&'static str>, agreed: &'static str) -> Response<Full<Bytes>> {
    match objection {
        None => plain(StatusCode::OK, agreed.to_owned()),
        Some(objection) => plain(StatusCode::SERVICE_UNAVAILABLE, objection.to_owned()),
    }
}

fn typed(text: String, content_type: &'static str) -> Response<Full<Bytes>> {
    let mut response = plain(StatusCode::OK, text);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    response
}

fn plain(status: StatusCode, mut text: String) -> Response<Full<Bytes>> {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}

async fn pause(error: &io::Error) {
    debug!(%error, "failed to accept an admin connection");
    sleep(Duration::from_millis(100)).await;
}

/// Binds the unix socket, in place of one that an earlier process left.
pub fn bind_unix(path: &PathBuf) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    UnixListener::bind(path)
}

/// Why a request over the unix socket has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No proxy listens there.
    #[error("failed to connect to {}", .0.display())]
    Connect(PathBuf, #[source] io::Error),
    /// The connection broke.
    #[error("failed to ask the proxy")]
    Http(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The proxy's event loop does not turn.
    #[error("no answer within {0:?}")]
    Silent(Duration),
}

/// Asks the proxy behind a unix socket. Returns whether it agrees, and its text.
pub async fn ask(socket: PathBuf, path: &str, within: Duration) -> Result<(bool, String), Error> {
    let http = |error: hyper::Error| Error::Http(error.into());
    let exchanged = async {
        let stream = UnixStream::connect(&socket)
            .await
            .map_err(|error| Error::Connect(socket, error))?;
        let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(http)?;
        let request = Request::get(path)
            .header(header::HOST, "proxy")
            .body(Empty::<Bytes>::new());
        let request = request.map_err(|error| Error::Http(error.into()))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(http)?;
            let agrees = response.status().is_success();
            let body = Limited::new(response.into_body(), 16 * 1024 * 1024)
                .collect()
                .await
                .map_err(Error::Http)?;
            Ok((
                agrees,
                String::from_utf8_lossy(&body.to_bytes()).trim_end().to_owned(),
            ))
        };
        tokio::select! {
            answer = exchange => answer,
            ended = connection => Err(Error::Http(ended.err().map_or_else(|| "connection ended".into(), Into::into))),
        }
    };
    timeout(within, exchanged)
        .await
        .map_err(|_elapsed| Error::Silent(within))?
}
