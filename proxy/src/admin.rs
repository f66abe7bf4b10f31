//! The admin server: `/metrics`, `/livez` and `/readyz` over TCP for Prometheus, and everything over a unix socket for the
//! proxy's own subcommands. Exec probes use the unix socket because another process of the host could take the TCP port.

mod exposure;
mod state_file;

use std::{
    convert::Infallible,
    fs, io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::ValueEnum;
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
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, warn};

pub use self::{
    exposure::{Exposure, Guard, NodeAddresses},
    state_file::StateFile,
};
use crate::{cause, clock, metrics, readiness::Readiness, status::Subject};

/// The most connections at once per socket, so that scrapers that hang do not take the proxy's file descriptors. Each
/// socket has a limit of its own; otherwise scrapers could block the exec probes, and kubelet would restart the proxy.
const CONNECTIONS: usize = 16;

/// How long a peer may take to send its request.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// The longest connection. A peer that never reads the answer would hold its slot for ever. A scraper whose idle
/// connection is closed opens another one.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);

/// How soon a metrics port that is taken is tried again. The process that served before leaves it within milliseconds.
const BIND_AGAIN: Duration = Duration::from_secs(1);

/// After how many failures the port is told to be taken.
const TELL_AFTER: u32 = 5;

/// The admin server.
#[derive(Debug)]
pub struct Admin {
    registry: Registry,
    readiness: Arc<Readiness>,
    subject: Subject,
}

/// The socket by which a request came.
#[derive(Clone, Debug)]
enum AdminSocket {
    Tcp,
    Unix,
    /// An address of the node, for callers that this guard lets in.
    Node(Arc<Guard>),
}

/// What an exec probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Question {
    /// Whether it has started: it is ready, or its event loop has turned for 20 s.
    Startup,
    /// Whether it forwards connections.
    Ready,
    /// Whether its event loop turns and no task is missing.
    Live,
}

impl Question {
    const ALL: [Self; 3] = [Self::Startup, Self::Ready, Self::Live];

    /// As on the command line.
    fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Ready => "ready",
            Self::Live => "live",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Startup => "/startupz",
            Self::Ready => "/readyz",
            Self::Live => "/livez",
        }
    }

    /// What is said if there is no objection.
    fn agreed(self) -> &'static str {
        match self {
            Self::Startup => "started",
            Self::Ready => "ready",
            Self::Live => "alive",
        }
    }

    /// Why the answer is no.
    fn objection(self, readiness: &Readiness) -> Option<String> {
        match self {
            Self::Startup => readiness.unstarted(Instant::now()),
            Self::Ready => readiness.objection(),
            Self::Live => readiness.lifeless(),
        }
    }
}

/// How exec probes get their answers.
#[derive(Debug)]
pub enum ProbeAnswers {
    /// Over the unix socket.
    Socket(UnixListener),
    /// By a file, because the node denies unix sockets.
    File(StateFile),
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

    /// Binds the unix socket. Where that is impossible but for a reason that the user can mend, exec probes are answered by a
    /// file: a proxy that serves is worth more than `status`.
    pub fn open_for_probes(&self, path: &Path) -> Result<ProbeAnswers, BindError> {
        let error = match bind_unix(path) {
            Ok(listener) => return Ok(ProbeAnswers::Socket(listener)),
            Err(error @ (BindError::NotASocket(_) | BindError::Taken(_))) => return Err(error),
            Err(error @ BindError::Io(..)) => error,
        };
        let file = StateFile::beside(path);
        warn!(
            cause = cause::chain(&error),
            file = %file.path().display(),
            "no unix socket here: a file answers exec probes, and status and explain have no answer"
        );
        // A full disk must not keep a node from its apiservers. Until the file can be written kubelet has no answer either,
        // and restarts the proxy, which serves meanwhile.
        if let Err(error) = file.write(&self.readiness) {
            file.warn(&error);
        }
        Ok(ProbeAnswers::File(file))
    }

    /// Answers exec probes for ever.
    pub async fn answer_probes(self: Arc<Self>, answers: ProbeAnswers) {
        match answers {
            ProbeAnswers::Socket(listener) => self.serve_unix(listener).await,
            ProbeAnswers::File(file) => file.keep(&self.readiness).await,
        }
    }

