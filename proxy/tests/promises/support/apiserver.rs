//! An apiserver as far as a layer-4 balancer can tell: TLS, `/readyz`, `/livez`, `/whoami`; and every way to be sick.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// How the apiserver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Well.
    Ready,
    /// Answers `/readyz` with 500, and serves.
    NotReady,
    /// Answers `/readyz` with this status, and serves.
    Status(u16),
    /// Answers `/readyz` late, as when etcd cannot be reached, and `/livez` at once.
    Late(Duration),
    /// Answers no probe, and everything else after this time: no CPU is left.
    Starved(Duration),
    /// Says nothing any more, while its kernel accepts and acknowledges: SIGSTOP.
    Hung,
    /// Its process is gone.
    Killed,
    /// Accepts, and ends every connection before the handshake.
    Closing,
}

/// An object that a client has applied.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    /// The path and query of the request.
    pub(crate) uri: String,
    pub(crate) content_type: String,
    pub(crate) authorization: String,
    pub(crate) object: Value,
}

/// What an apiserver knows of callers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Callers {
    /// The user of each token.
    pub(crate) users: HashMap<&'static str, &'static str>,
    /// The users that may read metrics.
    pub(crate) readers: Vec<&'static str>,
    /// Whether the proxy may not ask.
    pub(crate) forbidden: bool,
}

/// A running apiserver.
pub(crate) struct Apiserver {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    mode: watch::Sender<Mode>,
    tokens: watch::Sender<Vec<String>>,
    probes: Arc<Mutex<Vec<Option<String>>>>,
    applied: Arc<Mutex<Vec<Applied>>>,
    callers: watch::Sender<Callers>,
    reviews: Arc<Mutex<Vec<String>>>,
    served: Arc<AtomicUsize>,
    accepted: Arc<AtomicUsize>,
    _process: AbortOnDropHandle<()>,
}

#[derive(Clone)]
struct Server {
    name: String,
    tls: TlsAcceptor,
    mode: watch::Receiver<Mode>,
    tokens: watch::Receiver<Vec<String>>,
    probes: Arc<Mutex<Vec<Option<String>>>>,
    applied: Arc<Mutex<Vec<Applied>>>,
    callers: watch::Receiver<Callers>,
    reviews: Arc<Mutex<Vec<String>>>,
    served: Arc<AtomicUsize>,
    accepted: Arc<AtomicUsize>,
}

impl Apiserver {
    pub(crate) fn start(name: &str, tls: Arc<ServerConfig>) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), name, tls)
    }

    pub(crate) fn start_at(address: SocketAddr, name: &str, tls: Arc<ServerConfig>) -> Self {
        let (mode, receiver) = watch::channel(Mode::Ready);
        let (tokens, wanted) = watch::channel(Vec::new());
        let (served, accepted) = (Arc::default(), Arc::default());
        let (probes, applied) = (Arc::default(), Arc::default());
        let (callers, known) = watch::channel(Callers::default());
        let reviews = Arc::default();
        let listener = listen(address);
        let address = listener.local_addr().unwrap();
        let process = Server {
            name: name.to_owned(),
            tls: tls.into(),
            mode: receiver,
            tokens: wanted,
            probes: Arc::clone(&probes),
            applied: Arc::clone(&applied),
            callers: known,
            reviews: Arc::clone(&reviews),
            served: Arc::clone(&served),
            accepted: Arc::clone(&accepted),
        };
        Self {
            name: name.to_owned(),
            address,
            mode,
            tokens,
            probes,
            applied,
            callers,
            reviews,
            served,
            accepted,
            _process: AbortOnDropHandle::new(tokio::spawn(process.run(listener, address))),
        }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// From now on `/readyz` and `/livez` are answered 401 unless the request carries this token, or another
    /// that was named so: `anonymous-auth=false`.
    pub(crate) fn demand(&self, token: &str) {
        self.tokens.send_modify(|tokens| tokens.push(token.to_owned()));
    }

    /// The tokens of the requests for `/readyz` so far, none for an anonymous one.
    pub(crate) fn tokens(&self) -> Vec<Option<String>> {
        self.probes.lock().unwrap().clone()
    }

    /// The objects that clients have applied so far.
    pub(crate) fn applied(&self) -> Vec<Applied> {
        self.applied.lock().unwrap().clone()
    }

    /// From now on it knows these callers.
    pub(crate) fn know(&self, callers: Callers) {
        self.callers.send_replace(callers);
    }

    /// The tokens that it was asked about.
    pub(crate) fn reviews(&self) -> Vec<String> {
        self.reviews.lock().unwrap().clone()
    }

    /// Connections that it accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Requests of clients (not probes) that it answered.
    pub(crate) fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(1024).unwrap()
}

