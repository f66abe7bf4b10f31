//! The server behind all peers. The first byte of a connection says what it wants; TLS begins with a byte of its own.
//!
//! What is timed has a thread each, so that the kernel shares the CPU between them; what only waits, or speaks HTTP,
//! shares the main thread.

use std::convert::Infallible;
use std::io::{self, Read as _, Write as _};
use std::net;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::authority;
use crate::cli::Serve;
use crate::process;

/// Everything comes back, this byte too; on the shared thread.
pub(crate) const ECHO: u8 = b'E';

/// What follows comes back, from a thread of its own.
pub(crate) const RETURN: u8 = b'R';

/// Eight bytes follow, most significant first: so many bytes are sent, and the next eight are awaited.
pub(crate) const SEND: u8 = b'S';

/// The first byte of a TLS handshake.
const TLS: u8 = 0x16;

/// As long as a list of some thousand pods.
pub(crate) const LIST: usize = 20 * 1024 * 1024;

/// As long as a lease.
pub(crate) const SMALL: usize = 512;

/// What is sent at once of a bulk answer.
const CHUNK: usize = 256 * 1024;

/// Longer than a packet, as a real verbose answer is.
const READY: [u8; 1700] = [b'o'; 1700];

/// Serves until it is ended.
pub(crate) fn run(serve: &Serve) -> Result<()> {
    process::end_with_parent()?;
    let config = authority::server(&serve.certificate, &serve.key)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(accept(serve, TlsAcceptor::from(config)))
}

async fn accept(serve: &Serve, tls: TlsAcceptor) -> Result<()> {
    let listener = listen(serve.address).with_context(|| format!("failed to listen on {}", serve.address))?;
    let content = Arc::new(Content::new());
    loop {
        let (stream, _) = listener.accept().await.context("failed to accept")?;
        let (tls, content) = (tls.clone(), Arc::clone(&content));
        tokio::spawn(async move {
            // A client that leaves early has its reason, and tells it.
            drop(greet(stream, tls, content).await);
        });
    }
}

fn listen(address: net::SocketAddr) -> io::Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}

async fn greet(mut stream: TcpStream, tls: TlsAcceptor, content: Arc<Content>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    stream.peek(&mut first).await?;
    match first {
        [TLS] => serve_http(tls.accept(stream).await?, content).await,
        [ECHO] => {
            let mut buffer = [0; 64];
            while let taken @ 1.. = stream.read(&mut buffer).await? {
                stream.write_all(buffer.get(..taken).unwrap_or_default()).await?;
            }
            Ok(())
        }
        [RETURN] => in_thread(stream, give_back),
        [SEND] => in_thread(stream, send),
        [_] => Ok(()),
    }
}

fn in_thread(stream: TcpStream, work: fn(net::TcpStream) -> io::Result<()>) -> Result<()> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    // Detached: it ends with its connection.
    thread::spawn(move || {
        let mut stream = stream;
        stream.read_exact(&mut [0])?;
        work(stream)
    });
    Ok(())
}

fn give_back(mut stream: net::TcpStream) -> io::Result<()> {
    let mut buffer = [0; 64];
    loop {
        stream.read_exact(&mut buffer)?;
        stream.write_all(&buffer)?;
    }
}

fn send(mut stream: net::TcpStream) -> io::Result<()> {
    let chunk = vec![0; CHUNK];
    let mut wanted = [0; 8];
    loop {
        stream.read_exact(&mut wanted)?;
        let mut left = usize::try_from(u64::from_be_bytes(wanted)).unwrap_or(usize::MAX);
        while left > 0 {
            let now = chunk.get(..left.min(CHUNK)).unwrap_or_default();
            stream.write_all(now)?;
            left -= now.len();
        }
    }
}

/// What is served, made once.
struct Content {
    list: Bytes,
    small: Bytes,
}

impl Content {
    fn new() -> Self {
        Self {
            list: vec![b'l'; LIST].into(),
            small: vec![b's'; SMALL].into(),
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, body) = match request.uri().path() {
            "/list" => (StatusCode::OK, self.list.clone()),
            "/small" => (StatusCode::OK, self.small.clone()),
            "/readyz" | "/livez" => (StatusCode::OK, Bytes::from_static(&READY)),
            _ => (StatusCode::NOT_FOUND, Bytes::new()),
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        response
    }
}

async fn serve_http(stream: tokio_rustls::server::TlsStream<TcpStream>, content: Arc<Content>) -> Result<()> {
    let wants_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request: Request<Incoming>| {
        let response = content.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let stream = TokioIo::new(stream);
    if wants_http2 {
        http2::Builder::new(TokioExecutor::new())
            .serve_connection(stream, service)
            .await?;
    } else {
        http1::Builder::new().serve_connection(stream, service).await?;
    }
    Ok(())
}
