//! A client of the cluster, as kubelet is one.

use std::{io, net::SocketAddr, sync::Arc};

use rustls::{ClientConfig, ClientConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::authority::NAME;

/// One connection through the proxy.
pub(crate) struct Client {
    stream: TlsStream<TcpStream>,
}

impl Client {
    pub(crate) async fn connect(proxy: SocketAddr, tls: Arc<ClientConfig>) -> io::Result<Self> {
        Self::over(TcpStream::connect(proxy).await?, tls).await
    }

    pub(crate) async fn over(stream: TcpStream, tls: Arc<ClientConfig>) -> io::Result<Self> {
        let stream = TlsConnector::from(tls)
            .connect(NAME.try_into().unwrap(), stream)
            .await?;
        Ok(Self { stream })
    }

    /// Asks who answers on this connection.
    pub(crate) async fn who(&mut self) -> io::Result<String> {
        self.stream
            .write_all(b"GET /whoami HTTP/1.1\r\nhost: kubernetes\r\naccept: text/plain\r\n\r\n")
            .await?;
        let mut answer = [0; 1024];
        let length = self.stream.read(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        let (_, body) = answer
            .split_once("\r\n\r\n")
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(body.to_owned())
    }

    /// Waits until the connection ends, and says how.
    pub(crate) async fn end(&mut self) -> io::ErrorKind {
        match self.stream.read(&mut [0; 1024]).await {
            Ok(_) => io::ErrorKind::UnexpectedEof,
            Err(error) => error.kind(),
        }
    }
}

/// What such a client says first.
pub(crate) fn client_hello(tls: Arc<ClientConfig>) -> Vec<u8> {
    let mut connection = ClientConnection::new(tls, NAME.try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

/// Says this and nothing more, and leaves with the first byte of the answer; from where, as the proxy sees it.
pub(crate) async fn answered(proxy: SocketAddr, first_flight: &[u8]) -> SocketAddr {
    let mut client = TcpStream::connect(proxy).await.unwrap();
    client.write_all(first_flight).await.unwrap();
    client.read_u8().await.unwrap();
    client.local_addr().unwrap()
}