impl Server {
    async fn run(mut self, listener: TcpListener, address: SocketAddr) {
        let mut listener = Some(listener);
        loop {
            let mut connections = JoinSet::new();
            let accepting = listener.take().unwrap_or_else(|| listen(address));
            let mut mode = self.mode.clone();
            tokio::select! {
                () = self.accept(&accepting, &mut connections) => {}
                _ = mode.wait_for(|mode| *mode == Mode::Killed) => {}
            }
            // As the kernel does for a killed process: everything is closed.
            drop(accepting);
            connections.shutdown().await;
            if self.mode.wait_for(|mode| *mode != Mode::Killed).await.is_err() {
                return;
            }
        }
    }

    async fn accept(&self, listener: &TcpListener, connections: &mut JoinSet<()>) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            self.accepted.fetch_add(1, Ordering::Relaxed);
            if *self.mode.borrow() == Mode::Closing {
                continue;
            }
            connections.spawn(self.clone().serve(stream));
        }
    }

    async fn serve(mut self, stream: TcpStream) {
        // A stopped process reads nothing, whenever it accepted.
        if stream.peek(&mut [0]).await.is_err() {
            return;
        }
        self.unless_hung().await;
        let Ok(tls) = self.tls.accept(stream).await else {
            return;
        };
        let service = service_fn(|request| {
            let mut server = self.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        // Whatever ends a connection here is what the test asked for.
        drop(
            http1::Builder::new()
                .serve_connection(TokioIo::new(tls), service)
                .await,
        );
    }

    async fn answer(&mut self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        self.unless_hung().await;
        if request.method() == Method::PATCH {
            return self.apply(request).await;
        }
        if request.method() == Method::POST {
            return self.review(request).await;
        }
        let mode = *self.mode.borrow();
        let (status, text) = match (request.uri().path(), mode) {
            ("/readyz" | "/livez", _) if !self.authorizes(&request) => (401, "Unauthorized".to_owned()),
            ("/readyz", Mode::NotReady) => (500, "[+]ping ok\n[-]etcd failed: reason withheld\n".to_owned()),
            ("/readyz", Mode::Status(status)) => (status, "no".to_owned()),
            ("/readyz", Mode::Late(delay)) => {
                sleep(delay).await;
                (500, "[-]etcd failed: reason withheld\n".to_owned())
            }
            ("/readyz" | "/livez", Mode::Starved(_)) => std::future::pending().await,
            ("/whoami", mode) => {
                if let Mode::Starved(delay) = mode {
                    sleep(delay).await;
                }
                self.served.fetch_add(1, Ordering::Relaxed);
                (200, self.name.clone())
            }
            _ => (200, "ok".to_owned()),
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    }

    /// Takes an object as it is, and answers with it as the API does.
    async fn apply(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let text = |name| parts.headers[name].to_str().unwrap().to_owned();
        self.applied.lock().unwrap().push(Applied {
            uri: parts.uri.to_string(),
            content_type: text(header::CONTENT_TYPE),
            authorization: text(header::AUTHORIZATION),
            object: serde_json::from_slice(&body).unwrap(),
        });
        Response::new(Full::new(body))
    }

    /// Says whose token it is, or whether a user may read metrics.
    async fn review(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let asked: Value = serde_json::from_slice(&body).unwrap();
        let callers = self.callers.borrow().clone();
        let status = match parts.uri.path() {
            _ if callers.forbidden => {
                let mut refusal = Response::new(Full::new(Bytes::from("no")));
                *refusal.status_mut() = StatusCode::FORBIDDEN;
                return refusal;
            }
            "/apis/authentication.k8s.io/v1/tokenreviews" => {
                let token = asked["spec"]["token"].as_str().unwrap();
                self.reviews.lock().unwrap().push(token.to_owned());
                match callers.users.get(token) {
                    Some(user) => json!({ "authenticated": true, "user": { "username": user } }),
                    None => json!({ "error": "unknown" }),
                }
            }
            "/apis/authorization.k8s.io/v1/subjectaccessreviews" => {
                assert_eq!(
                    asked["spec"]["nonResourceAttributes"],
                    json!({ "path": "/metrics", "verb": "get" })
                );
                let user = asked["spec"]["user"].as_str().unwrap();
                json!({ "allowed": callers.readers.contains(&user) })
            }
            other => panic!("nobody creates {other}"),
        };
        let mut response = Response::new(Full::new(Bytes::from(json!({ "status": status }).to_string())));
        *response.status_mut() = StatusCode::CREATED;
        response
    }

    fn authorizes(&self, request: &Request<Incoming>) -> bool {
        let given = request.headers().get(header::AUTHORIZATION);
        let given = given.map(|given| given.to_str().unwrap().trim_start_matches("Bearer ").to_owned());
        if request.uri().path() == "/readyz" {
            self.probes.lock().unwrap().push(given.clone());
        }
        let wanted = self.tokens.borrow();
        wanted.is_empty() || given.is_some_and(|given| wanted.contains(&given))
    }

    async fn unless_hung(&mut self) {
        if self.mode.wait_for(|mode| *mode != Mode::Hung).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
