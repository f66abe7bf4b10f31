//! Servers beside the apiservers, on masters: TLS with the certificate of the master's apiserver, and one answer to everything.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv6Addr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustls::{ServerConfig, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use trivet_testbed::Host;

use crate::inside::inside;

/// The answer to each request.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n";

/// The end of a request without a body.
const END: &[u8] = b"\r\n\r\n";

/// One server on each of some masters, all at one port.
#[derive(Debug)]
pub struct OtherServers {
    stop: CancellationToken,
    /// The masters whose server hangs: its kernel goes on to accept and to acknowledge.
    hung: watch::Sender<BTreeSet<String>>,
    servers: Vec<JoinHandle<Result<()>>>,
}

impl OtherServers {
    /// Starts them. All listen when this returns.
    pub async fn start(masters: &[Host], port: u16) -> Result<Self> {
        let mut others = Self {
            stop: CancellationToken::new(),
            hung: watch::Sender::default(),
            servers: Vec::new(),
        };
        for master in masters {
            let name = master.name().to_string();
            let server = Server {
                tls: certified(master)?.into(),
                name: name.clone(),
                hung: others.hung.subscribe(),
            };
            let (host, stop) = (master.clone(), others.stop.clone());
            let (bound, is_bound) = oneshot::channel();
            let work = move || server.run(port, bound, stop);
            others
                .servers
                .push(tokio::spawn(async move { inside(&host, work).await? }));
            if is_bound.await.is_err() {
                let what = format!("{name}: port {port}");
                match others.finish().await {
                    Ok(()) => bail!("{what}: the server did not start"),
                    Err(error) => return Err(error.context(what)),
                }
            }
        }
        Ok(others)
    }

    /// From now on the servers of these masters hang, and the others do not.
    pub fn hang(&self, masters: &[&str]) {
        let masters = masters.iter().map(|&master| master.to_owned());
        self.hung.send_replace(masters.collect());
    }

    /// Ends them.
    pub async fn finish(self) -> Result<()> {
        self.stop.cancel();
        for server in self.servers {
            server.await.context("a server was lost")??;
        }
        Ok(())
    }
}

/// The TLS of a master's apiserver, by whose certificate clients know the master.
fn certified(master: &Host) -> Result<Arc<ServerConfig>> {
    let pem = |name: &str| {
        let path = master.file(format!("/etc/kubernetes/pki/{name}"));
        fs::read(&path).with_context(|| format!("failed to read {}", path.display()))
    };
    let certificates = CertificateDer::pem_slice_iter(&pem("apiserver.crt")?).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(&pem("apiserver.key")?).context("failed to read the key")?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("failed to set up TLS")?
        .with_no_client_auth()
        .with_single_cert(certificates.context("failed to read the certificate")?, key)
        .context("failed to use the certificate")?;
    Ok(Arc::new(config))
}

#[derive(Clone)]
struct Server {
    tls: TlsAcceptor,
    name: String,
    hung: watch::Receiver<BTreeSet<String>>,
}

impl Server {
    async fn run(self, port: u16, bound: oneshot::Sender<()>, stop: CancellationToken) -> Result<()> {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
            .await
            .with_context(|| format!("failed to listen on port {port}"))?;
        if bound.send(()).is_err() {
            bail!("nobody waits for the server");
        }
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => {
                    let (stream, _) = accepted.context("failed to accept")?;
                    // What becomes of it is for the client to say.
                    connections.spawn(self.clone().serve(stream));
                }
                Some(_) = connections.join_next() => {}
            }
        }
        connections.shutdown().await;
        Ok(())
    }

    async fn serve(mut self, stream: TcpStream) -> Result<()> {
        self.unless_hung().await?;
        let mut stream = self.tls.accept(stream).await?;
        let (mut heard, mut part) = (Vec::new(), [0; 4096]);
        loop {
            let length = stream.read(&mut part).await?;
            if length == 0 {
                return Ok(());
            }
            heard.extend_from_slice(part.get(..length).unwrap_or_default());
            if heard.ends_with(END) {
                self.unless_hung().await?;
                stream.write_all(ANSWER).await?;
                heard.clear();
            }
        }
    }

    async fn unless_hung(&mut self) -> Result<()> {
        let name = &self.name;
        self.hung.wait_for(|hung| !hung.contains(name)).await?;
        Ok(())
    }
}
