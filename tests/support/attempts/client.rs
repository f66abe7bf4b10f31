//! One attempt: a new connection, a TLS handshake against the cluster's CA, one request, its whole answer.

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
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Attempt, Outcome};

/// The name that every apiserver's certificate covers; loopback is in none of kubeadm's.
const SERVER_NAME: &str = "kubernetes";

/// Twice what kubectl waits for a handshake; whoever waits longer has long been told by a user.
const LIMIT: Duration = Duration::from_secs(10);

/// What an attempt needs to know of its cluster.
#[derive(Clone)]
pub struct Client {
    tls: TlsConnector,
    server_name: ServerName<'static>,
    /// Each master's own name in its certificate.
    masters: BTreeMap<String, ServerName<'static>>,
    path: &'static str,
}

/// An answer and who gave it.
struct Answer {
    status: u16,
    body: Bytes,
    server: Option<String>,
}

impl Client {
    /// A client that trusts `authority` (PEM) and can tell `masters` apart by the names in their certificates.
    pub fn new(authority: &[u8], masters: &[String]) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority) {
            let certificate = certificate.context("failed to read the cluster's CA")?;
            roots
                .add(certificate)
                .context("failed to trust the cluster's CA")?;
        }
        let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("failed to set up TLS")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Every attempt is a stranger's first one: full handshake, own certificate.
        tls.resumption = Resumption::disabled();
        let named = |name: &String| Ok((name.clone(), ServerName::try_from(name.clone())?));
        Ok(Self {
            tls: TlsConnector::from(Arc::new(tls)),
            server_name: ServerName::try_from(SERVER_NAME)?,
            masters: masters.iter().map(named).collect::<Result<_>>()?,
            path: "/readyz",
        })
    }

    /// The same client, asking for another path: an apiserver that ends says so at `/readyz`, and serves all else.
    #[must_use]
    pub fn asking(self, path: &'static str) -> Self {
        Self { path, ..self }
    }

    /// A new connection and the master at its other end.
    pub(crate) async fn connect(&self, to: SocketAddr) -> Result<(TlsStream<TcpStream>, Option<String>)> {
        let tcp = TcpStream::connect(to).await.context("failed to connect")?;
        tcp.set_nodelay(true).context("failed to set TCP_NODELAY")?;
        let tls = self
            .tls
            .connect(self.server_name.clone(), tcp)
            .await
            .context("failed to shake hands")?;
        let server = self.recognise(tls.get_ref().1.peer_certificates());
        Ok((tls, server))
    }

    /// One attempt. It never fails as a function: how it went is its value.
    pub async fn attempt(&self, to: SocketAddr) -> Attempt {
        let (at, start) = (Timestamp::now(), Instant::now());
        let outcome = timeout(LIMIT, self.ask(to)).await;
        let milliseconds = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let failed = |outcome, error| Attempt {
            at,
            milliseconds,
            outcome,
            server: None,
            error: Some(error),
        };
        match outcome {
            Ok(Ok(Answer {
                status: 200, server, ..
            })) => Attempt {
                at,
                milliseconds,
                outcome: Outcome::Answered,
                server,
                error: None,
            },
            Ok(Ok(Answer { status, body, server })) => Attempt {
                server,
                ..failed(
                    Outcome::NotOk,
                    format!("{status}: {}", String::from_utf8_lossy(&body).trim()),
                )
            },
            Ok(Err(error)) => failed(outcome_of(&error), format!("{error:#}")),
            Err(_) => failed(
                Outcome::TimedOut,
                format!("no whole answer within {} s", LIMIT.as_secs()),
            ),
        }
    }

    async fn ask(&self, to: SocketAddr) -> Result<Answer> {
        let (tls, server) = self.connect(to).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls))
            .await
            .context("failed to start HTTP")?;
        let request = Request::get(self.path)
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
                .context("failed to get the whole answer")?;
            Ok(Answer {
                status,
                body: body.to_bytes(),
                server,
            })
        };
        // The connection is driven beside the exchange; that it ends early shows as the exchange's failure.
        let (answer, _) = tokio::join!(exchange, connection);
        answer
    }

    fn recognise(&self, certificates: Option<&[CertificateDer<'_>]>) -> Option<String> {
        let certificate = ParsedCertificate::try_from(certificates?.first()?).ok()?;
        let is = |name: &ServerName<'_>| verify_server_name(&certificate, name).is_ok();
        self.masters
            .iter()
            .find(|(_, own_name)| is(own_name))
            .map(|(master, _)| master.clone())
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("masters", &self.masters.keys())
            .finish_non_exhaustive()
    }
}

/// The kernel's word for a failure, wherever in the chain it is.
fn outcome_of(error: &anyhow::Error) -> Outcome {
    let kind = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>())
        .map(io::Error::kind);
    match kind {
        Some(ErrorKind::ConnectionRefused) => Outcome::Refused,
        Some(ErrorKind::TimedOut) => Outcome::TimedOut,
        Some(ErrorKind::InvalidData) => Outcome::Untrusted,
        Some(_) | None => Outcome::Reset,
    }
}
