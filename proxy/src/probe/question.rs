//! Questions over one kept-alive TLS connection to one upstream.

use std::{error, io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::reply::Reply;
use crate::{
    cause,
    net::socket::{self, Fault},
    settings::Settings,
};

/// Makes the question longer than a packet, so that a path that drops large ones is noticed.
const PADDING: usize = 2048;

/// More than any verbose answer; the rest would not tell more.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// No connection.
    #[error("failed to connect to {0}")]
    Connect(SocketAddr, #[source] io::Error),
    /// No TLS.
    #[error("failed to shake hands with {0}")]
    Handshake(SocketAddr, #[source] io::Error),
    /// No HTTP.
    #[error("failed to ask {0}")]
    Http(SocketAddr, #[source] Box<dyn error::Error + Send + Sync>),
}

impl Error {
    /// Who failed.
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

/// Asks, and keeps the connection for the next question.
#[derive(Debug, Default)]
pub(super) struct Questioner {
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    address: SocketAddr,
    sender: http1::SendRequest<Empty<Bytes>>,
    driver: AbortOnDropHandle<()>,
    chain: Vec<CertificateDer<'static>>,
    trust: Arc<rustls::ClientConfig>,
}

impl Questioner {
    /// Puts one question. If this is dropped before its end, so is the connection: an answer that comes late must
    /// not be taken for the next one's.
    pub(super) async fn ask(
        &mut self,
        address: SocketAddr,
        path: &str,
        settings: &Settings,
    ) -> Result<Reply, Error> {
        let current =
            |kept: &Kept| kept.address == address && Arc::ptr_eq(&kept.trust, &settings.trust.probing());
        if let Some(kept) = self
            .kept
            .take()
            .filter(|kept| current(kept) && !kept.sender.is_closed())
        {
            // The server may have closed the kept connection at this very moment, which says nothing about it.
            match self.ask_over(kept, path, settings).await {
                Ok(reply) => return Ok(reply),
                Err(error) => debug!(%address, error = cause::chain(&error), "kept probe connection ended"),
            }
        }
        let fresh = open(address, settings).await?;
        self.ask_over(fresh, path, settings).await
    }

    /// Waits until the kept connection ends; for ever if there is none.
    pub(super) async fn disconnected(&mut self) {
        let Some(kept) = &mut self.kept else {
            return std::future::pending().await;
        };
        if let Err(error) = (&mut kept.driver).await {
            debug!(%error, "probe connection's task failed");
        }
        self.kept = None;
    }

    async fn ask_over(&mut self, mut kept: Kept, path: &str, settings: &Settings) -> Result<Reply, Error> {
        let address = kept.address;
        let failed = |error: Box<dyn error::Error + Send + Sync>| Error::Http(address, error);
        let request = question(path, settings).map_err(|error| failed(error.into()))?;
        let response = kept
            .sender
            .send_request(request)
            .await
            .map_err(|error| failed(error.into()))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST_ANSWER)
            .collect()
            .await
            .map_err(failed)?;
        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        let reply = Reply {
            status,
            body,
            // At every answer: a certificate may run out while its connection is kept.
            certificate: settings.trust.judge(&kept.chain, UnixTime::now()),
        };
        self.kept = Some(kept);
        Ok(reply)
    }
}

async fn open(address: SocketAddr, settings: &Settings) -> Result<Kept, Error> {
    let stream = socket::connect(address, settings.probe_socket)
        .await
        .map_err(|error| Error::Connect(address, error))?;
    let trust = settings.trust.probing();
    let connector = TlsConnector::from(Arc::clone(&trust));
    let tls = connector
        .connect(settings.trust.server_name(), stream)
        .await
        .map_err(|error| Error::Handshake(address, error))?;
    let shown = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let chain = shown
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect();
    let (sender, connection) = http1::handshake(TokioIo::new(tls))
        .await
        .map_err(|error| Error::Http(address, error.into()))?;
    let driver = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%address, %error, "probe connection ended");
        }
    }));
    Ok(Kept {
        address,
        sender,
        driver,
        chain,
        trust,
    })
}

fn question(path: &str, settings: &Settings) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    Request::get(path)
        .header(header::HOST, settings.document.tls.server_name.as_str())
        .header(
            header::USER_AGENT,
            concat!("trivet-proxy/", env!("CARGO_PKG_VERSION")),
        )
        .header("x-trivet-padding", "0".repeat(PADDING))
        .body(Empty::new())
}