    /// Serves on a bound unix socket for ever.
    async fn serve_unix(self: Arc<Self>, listener: UnixListener) {
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
            admin.converse(stream, socket).await;
            drop(slot);
        });
    }

    /// Answers the requests of one connection.
    async fn converse(&self, stream: impl AsyncRead + AsyncWrite + Unpin, socket: AdminSocket) {
        let service = service_fn(|request| {
            let response = self.respond(request, &socket);
            async move { Ok::<_, Infallible>(response.await) }
        });
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(REQUEST_LIMIT);
        let connection = server.serve_connection(TokioIo::new(stream), service);
        match timeout(CONNECTION_LIMIT, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(?socket, %error, "admin connection broke"),
            Err(_elapsed) => debug!(?socket, "admin connection took too long"),
        }
    }

    async fn respond(&self, request: Request<Incoming>, socket: &AdminSocket) -> Response<Full<Bytes>> {
        if let AdminSocket::Node(guard) = socket
            && let Some((status, why)) = guard.reviewer.answer(request.headers()).await.refusal()
        {
            return refuse(status, why);
        }
        self.answer(&request, socket)
    }

    fn answer(&self, request: &Request<Incoming>, socket: &AdminSocket) -> Response<Full<Bytes>> {
        match (request.uri().path(), socket) {
            ("/metrics", AdminSocket::Tcp | AdminSocket::Unix | AdminSocket::Node(_)) => {
                typed(metrics::encode(&self.registry), OPEN_METRICS)
            }
            // What a caller was let in for.
            (_, AdminSocket::Node(_)) => plain(StatusCode::NOT_FOUND, "try /metrics".to_owned()),
            // The status quotes the apiservers' answers, which only the node's root may read.
            ("/status", AdminSocket::Unix) => match serde_json::to_string_pretty(&self.subject.status()) {
                Ok(text) => typed(text, "application/json"),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            },
            (path, AdminSocket::Tcp | AdminSocket::Unix) => {
                match Question::ALL.into_iter().find(|question| question.path() == path) {
                    Some(question) => agree(question.objection(&self.readiness), question.agreed()),
                    None => plain(
                        StatusCode::NOT_FOUND,
                        "try /metrics, /startupz, /livez or /readyz; and, over the unix socket, /status"
                            .to_owned(),
                    ),
                }
            }
        }
    }
}

/// A refusal that says how to ask.
fn refuse(status: StatusCode, why: &'static str) -> Response<Full<Bytes>> {
    let mut response = plain(status, why.to_owned());
    if status == StatusCode::UNAUTHORIZED {
        let scheme = header::HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

fn agree(objection: Option<String>, agreed: &'static str) -> Response<Full<Bytes>> {
    match objection {
        None => plain(StatusCode::OK, agreed.to_owned()),
        Some(objection) => plain(StatusCode::SERVICE_UNAVAILABLE, objection),
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

/// Why the unix socket cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The path is another kind of file.
    #[error("--socket {} must be the path of a unix socket, but another kind of file is there; name another path, or remove the file", .0.display())]
    NotASocket(PathBuf),
    /// Another process, usually another proxy, listens there.
    #[error("another process listens on --socket {}; end it first, or name another path", .0.display())]
    Taken(PathBuf),
    /// The kernel refuses.
    #[error("failed to listen on --socket {}", .0.display())]
    Io(PathBuf, #[source] io::Error),
}

/// Binds the unix socket, in place of one that an earlier process left. Nothing else is removed: a living proxy whose
/// socket is gone fails its exec probes, and is restarted.
pub fn bind_unix(path: &Path) -> Result<UnixListener, BindError> {
    let failed = |error| BindError::Io(path.to_owned(), error);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(file) if !file.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) if is_served(path).map_err(failed)? => return Err(BindError::Taken(path.to_owned())),
        Ok(_) => fs::remove_file(path).map_err(failed)?,
    }
    UnixListener::bind(path).map_err(failed)
}

/// Whether a process listens on a unix socket, even one that is stopped or that has a full backlog.
fn is_served(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        connected => connected.map(|()| true),
    }
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
    /// There is no socket, and the file in its place has no answer.
    #[error(transparent)]
    StateFile(#[from] state_file::Error),
}

/// Asks the proxy behind a unix socket for an exec probe, or the file that it writes where there are no unix sockets. Returns
/// whether it agrees, and its text.
pub async fn probe(socket: PathBuf, question: Question, within: Duration) -> Result<(bool, String), Error> {
    let file = StateFile::beside(&socket);
    match ask(socket, question.path(), within).await {
        Err(error @ Error::Connect(..)) => file.read(question, clock::since_boot())?.ok_or(error),
        answer => answer,
    }
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as StdListener;

    use super::*;

    #[tokio::test]
    async fn a_socket_is_bound_in_place_of_one_that_nobody_listens_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("proxy.sock");
        drop(StdListener::bind(&path).unwrap());
        assert!(path.exists());
        bind_unix(&path).unwrap();
    }

    #[tokio::test]
    async fn the_socket_of_a_living_process_stays_also_if_it_accepts_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("proxy.sock");
        let living = StdListener::bind(&path).unwrap();
        for _ in 0..3 {
            assert!(matches!(bind_unix(&path), Err(BindError::Taken(_))));
        }
        let mut waiting = Vec::new();
        living.set_nonblocking(true).unwrap();
        while is_served(&path).unwrap() && waiting.len() < 5000 {
            let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            if client.connect(&SockAddr::unix(&path).unwrap()).is_err() {
                break;
            }
            waiting.push(client);
        }
        // The backlog is full.
        assert!(matches!(bind_unix(&path), Err(BindError::Taken(_))));
        assert!(path.exists());
    }

    #[tokio::test]
    async fn no_file_of_another_kind_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        fs::write(&path, "data").unwrap();
        let error = bind_unix(&path).unwrap_err();
        assert!(matches!(error, BindError::NotASocket(_)), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
        assert!(matches!(
            bind_unix(directory.path()),
            Err(BindError::NotASocket(_))
        ));
    }
}
