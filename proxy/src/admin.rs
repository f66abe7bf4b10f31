//! What the proxy tells about itself: `/metrics` over TCP for Prometheus, and everything over a unix socket for its own
//! subcommands, where an HTTP probe could be answered by another process of the host.

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
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::{metrics, readiness::Readiness, status::Subject};

/// Conversations at once by one door: a scraper that hangs must not cost the proxy its files. Each door has as many of
/// its own, or scrapers could keep the exec probes out, and kubelet would end the proxy.
const CONVERSATIONS: usize = 16;

/// How long one may take to send its request.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// How long a conversation may last, whatever it is at: who never reads the answer would hold its place for ever. A
/// scraper that keeps its connection idle opens another for its next question.
const CONVERSATION_LIMIT: Duration = Duration::from_secs(10);

/// How soon a taken metrics port is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// What the answers are made of.
#[derive(Debug)]
pub struct Admin {
    registry: Registry,
    readiness: Arc<Readiness>,
    subject: Subject,
}

/// By which socket a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Tcp,
    Unix,
}

/// The content type of Prometheus' text format, as prometheus-client writes it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Admin {
    /// Answers from these.
    pub fn new(registry: Registry, readiness: Arc<Readiness>, subject: Subject) -> Arc<Self> {
        Arc::new(Self {
            registry,
            readiness,
            subject,
        })
    }

    /// Serves on a TCP address for ever. A port that is taken is no reason not to forward traffic.
    pub async fn serve_tcp(self: Arc<Self>, address: SocketAddr) {
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(error) => warn!(%address, %error, "failed to listen for metrics; trying again"),
            }
            sleep(BIND_AGAIN).await;
        };
        info!(%address, "serving metrics");
        let places = Arc::new(Semaphore::new(CONVERSATIONS));
        loop {
            match listener.accept().await {
                Ok((stream, _peer)) => self.converse(stream, Door::Tcp, &places),
                Err(error) => pause(&error).await,
            }
        }
    }

    /// Serves on a bound unix socket for ever.
    pub async fn serve_unix(self: Arc<Self>, listener: UnixListener) {
        let places = Arc::new(Semaphore::new(CONVERSATIONS));
        loop {
            match listener.accept().await {
                Ok((stream, _peer)) => self.converse(stream, Door::Unix, &places),
                Err(error) => pause(&error).await,
            }
        }
    }

    fn converse(
        self: &Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        door: Door,
        places: &Arc<Semaphore>,
    ) {
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            debug!(?door, "too many conversations at once");
            return;
        };
        let admin = Arc::clone(self);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = admin.answer(&request, door);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(REQUEST_LIMIT);
            let conversation = server.serve_connection(TokioIo::new(stream), service);
            match timeout(CONVERSATION_LIMIT, conversation).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(?door, %error, "conversation broke"),
                Err(_elapsed) => debug!(?door, "conversation took too long"),
            }
            drop(place);
        });
    }

    fn answer(&self, request: &Request<Incoming>, door: Door) -> Response<Full<Bytes>> {
        match (request.uri().path(), door) {
            ("/metrics", Door::Tcp | Door::Unix) => typed(metrics::encode(&self.registry), OPEN_METRICS),
            // What the apiservers say of themselves is nobody's business but the node's.
            ("/status", Door::Unix) => match serde_json::to_string_pretty(&self.subject.status()) {
                Ok(text) => typed(text, "application/json"),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            },
            ("/livez", Door::Tcp | Door::Unix) => verdict(self.readiness.lifeless(), "alive"),
            ("/readyz", Door::Tcp | Door::Unix) => verdict(self.readiness.objection(), "ready"),
            _ => plain(
                StatusCode::NOT_FOUND,
                "try /metrics, /livez or /readyz; and, over the unix socket, /status".to_owned(),
            ),
        }
    }
}

fn verdict(objection: Option<&'static str>, agreed: &'static str) -> Response<Full<Bytes>> {
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
    debug!(%error, "failed to accept a conversation");
    sleep(Duration::from_millis(100)).await;
}

/// Binds the unix socket, in place of one that a predecessor left.
pub fn bind_unix(path: &PathBuf) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    UnixListener::bind(path)
}

/// Why a question over the unix socket has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there.
    #[error("failed to connect to {}", .0.display())]
    Connect(PathBuf, #[source] io::Error),
    /// The conversation broke.
    #[error("failed to ask the proxy")]
    Http(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The proxy runs no event loop.
    #[error("no answer within {0:?}")]
    Silent(Duration),
}

/// Asks the proxy behind a unix socket; whether it agrees, and its words.
pub async fn ask(socket: PathBuf, path: &str, within: Duration) -> Result<(bool, String), Error> {
    let http = |error: hyper::Error| Error::Http(error.into());
    let conversation = async {
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
    timeout(within, conversation)
        .await
        .map_err(|_elapsed| Error::Silent(within))?
}
