//! One HTTP/1.1 connection to an apiserver over TLS. Its certificate is verified with the authorities of the service
//! account before the token is sent. Without both files no connection is made.

use std::{
    error, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, task::spawn_blocking, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;
use trivet_crds::wire::Tls;

use crate::{
    cause,
    net::spare,
    open::walk::{Connected, Walk},
    settings::Settings,
    trust::{self, Trust},
    upstream::{ConnectionGuard, Upstreams},
};

/// The limit of a TLS handshake. A hung apiserver does not complete it, and then the next upstream is tried.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(1);

/// The limit of an answer. A healthy apiserver lists or writes one object within milliseconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The longest event. A ConfigMap holds at most 1 MiB, its event a little more.
const LONGEST_EVENT: usize = 4 * 1024 * 1024;

/// With which credentials a proxy speaks to apiservers.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The file with the bearer token. It is read at every request, because kubelet rotates it.
    pub token_file: PathBuf,
    /// The file with the authorities of the apiservers, PEM. The token is sent only to a server whose certificate they
    /// verify.
    pub authority_file: PathBuf,
}

/// A request without its path: what the API server is asked to do.
#[derive(Clone, Debug)]
pub enum Verb {
    /// Read.
    Get,
    /// Apply this object, JSON.
    Apply(Bytes),
    /// Create this object, JSON.
    Create(Bytes),
}

