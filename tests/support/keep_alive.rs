//! One HTTP/1.1 connection to an apiserver that stays open from request to request.

use std::error::Error;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Bytes};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use trivet_instruments::Client;

/// The limit of an answer. After a fault of seven seconds the kernel may retransmit up to seven seconds later.
const LIMIT: Duration = Duration::from_secs(15);

/// Served by every apiserver that lives, with etcd or without.
const PATH: &str = "/version";

/// A connection that is open.
pub(crate) struct KeepAlive<B> {
    /// The master at its other end.
    pub(crate) server: String,
    /// What sends a request.
    pub(crate) sender: SendRequest<B>,
    /// Drives the connection, and ends with it, with the reason.
    pub(crate) closed: JoinHandle<String>,
}

impl<B> KeepAlive<B>
where
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    /// Opens one.
    pub(crate) async fn open(client: &Client) -> Result<Self> {
        let tls = client.connect().await?;
        let server = client.server_of(&tls);
        let server = server.context("a server with a certificate of no master")?;
        let (sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
        let closed = tokio::spawn(async move {
            match connection.await {
                Ok(()) => "closed".to_owned(),
                Err(error) => format!("{:#}", anyhow::Error::new(error)),
            }
        });
        Ok(Self {
            server,
            sender,
            closed,
        })
    }
}

impl KeepAlive<Empty<Bytes>> {
    /// One request and its whole answer.
    pub(crate) async fn ask(&mut self) -> Result<()> {
        let exchange = async {
            self.sender.ready().await.context("the connection was closed")?;
            let request = Request::get(PATH)
                .header(header::HOST, "kubernetes")
                .body(Empty::<Bytes>::new())?;
            let response = self.sender.send_request(request).await.context("no answer")?;
            let status = response.status();
            response.into_body().collect().await.context("no whole answer")?;
            // 401 and 403 are answers too.
            ensure!(!status.is_server_error(), "{status}");
            Ok(())
        };
        timeout(LIMIT, exchange).await.context("no answer in time")?
    }
}
