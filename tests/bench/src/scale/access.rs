//! Requests to the apiserver, over HTTP/2 as client-go makes them.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::{self, NAME};

/// Where the apiserver is asked.
pub(crate) const ENDPOINT: &str = "127.0.0.1:6443";

/// How to reach the apiserver, as the administrator of this run.
#[derive(Debug)]
pub(crate) struct Access {
    tls: Arc<ClientConfig>,
    token: &'static str,
    connection: OnceCell<SendRequest<Full<Bytes>>>,
}

/// A write.
#[derive(Debug)]
pub(crate) struct Call {
    method: Method,
    path: String,
    kind: &'static str,
    body: Bytes,
}

impl Call {
    /// Creates an object in the collection at `path`.
    pub(crate) fn create(path: impl Into<String>, object: &Value) -> Self {
        Self {
            method: Method::POST,
            path: path.into(),
            kind: "application/json",
            body: object.to_string().into(),
        }
    }

    /// Merges these fields into the object at `path`.
    pub(crate) fn merge(path: impl Into<String>, fields: &Value) -> Self {
        Self {
            method: Method::PATCH,
            path: path.into(),
            kind: "application/merge-patch+json",
            body: fields.to_string().into(),
        }
    }

    /// Applies an object, YAML or JSON, at `path`, which names the field manager.
    pub(crate) fn apply(path: impl Into<String>, object: impl Into<Bytes>) -> Self {
        Self {
            method: Method::PATCH,
            path: path.into(),
            kind: "application/apply-patch+yaml",
            body: object.into(),
        }
    }
}

impl Access {
    /// With this authority and token. Nothing is connected yet.
    pub(crate) fn new(bundle: &Path, token: &'static str) -> Result<Self> {
        Ok(Self {
            tls: authority::client(bundle)?,
            token,
            connection: OnceCell::new(),
        })
    }

    /// Another connection, over HTTP/1.1.
    pub(crate) async fn connect_http1(&self) -> Result<TlsStream<TcpStream>> {
        let mut tls = (*self.tls).clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        connect(Arc::new(tls)).await
    }

    /// The value of the header that says who asks.
    pub(crate) fn authorization(&self) -> String {
        format!("Bearer {}", self.token)
    }

    /// Gets an object or a list; none if there is none.
    pub(crate) async fn get(&self, path: &str) -> Result<Option<Value>> {
        let request = self.request(Method::GET, path).body(Full::default());
        let request = request.with_context(|| format!("failed to make a request of {path}"))?;
        let (status, body) = self.answer(request).await?;
        match status {
            StatusCode::OK => Ok(Some(serde_json::from_slice(&body)?)),
            StatusCode::NOT_FOUND => Ok(None),
            status => bail!("GET {path}: {status}: {}", String::from_utf8_lossy(&body)),
        }
    }

    /// Writes, and returns what is there then.
    pub(crate) async fn write(&self, call: Call) -> Result<Value> {
        let what = format!("{} {}", call.method, call.path);
        let request = self
            .request(call.method, &call.path)
            .header("content-type", call.kind)
            .body(Full::new(call.body))
            .with_context(|| format!("failed to make {what}"))?;
        let (status, body) = self.answer(request).await?;
        if !status.is_success() {
            bail!("{what}: {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(serde_json::from_slice(&body)?)
    }

    fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("https://{NAME}{path}"))
            .header("authorization", self.authorization())
    }

    async fn answer(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes)> {
        let mut sender = self.connection.get_or_try_init(|| self.connect()).await?.clone();
        let response = sender
            .send_request(request)
            .await
            .context("the apiserver did not answer")?;
        let status = response.status();
        let body = response.into_body().collect().await;
        Ok((status, body.context("the answer broke off")?.to_bytes()))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let tls = connect(Arc::clone(&self.tls)).await?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
        // Its end shows in the requests.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

async fn connect(tls: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(ENDPOINT)
        .await
        .with_context(|| format!("failed to connect to {ENDPOINT}"))?;
    stream.set_nodelay(true)?;
    let connected = TlsConnector::from(tls).connect(NAME.try_into()?, stream).await;
    connected.with_context(|| format!("failed to speak TLS with {ENDPOINT}"))
}