/// Why an attempt failed, as far as the next one depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// This node lacks something, such as the token. The next attempt only reads the file again.
    Local,
    /// The apiserver rejects the token (401) or denies access (403), or its certificate does not verify. Only an
    /// administrator can repair that.
    Denied,
    /// No apiserver could be reached, or the connection broke.
    Other,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No document is in force, so the apiservers are unknown.
    #[error("no document is in force that names the apiservers")]
    NoDocument,
    /// No upstream took the connection.
    #[error("no upstream could be reached")]
    NoUpstream,
    /// The token or the authorities cannot be read.
    #[error("failed to read {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// The file of the authorities holds none.
    #[error("no usable authority in {}", .0.display())]
    Authority(PathBuf, #[source] trust::Error),
    /// The flags and the token do not form a valid request.
    #[error("failed to build the request")]
    Request(#[from] hyper::http::Error),
    /// The connection broke.
    #[error("connection to {0} broke")]
    Connection(SocketAddr, #[source] Box<dyn error::Error + Send + Sync>),
    /// The server has no certificate of the service account's authorities.
    #[error("the certificate of {0} does not verify")]
    Untrusted(SocketAddr, #[source] io::Error),
    /// The connection was closed because its upstream is silent or drains.
    #[error("connection was ended: {0}")]
    Ended(&'static str),
    /// The apiserver rejected the token, or its rights: 401 or 403.
    #[error("the apiserver denied access: {0}")]
    Denied(String),
    /// The apiserver rejected the request.
    #[error("the apiserver refused: {0}")]
    Refused(String),
    /// The answer is no JSON.
    #[error("the apiserver's answer cannot be read")]
    Malformed(#[from] serde_json::Error),
    /// The apiserver did not answer in time.
    #[error("no answer in time")]
    Stalled,
    /// The apiserver ended a watch before its time.
    #[error("the watch ended before its time")]
    EndedEarly,
}

impl Error {
    /// One fixed word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::File(..) | Self::Authority(..) => "NoCredentials",
            Self::Denied(_) => "Denied",
            Self::Untrusted(..) => "Untrusted",
            Self::NoDocument | Self::NoUpstream => "NoUpstream",
            Self::Connection(..) | Self::Ended(_) | Self::EndedEarly => "Broken",
            Self::Request(_) | Self::Refused(_) | Self::Malformed(_) => "Refused",
            Self::Stalled => "Stalled",
        }
    }

    /// What the next attempt depends on.
    pub fn failure(&self) -> Failure {
        match self {
            Self::File(..) | Self::Authority(..) | Self::Request(_) => Failure::Local,
            Self::Denied(_) | Self::Untrusted(..) => Failure::Denied,
            Self::NoDocument
            | Self::NoUpstream
            | Self::Connection(..)
            | Self::Ended(_)
            | Self::Refused(_)
            | Self::Malformed(_)
            | Self::Stalled
            | Self::EndedEarly => Failure::Other,
        }
    }
}

/// A connection that counts for its upstream and is cut with it, like a client's connection.
pub struct Api {
    address: SocketAddr,
    host: String,
    token_file: PathBuf,
    sender: SendRequest<Full<Bytes>>,
    guard: ConnectionGuard,
    _driver: AbortOnDropHandle<()>,
}

impl Api {
    /// Connects to the first upstream that completes a verified handshake. The files are read first: a node without a token
    /// must not cost apiservers a handshake.
    pub async fn connect(upstreams: &Arc<Upstreams>, credentials: &Credentials) -> Result<Self, Error> {
        let settings = upstreams.settings().ok_or(Error::NoDocument)?;
        read(&credentials.token_file).await?;
        let trust = authority(&credentials.authority_file, &settings).await?;
        let mut walk = Walk::new(upstreams, &settings);
        let mut last = Error::NoUpstream;
        while let Some(connected) = walk.next(&[]).await {
            match secure(connected, &settings, (&trust, credentials)).await {
                Ok(api) => return Ok(api),
                Err(error) => {
                    debug!(
                        error = cause::chain(&error),
                        "trying the next upstream for a request to the API"
                    );
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// The whole answer of a short request.
    pub async fn request(&mut self, verb: Verb, path: &str) -> Result<Value, Error> {
        let address = self.address;
        let answer = async {
            let response = self.send(verb, path).await?;
            let body = Limited::new(response.into_body(), LONGEST_EVENT).collect().await;
            let body = body.map_err(|error| Error::Connection(address, error))?;
            Ok(serde_json::from_slice(&body.to_bytes())?)
        };
        timeout(ANSWER_LIMIT, answer)
            .await
            .map_err(|_elapsed| Error::Stalled)?
    }

    /// The events of a watch.
    pub async fn watch(&mut self, path: &str) -> Result<Events<'_>, Error> {
        let response = timeout(ANSWER_LIMIT, self.send(Verb::Get, path));
        let response = response.await.map_err(|_elapsed| Error::Stalled)??;
        Ok(Events {
            body: response.into_body(),
            buffer: BytesMut::new(),
            address: self.address,
            guard: &self.guard,
        })
    }

    async fn send(&mut self, verb: Verb, path: &str) -> Result<Response<Incoming>, Error> {
        let token = read(&self.token_file).await?;
        let request = Request::builder()
            .uri(path)
            .header(header::HOST, self.host.as_str())
            .header(
                header::USER_AGENT,
                concat!("trivet-proxy/", env!("CARGO_PKG_VERSION")),
            )
            .header(header::ACCEPT, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", token.trim()));
        let request = match verb {
            Verb::Get => request.body(Full::default())?,
            Verb::Apply(object) => request
                .method(Method::PATCH)
                .header(header::CONTENT_TYPE, "application/apply-patch+yaml")
                .body(Full::new(object))?,
            Verb::Create(object) => request
                .method(Method::POST)
                .header(header::CONTENT_TYPE, "application/json")
                .body(Full::new(object))?,
        };
        let address = self.address;
        let broken = |error: hyper::Error| Error::Connection(address, error.into());
        self.sender.ready().await.map_err(broken)?;
        let response = tokio::select! {
            response = self.sender.send_request(request) => response.map_err(broken)?,
            ending = self.guard.close_signal.ended() => return Err(Error::Ended(ending.as_str())),
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST_EVENT).collect().await;
        let body = body
            .map_err(|error| Error::Connection(address, error))?
            .to_bytes();
        let told = format!("{status}: {}", String::from_utf8_lossy(&body).trim());
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied(told),
            _ => Error::Refused(told),
        })
    }
}

/// The events of one watch, in order.
pub struct Events<'a> {
    body: Incoming,
    buffer: BytesMut,
    address: SocketAddr,
    guard: &'a ConnectionGuard,
}

impl Events<'_> {
    /// The next event; none once the watch has ended regularly.
    pub async fn next(&mut self) -> Result<Option<Value>, Error> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            if self.buffer.len() > LONGEST_EVENT {
                return Err(Error::Refused("an event without end".to_owned()));
            }
            let frame = tokio::select! {
                frame = self.body.frame() => frame,
                ending = self.guard.close_signal.ended() => return Err(Error::Ended(ending.as_str())),
            };
            match frame {
                Some(Ok(frame)) => self.buffer.extend(frame.into_data().into_iter().flatten()),
                Some(Err(error)) => return Err(Error::Connection(self.address, error.into())),
                None => return Ok(None),
            }
        }
    }
}

async fn read(file: &Path) -> Result<String, Error> {
    let path = file.to_owned();
    let text = spawn_blocking(move || spare::with(|| fs::read_to_string(&path))).await;
    text.map_err(io::Error::from)
        .flatten()
        .map_err(|error| Error::File(file.to_owned(), error))
}

/// The authorities of the service account, for the name that the apiservers' certificates cover.
async fn authority(file: &Path, settings: &Settings) -> Result<Trust, Error> {
    let tls = Tls {
        ca_bundle: read(file).await?,
        server_name: settings.document.tls.server_name.clone(),
    };
    Trust::new(&tls).map_err(|error| Error::Authority(file.to_owned(), error))
}

async fn secure(
    connected: Connected,
    settings: &Settings,
    (trust, credentials): (&Trust, &Credentials),
) -> Result<Api, Error> {
    let Connected {
        stream,
        guard,
        address,
    } = connected;
    let broken = |error: Box<dyn error::Error + Send + Sync>| Error::Connection(address, error);
    let connector = TlsConnector::from(trust.strict());
    let handshake = timeout(HANDSHAKE_LIMIT, connector.connect(trust.server_name(), stream)).await;
    let tls: TlsStream<TcpStream> = handshake.map_err(|_elapsed| Error::Stalled)?.map_err(|error| {
        if is_untrusted(&error) {
            Error::Untrusted(address, error)
        } else {
            broken(error.into())
        }
    })?;
    let (sender, connection) = http1::handshake(TokioIo::new(tls))
        .await
        .map_err(|error| broken(error.into()))?;
    let driver = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%address, %error, "connection to the API ended");
        }
    }));
    let host = settings.document.tls.server_name.clone();
    Ok(Api {
        address,
        host,
        token_file: credentials.token_file.clone(),
        sender,
        guard,
        _driver: driver,
    })
}

/// Whether a handshake failed because of the server's certificate.
fn is_untrusted(error: &io::Error) -> bool {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}
