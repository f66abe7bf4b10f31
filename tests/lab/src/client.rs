//! A client of the cluster: TLS, and HTTP/1.1 by hand, so that nothing is retried behind the test's back.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::authority::NAME;

/// Longer than any client of Kubernetes waits for a connection; nothing here may take nearly as long.
const GIVE_UP: Duration = Duration::from_secs(30);

/// More than any head of an answer.
const LONGEST_HEAD: usize = 16 * 1024;

/// Connects to one address.
#[derive(Clone, Debug)]
pub struct Client {
    target: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Client {
    /// A client of what listens there.
    pub(crate) fn new(target: SocketAddr, tls: Arc<ClientConfig>) -> Self {
        Self { target, tls }
    }

    /// A TLS connection.
    pub async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.target).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await
    }

    /// One request on a connection of its own, answered in full; anything else is an error.
    pub async fn get(&self, path: &str) -> io::Result<String> {
        let conversation = async {
            let mut stream = self.connect().await?;
            ask(&mut stream, path, "close").await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            body(&String::from_utf8_lossy(&answer))
        };
        timeout(GIVE_UP, conversation).await?
    }

    /// Who answers a new connection.
    pub async fn who(&self) -> io::Result<String> {
        self.get("/whoami").await
    }

    /// Opens a watch and returns its stream behind the head of the answer.
    pub(crate) async fn watch(&self) -> io::Result<TlsStream<TcpStream>> {
        let opening = async {
            let mut stream = self.connect().await?;
            ask(&mut stream, "/watch", "keep-alive").await?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
                if head.len() > LONGEST_HEAD {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
            Ok(stream)
        };
        timeout(GIVE_UP, opening).await?
    }
}

async fn ask(stream: &mut TlsStream<TcpStream>, path: &str, connection: &str) -> io::Result<()> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {NAME}\r\nconnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await
}

/// The body of a complete and good answer.
fn body(answer: &str) -> io::Result<String> {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    if !head.starts_with("HTTP/1.1 200") {
        let status = head.lines().next().unwrap_or_default();
        return Err(io::Error::other(status.to_owned()));
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let value = name.eq_ignore_ascii_case("content-length").then_some(value)?;
        value.trim().parse::<usize>().ok()
    });
    match length {
        Some(length) if body.len() != length => Err(io::ErrorKind::UnexpectedEof.into()),
        Some(_) | None => Ok(body.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_an_answer_is_none() {
        assert_eq!(
            body("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ncp1").unwrap(),
            "cp1"
        );
        assert!(body("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ncp").is_err());
        assert!(body("HTTP/1.1 200 OK\r\n").is_err());
        assert!(body("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n").is_err());
    }
}
