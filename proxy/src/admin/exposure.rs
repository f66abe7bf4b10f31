//! The TCP addresses of `/metrics`: the one on loopback, and those of the node, which demand TLS and a token.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info};

use super::{Admin, AdminSocket, BIND_AGAIN, CONNECTIONS, REQUEST_LIMIT, TELL_AFTER, pause};
use crate::{
    authn::{Reviewer, certificate},
    warnings::Topic,
};

/// Addresses of this node, as `status.hostIPs` has them in the environment of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAddresses(pub Vec<IpAddr>);

impl FromStr for NodeAddresses {
    type Err = &'static str;

    /// Nothing is no address: kubelet may not know any.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let addresses = parts.map(str::parse).collect::<Result<_, _>>();
        addresses
            .map(Self)
            .map_err(|_| "must be IP addresses, with commas between them")
    }
}

/// How a TCP address serves.
#[derive(Clone, Debug)]
pub enum Exposure {
    /// To every client, without TLS.
    Plain,
    /// Over TLS, and only callers that the API server lets read metrics.
    Reviewed(Arc<Guard>),
}

/// What an address of the node demands.
pub struct Guard {
    tls: TlsAcceptor,
    pub(super) reviewer: Reviewer,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

impl Guard {
    /// A guard of these addresses, with a certificate of its own.
    pub fn new(addresses: &[IpAddr], reviewer: Reviewer) -> Result<Self, certificate::Error> {
        Ok(Self {
            tls: certificate::server(addresses)?.into(),
            reviewer,
        })
    }
}

impl Exposure {
    /// What a warning about the address is about, and its word.
    fn topic(&self, address: SocketAddr) -> (Topic, &'static str) {
        match self {
            Self::Plain => (Topic::Metrics, "MetricsUnavailable"),
            Self::Reviewed(_) => (Topic::NodeMetrics(address.ip()), "NodeMetricsUnavailable"),
        }
    }
}

impl Admin {
    /// Serves on a TCP address for ever, while this process is the one of its node that serves: the others are told the same
    /// address. Traffic is forwarded even if the port is taken.
    pub async fn serve_tcp(self: Arc<Self>, address: SocketAddr, exposure: Exposure) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            self.readiness.serving().await;
            tokio::select! {
                () = self.serve_metrics(address, &exposure, &slots) => {}
                () = self.readiness.not_serving() => {}
            }
            self.subject.warnings.clear(exposure.topic(address).0);
            info!(%address, "not serving metrics: another process of this node serves");
        }
    }

    async fn serve_metrics(
        self: &Arc<Self>,
        address: SocketAddr,
        exposure: &Exposure,
        slots: &Arc<Semaphore>,
    ) {
        let listener = self.bind_tcp(address, exposure).await;
        info!(%address, ?exposure, "serving metrics");
        loop {
            match listener.accept().await {
                Ok((stream, _peer)) => match exposure {
                    Exposure::Plain => self.serve(stream, AdminSocket::Tcp, slots),
                    Exposure::Reviewed(guard) => self.serve_guarded(stream, guard, slots),
                },
                Err(error) => pause(&error).await,
            }
        }
    }

    /// Binds the address as soon as it is free.
    async fn bind_tcp(&self, address: SocketAddr, exposure: &Exposure) -> TcpListener {
        let (topic, reason) = exposure.topic(address);
        let mut failures = 0_u32;
        loop {
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    self.subject.warnings.clear(topic);
                    return listener;
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if failures >= TELL_AFTER {
                        let message = unavailable(address, &error);
                        self.subject.warnings.raise(topic, reason, message);
                    }
                }
            }
            tokio::time::sleep(BIND_AGAIN).await;
        }
    }

    fn serve_guarded(self: &Arc<Self>, stream: TcpStream, guard: &Arc<Guard>, slots: &Arc<Semaphore>) {
        let Ok(slot) = Arc::clone(slots).try_acquire_owned() else {
            debug!("too many scrapers at once");
            return;
        };
        let (admin, guard) = (Arc::clone(self), Arc::clone(guard));
        tokio::spawn(async move {
            match timeout(REQUEST_LIMIT, guard.tls.accept(stream)).await {
                Ok(Ok(tls)) => admin.converse(tls, AdminSocket::Node(guard)).await,
                Ok(Err(error)) => debug!(%error, "a scraper's handshake failed"),
                Err(_elapsed) => debug!("a scraper's handshake took too long"),
            }
            drop(slot);
        });
    }
}

fn unavailable(address: SocketAddr, error: &io::Error) -> String {
    format!(
        "--metrics-address {address}: failed to listen: {error}; nobody can scrape this proxy's metrics there; end the other program, or name another port"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_node_are_a_list_that_may_be_empty() {
        let read = |text: &str| text.parse().map(|NodeAddresses(addresses)| addresses);
        let both: [IpAddr; 2] = ["10.0.0.11", "fd00::11"].map(|address| address.parse().unwrap());
        assert_eq!(read("10.0.0.11,fd00::11").unwrap(), both);
        assert_eq!(read("").unwrap(), Vec::<IpAddr>::new());
        assert_eq!(read("10.0.0.11, ").unwrap(), both[..1]);
        assert!(read("10.0.0.11:7444").is_err());
        assert!(read("node").is_err());
    }
}
