//! An upstream that answers probes as an apiserver does, and says to all other clients what they say.

use std::{convert::Infallible, net::SocketAddr};

use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io,
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::authority::Authority;

/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 22;

/// A running apiserver.
pub(crate) struct Apiserver {
    pub(crate) address: SocketAddr,
    pub(crate) authority: Authority,
    _process: AbortOnDropHandle<()>,
}

impl Apiserver {
    pub(crate) fn start() -> Self {
        let authority = Authority::new();
        let tls = TlsAcceptor::from(authority.server());
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(4096).unwrap();
        let address = listener.local_addr().unwrap();
        let process = tokio::spawn(async move {
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, tls.clone()));
                }
            }
        });
        Self {
            address,
            authority,
            _process: AbortOnDropHandle::new(process),
        }
    }
}

/// How a client ends is its own affair.
async fn serve(mut stream: TcpStream, tls: TlsAcceptor) {
    let mut first = [0];
    if stream.peek(&mut first).await.is_err() {
        return;
    }
    if first != [HANDSHAKE] {
        let (mut read, mut write) = stream.split();
        drop(io::copy(&mut read, &mut write).await);
    } else if let Ok(stream) = tls.accept(stream).await {
        let ok = service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok"))))
        });
        let served = http1::Builder::new().serve_connection(TokioIo::new(stream), ok);
        drop(served.await);
    }
}
