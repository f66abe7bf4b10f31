//! Probe requests over a TLS connection that is kept between probes.
//!
//! A token is sent only on a connection whose certificate verifies at that moment: authority, name and dates.

use std::{error, io, net::SocketAddr, path::PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request,
    client::conn::http1,
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::{fs, time::Instant};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;
use trivet_crds::wire::Tls;

use super::{credential::Credential, reply::Reply};
use crate::{
    cause,
    net::socket::{self, Fault, UpstreamOptions},
    settings::{self, Settings},
    trust::{Certificate, CertificateStatus},
};

/// Makes the request longer than a packet, so that a path that drops large packets fails the probe.
const PADDING: usize = 2048;

/// Longer than any verbose answer of an apiserver.
const LONGEST_BODY: usize = 64 * 1024;

/// Why a probe request got no reply.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The dial failed.
    #[error("failed to connect to {0}")]
    Connect(SocketAddr, #[source] io::Error),
    /// The TLS handshake failed.
    #[error("failed to shake hands with {0}")]
    Handshake(SocketAddr, #[source] io::Error),
    /// The HTTP exchange failed.
    #[error("failed to send a request to {0}")]
    Http(SocketAddr, #[source] Box<dyn error::Error + Send + Sync>),
}

impl Error {
    /// Where the error comes from: this node, the network or the peer.
    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::Connect(_, source) | Self::Handshake(_, source) => Fault::of(source),
            Self::Http(_, source) => io_source(source.as_ref()).map_or(Fault::Other, Fault::of),
        }
    }
}

fn io_source<'a>(error: &'a (dyn error::Error + 'static)) -> Option<&'a io::Error> {
    let mut current = Some(error);
    while let Some(next) = current {
        if let Some(found) = next.downcast_ref() {
            return Some(found);
        }
        current = next.source();
    }
    None
}

/// A connection that probes share: opened at the first request, opened anew once it has ended.
#[derive(Debug, Default)]
pub(super) struct ProbeConnection {
    open: Option<Open>,
    token_file: Option<PathBuf>,
    credential: Credential,
}

#[derive(Debug)]
struct Open {
    address: SocketAddr,
    sender: http1::SendRequest<Empty<Bytes>>,
    driver: AbortOnDropHandle<()>,
    chain: Vec<CertificateDer<'static>>,
    shown: Certificate,
    tls: Tls,
    options: UpstreamOptions,
}

impl Open {
    /// Whether the connection is open and has this address and the authorities, server name and socket options of these
    /// settings. New authorities need a new connection, because a server may show its new certificate only on new
    /// connections. All other changes keep the connection, because otherwise each revision would cost a handshake on every
    /// node.
    fn is_current(&self, address: SocketAddr, settings: &Settings) -> bool {
        self.address == address
            && self.tls == settings.document.tls
            && self.options == settings.probe_socket
            && !self.sender.is_closed()
    }
}

/// A reply, and whether its request carried the token.
struct Exchange {
    reply: Reply,
    with_token: bool,
}

impl ProbeConnection {
    /// A connection whose requests carry the token in this file, if there is one, after they were refused without it.
    /// The file is read for each such request, because the token is rotated.
    pub(super) fn with_token(token_file: Option<PathBuf>) -> Self {
        Self {
            token_file,
            ..Self::default()
        }
    }

    /// Sends one request and waits for its reply. If this future is dropped early, the connection is closed: a late
    /// reply must not be read as the reply to the next request.
    pub(super) async fn get(
        &mut self,
        address: SocketAddr,
        path: &str,
        settings: &Settings,
    ) -> Result<Reply, Error> {
        let token = if self.credential.is_needed() {
            self.token().await
        } else {
            None
        };
        let first = self.exchange(address, path, settings, token.as_deref()).await?;
        let withheld = first.reply.withheld() && !first.with_token;
        if !withheld || !self.credential.may_help(Instant::now()) {
            return Ok(self.take_in(first));
        }
        let Some(token) = self.token().await else {
            return Ok(first.reply);
        };
        let second = self.exchange(address, path, settings, Some(&token)).await?;
        Ok(self.take_in(second))
    }

    fn take_in(&mut self, exchange: Exchange) -> Reply {
        let Exchange { reply, with_token } = exchange;
        if with_token {
            self.credential = self.credential.answered(reply.withheld(), Instant::now());
        }
        reply
    }

    async fn token(&self) -> Option<String> {
        let path = self.token_file.as_ref()?;
        let text = fs::read_to_string(path).await.inspect_err(|error| {
            debug!(path = %path.display(), %error, "no token for probes");
        });
        let token = text.ok()?.trim().to_owned();
        (!token.is_empty()).then_some(token)
    }

    async fn exchange(
        &mut self,
        address: SocketAddr,
        path: &str,
        settings: &Settings,
        token: Option<&str>,
    ) -> Result<Exchange, Error> {
        if let Some(open) = self.open.take().filter(|open| open.is_current(address, settings)) {
            // A server may close an idle connection while a request is on the way. This is not a failure of the server, so
            // the request is sent again on a new connection.
            match self.send(open, path, settings, token).await {
                Ok(exchange) => return Ok(exchange),
                Err(error) => debug!(%address, error = cause::chain(&error), "kept probe connection ended"),
            }
        }
        let open = open(address, settings).await?;
        self.send(open, path, settings, token).await
    }

    /// Waits until the open connection ends; for ever if none is open.
    pub(super) async fn disconnected(&mut self) {
        let Some(open) = &mut self.open else {
            return std::future::pending().await;
        };
        if let Err(error) = (&mut open.driver).await {
            debug!(%error, "probe connection's task failed");
        }
        self.open = None;
    }

    async fn send(
        &mut self,
        mut open: Open,
        path: &str,
        settings: &Settings,
        token: Option<&str>,
    ) -> Result<Exchange, Error> {
        let address = open.address;
        let failed = |error: Box<dyn error::Error + Send + Sync>| Error::Http(address, error);
        // Verified for every request, because a certificate may expire while its connection is kept.
        let certificate = settings.trust.judge(&open.chain, UnixTime::now());
        let token = token.filter(|_| certificate == CertificateStatus::Verified);
        let request = request(path, settings, token).map_err(|error| failed(error.into()))?;
        let response = open
            .sender
            .send_request(request)
            .await
            .map_err(|error| failed(error.into()))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST_BODY)
            .collect()
            .await
            .map_err(failed)?;
        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        let reply = Reply {
            status,
            body,
            certificate,
            shown: open.shown.clone(),
        };
        self.open = Some(open);
        Ok(Exchange {
            reply,
            with_token: token.is_some(),
        })
    }
}

async fn open(address: SocketAddr, settings: &Settings) -> Result<Open, Error> {
    let stream = socket::connect(address, settings.probe_socket)
        .await
        .map_err(|error| Error::Connect(address, error))?;
    let connector = TlsConnector::from(settings.trust.probing());
    let stream = connector
        .connect(settings.trust.server_name(), stream)
        .await
        .map_err(|error| Error::Handshake(address, error))?;
    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let chain: Vec<_> = shown
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect();
    // Once for each connection: it does not change with the time.
    let shown = settings
        .trust
        .read(&chain, &settings::listening_on(&settings.document));
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Error::Http(address, error.into()))?;
    let driver = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%address, %error, "probe connection ended");
        }
    }));
    Ok(Open {
        address,
        sender,
        driver,
        chain,
        shown,
        tls: settings.document.tls.clone(),
        options: settings.probe_socket,
    })
}

fn request(
    path: &str,
    settings: &Settings,
    token: Option<&str>,
) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    let mut request = Request::get(path)
        .header(header::HOST, settings.document.tls.server_name.as_str())
        .header(
            header::USER_AGENT,
            concat!("trivet-proxy/", env!("CARGO_PKG_VERSION")),
        )
        .header("x-trivet-padding", "0".repeat(PADDING));
    if let Some(token) = token {
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))?;
        // Keeps the token out of debug output.
        bearer.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, bearer);
    }
    request.body(Empty::new())
}
