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
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use trivet_crds::wire::Tls;
use trivet_operator::api::client::{Access, anonymous};
use trivet_operator::health::Answer;
use trivet_operator::probe;
use trivet_trust::Trust;

/// The name that certificates of kubeadm have.
const SERVER_NAME: &str = "kubernetes";

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
        self.acceptor_for(&[SERVER_NAME])
    }

    /// The same, with a certificate for these names.
    fn acceptor_for(&self, names: &[&str]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        acceptor(certificate.der().clone(), &key.serialize_der())
    }

    /// One probe by an operator that trusts this authority.
    async fn probe(&self, address: SocketAddr) -> Answer {
        probe(&self.0.pem(), SERVER_NAME, address).await
    }
}

fn acceptor(certificate: CertificateDer<'static>, key: &[u8]) -> TlsAcceptor {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// One probe by an operator that trusts the authorities of `bundle`, and asks for `name`.
async fn probe(bundle: &str, name: &str, address: SocketAddr) -> Answer {
    let trust = Trust::new(&Tls {
        ca_bundle: bundle.to_owned(),
        server_name: name.to_owned(),
    });
    let url = format!("https://{address}").parse().unwrap();
    let client = anonymous(url, &trust.unwrap());
    timeout(Duration::from_secs(5), probe::ask(&client))
        .await
        .expect("a probe is bounded")
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

#[tokio::test]
async fn a_certificate_without_the_name_says_which_it_has_and_what_to_set() {
    let authority = Authority::new();
    let address = apiserver(
        authority.acceptor_for(&["api.example.com", "10.0.0.1"]),
        OK,
        Duration::ZERO,
    )
    .await;
    let answer = authority.probe(address).await;
    let Answer::Untrusted(why) = &answer else {
        panic!("{answer:?}");
    };
    for part in [
        "api.example.com",
        "10.0.0.1",
        "not kubernetes",
        "set healthCheck.tlsServerName",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    for name in ["api.example.com", "10.0.0.1"] {
        assert_eq!(
            probe(&authority.0.pem(), name, address).await,
            Answer::Ready,
            "{name}"
        );
    }
}

/// A certificate that an authority with a key on P-521 has signed with SHA-512, and its key: ring verifies neither.
const P521_BUNDLE: &str = include_str!("../../trust/tests/certificates/signed-by-p521-ca.crt");
const P521_SIGNED: &[u8] = include_bytes!("../../trust/tests/certificates/signed-by-p521.crt");
const P521_SIGNED_KEY: &[u8] = include_bytes!("../../trust/tests/certificates/signed-by-p521.key");

async fn p521_apiserver() -> SocketAddr {
    let certificate = CertificateDer::from_pem_slice(P521_SIGNED).unwrap();
    let key = PrivatePkcs8KeyDer::from_pem_slice(P521_SIGNED_KEY).unwrap();
    let acceptor = acceptor(certificate, key.secret_pkcs8_der());
    apiserver(acceptor, OK, Duration::ZERO).await
}

#[tokio::test]
async fn an_apiserver_of_a_p521_authority_is_verified_by_its_probe() {
    let address = p521_apiserver().await;
    assert_eq!(probe(P521_BUNDLE, SERVER_NAME, address).await, Answer::Ready);
}

#[tokio::test]
async fn an_apiserver_of_a_p521_authority_is_verified_by_the_operators_own_client() {
    let address = p521_apiserver().await;
    let mut config = Config::new(format!("https://{address}").parse::<Uri>().unwrap());
    let authority = CertificateDer::from_pem_slice(P521_BUNDLE.as_bytes()).unwrap();
    config.root_cert = Some(vec![authority.to_vec()]);
    config.tls_server_name = Some(SERVER_NAME.to_owned());
    let client = Access::try_new(config).unwrap().unfenced().unwrap();
    assert_eq!(probe::ask(&client).await, Answer::Ready);
}

#[tokio::test]
async fn an_apiserver_whose_certificate_is_its_own_authority_is_verified() {
    let mut params = CertificateParams::new(vec![SERVER_NAME.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let acceptor = acceptor(certificate.der().clone(), &key.serialize_der());
    let address = apiserver(acceptor, OK, Duration::ZERO).await;
    assert_eq!(
        probe(&certificate.pem(), SERVER_NAME, address).await,
        Answer::Ready
    );
}
