//! A client of a cluster: TLS against its authority, and HTTP/1.1 on a connection of its own, never retried.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::client::{Resumption, verify_server_name};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{Attempt, Outcome};

/// The name that every apiserver's certificate covers; loopback is in none of kubeadm's.
pub const SERVER_NAME: &str = "kubernetes";

/// Twice what kubectl waits for a handshake: a user would have noticed long before.
const LIMIT: Duration = Duration::from_secs(10);

/// A client of what listens at one address.
#[derive(Clone)]
pub struct Client {
    tls: Arc<ClientConfig>,
    to: SocketAddr,
    path: Arc<str>,
    /// Each server's own name in its certificate; without any, a server is known by what it answers.
    servers: Arc<BTreeMap<String, ServerName<'static>>>,
}

/// A whole answer and who gave it.
struct Answer {
    status: u16,
    body: String,
    server: Option<String>,
}

/// A way to trust these authorities and no other. Each connection is a full handshake, as a stranger's first one is.
pub fn trusting<'a>(authorities: impl IntoIterator<Item = CertificateDer<'a>>) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots
            .add(authority.into_owned())
            .context("failed to trust an authority")?;
    }
    let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("failed to set up TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.resumption = Resumption::disabled();
    Ok(Arc::new(tls))
}

impl Client {
    /// A client that asks for `path`.
    pub fn new(tls: Arc<ClientConfig>, to: SocketAddr, path: &str) -> Self {
        Self {
            tls,
            to,
            path: path.into(),
            servers: Arc::default(),
        }
    }

    /// The same client, which tells these servers apart by the names in their certificates.
    pub fn knowing(self, servers: &[String]) -> Result<Self> {
        let named = |name: &String| Ok((name.clone(), ServerName::try_from(name.clone())?));
        let servers: BTreeMap<_, _> = servers.iter().map(named).collect::<Result<_>>()?;
        Ok(Self {
            servers: Arc::new(servers),
            ..self
        })
    }

    /// The same client, asking for another path: an apiserver that ends says so at `/readyz`, and serves all else.
    #[must_use]
    pub fn asking(self, path: &str) -> Self {
        Self {
            path: path.into(),
            ..self
        }
    }

    /// The same client of another address.
    #[must_use]
    pub fn at(self, to: SocketAddr) -> Self {
        Self { to, ..self }
    }

    /// A TLS connection.
    pub async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.to).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await
    }

    /// The server at the other end of a connection, by its certificate.
    pub fn server_of(&self, connection: &TlsStream<TcpStream>) -> Option<String> {
        let (_, session) = connection.get_ref();
        let certificate = session.peer_certificates()?.first()?;
        let certificate = ParsedCertificate::try_from(certificate).ok()?;
        let mut servers = self.servers.iter();
        let (server, _) = servers.find(|(_, name)| verify_server_name(&certificate, name).is_ok())?;
        Some(server.clone())
    }

    /// The body of a whole answer of status 200 to one request on a connection of its own; anything else is an error.
    pub async fn get(&self, path: &str) -> io::Result<String> {
        let answer = timeout(LIMIT, self.ask(path)).await?;
        let answer = answer.map_err(|error| match kind_of(&error) {
            Some(kind) => io::Error::new(kind, error),
            None => io::Error::other(error),
        })?;
        match answer.status {
            200 => Ok(answer.body),
            status => Err(io::Error::other(format!("status {status}"))),
        }
    }

    /// What the server calls itself that answers a new connection.
    pub async fn who(&self) -> io::Result<String> {
        self.get("/whoami").await
    }

    /// One attempt. It never fails as a function: how it went is its value.
    pub async fn attempt(&self) -> Attempt {
        let (at, started) = (Timestamp::now(), Instant::now());
        let asked = timeout(LIMIT, self.ask(&self.path)).await;
        let took = started.elapsed();
        let (outcome, server, error) = match asked {
            Ok(Ok(Answer {
                status: 200, server, ..
            })) => (Outcome::Answered, server, None),
            Ok(Ok(Answer { status, body, server })) => {
                (Outcome::NotOk, server, Some(format!("{status}: {}", body.trim())))
            }
            Ok(Err(error)) => (outcome_of(&error), None, Some(format!("{error:#}"))),
            Err(_) => (
                Outcome::TimedOut,
                None,
                Some(format!("no whole answer within {} s", LIMIT.as_secs())),
            ),
        };
        Attempt {
            at,
            started,
            took,
            outcome,
            server,
            error,
        }
    }

    async fn ask(&self, path: &str) -> Result<Answer> {
        let tls = self.connect().await.context("failed to connect")?;
        let server = self.server_of(&tls);
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls))
            .await
            .context("failed to start HTTP")?;
        let request = Request::get(path)
            .header(header::HOST, SERVER_NAME)
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .context("failed to write a request")?;
        let exchange = async {
            let response = sender
                .send_request(request)
                .await
                .context("failed to get an answer")?;
            let status = response.status().as_u16();
            let body = response
                .into_body()
                .collect()
                .await
                .context("failed to get the whole answer")?
                .to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            let server = if self.servers.is_empty() {
                Some(body.clone())
            } else {
                server
            };
            Ok(Answer { status, body, server })
        };
        // The connection is driven beside the exchange; that it ends early shows as the exchange's failure.
        let (answer, _) = tokio::join!(exchange, connection);
        answer
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("to", &self.to)
            .field("path", &self.path)
            .field("servers", &self.servers.keys())
            .finish_non_exhaustive()
    }
}

fn outcome_of(error: &anyhow::Error) -> Outcome {
    match kind_of(error) {
        Some(ErrorKind::ConnectionRefused) => Outcome::Refused,
        Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Outcome::Reset,
        Some(ErrorKind::TimedOut) => Outcome::TimedOut,
        Some(ErrorKind::InvalidData) => Outcome::Untrusted,
        Some(_) | None => Outcome::Ended,
    }
}

/// The kernel's word for a failure, wherever in the chain it is.
fn kind_of(error: &anyhow::Error) -> Option<ErrorKind> {
    let mut causes = error.chain();
    causes
        .find_map(|cause| cause.downcast_ref::<io::Error>())
        .map(io::Error::kind)
}
