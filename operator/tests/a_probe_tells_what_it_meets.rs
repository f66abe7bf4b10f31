//! The operator's probe against real sockets and real TLS: each kind of apiserver is told apart.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot be set up fails"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use kube::Config;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use trivet_operator::api::client::{Access, SERVER_NAME};
use trivet_operator::health::Answer;
use trivet_operator::probe;

/// A cluster's certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// What an apiserver with a certificate of this authority needs to accept.
    fn acceptor(&self) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![SERVER_NAME.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// One probe by an operator that trusts this authority.
    async fn probe(&self, address: SocketAddr) -> Answer {
        let mut config = Config::new(Uri::from_static("https://unused"));
        config.root_cert = Some(vec![self.0.der().to_vec()]);
        let url = format!("https://{address}").parse().unwrap();
        let client = Access::try_new(config).unwrap().anonymous(url).unwrap();
        timeout(Duration::from_secs(5), probe::ask(&client))
            .await
            .expect("a probe is bounded")
    }
}

/// An apiserver that gives the same `answer` to every request, after `delay` for `/readyz`.
async fn apiserver(acceptor: TlsAcceptor, answer: &'static str, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust us ends the handshake: that is what one test is about.
                let Ok(mut tls) = acceptor.accept(stream).await else {
                    return;
                };
                let mut request = vec![0; 4096];
                while let Ok(1..) = tls.read(&mut request).await {
                    if request.starts_with(b"GET /readyz") {
                        sleep(delay).await;
                    }
                    if tls.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const ETCD_RED: &str =
    "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 30\r\n\r\n[+]ping ok\n[-]etcd failed: bad";
const UNAUTHORIZED: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn a_ready_apiserver_is_ready() {
    let authority = Authority::new();
    let address = apiserver(authority.acceptor(), OK, Duration::ZERO).await;
    assert_eq!(authority.probe(address).await, Answer::Ready);
}

#[tokio::test]
async fn an_apiserver_that_is_not_ready_says_why() {
    let authority = Authority::new();
    let address = apiserver(authority.acceptor(), ETCD_RED, Duration::ZERO).await;
    let answer = authority.probe(address).await;
    assert!(
        matches!(&answer, Answer::NotReady(why) if why.contains("[-]etcd failed")),
        "{answer:?}"
    );
}

#[tokio::test]
async fn an_apiserver_without_anonymous_access_is_alive() {
    let authority = Authority::new();
    let address = apiserver(authority.acceptor(), UNAUTHORIZED, Duration::ZERO).await;
    assert_eq!(authority.probe(address).await, Answer::Withheld);
}

#[tokio::test]
async fn an_apiserver_that_waits_for_etcd_is_not_silent() {
    let authority = Authority::new();
    let address = apiserver(authority.acceptor(), OK, Duration::from_secs(4)).await;
    let answer = authority.probe(address).await;
    assert!(matches!(answer, Answer::NotReady(_)), "{answer:?}");
}

#[tokio::test]
async fn an_apiserver_of_another_cluster_is_not_trusted() {
    let address = apiserver(Authority::new().acceptor(), OK, Duration::ZERO).await;
    let answer = Authority::new().probe(address).await;
    assert!(matches!(answer, Answer::Untrusted(_)), "{answer:?}");
}

#[tokio::test]
async fn a_port_where_nobody_listens_refuses() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let answer = Authority::new().probe(address).await;
    assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
}

#[tokio::test]
async fn an_apiserver_that_accepts_and_says_nothing_is_silent() {
    // The kernel accepts for a process that is stopped.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(Authority::new().probe(address).await, Answer::Silent);
}
