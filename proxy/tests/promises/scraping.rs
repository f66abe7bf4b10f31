//! At an address of the node the metrics are for callers whom the API server lets read them, and for nobody else; the address
//! on loopback stays as it is.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use trivet_crds::wire::Tls;
use trivet_proxy::{admin::NodeAddresses, api::Credentials, app::ExposedMetrics, trust::Trust};

use crate::{
    addresses::free_address,
    support::{
        apiserver::{Apiserver, Callers, Mode},
        authority::{Authority, NAME},
        eventually,
        node::Node,
    },
};

/// An address of this machine that is not the one on which the proxy serves without a token.
const OF_NODE: [u8; 4] = [127, 0, 0, 9];

/// A node whose proxy serves its metrics at such an address too, and an apiserver that knows three callers.
async fn exposed() -> (Node, Apiserver, SocketAddr) {
    let mut node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.server());
    apiserver.know(callers());
    node.write(&node.pool().member(&apiserver));
    let authorities = node.authority.bundle.clone();
    node.use_the_api("of the proxy", &authorities);
    let plain = free_address();
    node.metrics_address = Some(plain);
    node.exposed = Some(ExposedMetrics {
        addresses: NodeAddresses(vec![OF_NODE.into()]),
        credentials: Credentials {
            token_file: node.path("token"),
            authority_file: node.path("ca.crt"),
        },
    });
    node.start().await;
    node.sees(&apiserver, "Up").await;
    (node, apiserver, SocketAddr::from((OF_NODE, plain.port())))
}

fn callers() -> Callers {
    Callers {
        users: HashMap::from([("good", "prometheus"), ("other", "somebody")]),
        readers: vec!["prometheus"],
        forbidden: false,
    }
}

#[tokio::test]
async fn only_a_token_whose_user_may_read_metrics_gets_them_at_the_nodes_address() {
    let (node, apiserver, at) = exposed().await;
    let (status, body) = scrape(at, Some("good")).await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("trivet_proxy_upstream_state{"), "{body}");
    for (token, refused) in [(None, 401), (Some("unknown"), 401), (Some("other"), 403)] {
        let (status, body) = scrape(at, token).await;
        assert_eq!(status, refused, "{token:?}: {body}");
        assert!(!body.contains("trivet_proxy_"), "{body}");
    }
    // Nothing else is served there, whoever asks.
    assert_eq!(get(at, "/readyz", Some("good")).await.0, 404);
    // The answers count for some time, and nobody is asked about a caller without a token.
    scrape(at, Some("good")).await;
    assert_eq!(apiserver.reviews(), ["good", "unknown", "other"]);
    for (answer, times) in [("Allowed", 3), ("Unauthenticated", 2), ("Forbidden", 1)] {
        let line = format!("trivet_proxy_scrapes_total{{answer=\"{answer}\"}}");
        assert_eq!(node.metric(&line).await, Some(times), "{line}");
    }
}

#[tokio::test]
async fn without_tls_nobody_gets_anything_there_and_loopback_asks_for_no_token() {
    let (node, apiserver, at) = exposed().await;
    let plainly = plain(at).await;
    assert!(!plainly.contains("trivet_proxy_"), "{plainly}");
    let loopback = plain(node.metrics_address.unwrap()).await;
    assert!(loopback.contains("trivet_proxy_upstream_state{"), "{loopback}");
    assert!(apiserver.reviews().is_empty());
}

#[tokio::test]
async fn in_an_outage_who_was_allowed_before_goes_on_and_nobody_else_gets_in() {
    let (node, apiserver, at) = exposed().await;
    assert_eq!(scrape(at, Some("good")).await.0, 200);
    apiserver.set(Mode::Killed);
    eventually("the proxy sees the outage", async || {
        let up = "trivet_proxy_upstream_state{member=\"cp1\",state=\"Up\"}";
        node.metric(up).await == Some(0)
    })
    .await;
    let (status, body) = scrape(at, Some("good")).await;
    assert_eq!(status, 200);
    assert!(
        body.contains("trivet_proxy_upstream_state{member=\"cp1\",state=\"Up\"} 0"),
        "{body}"
    );
    assert_eq!(scrape(at, Some("other")).await.0, 503);
}

#[tokio::test]
async fn a_proxy_that_may_not_ask_lets_nobody_in_and_says_which_value_to_set() {
    let (node, apiserver, at) = exposed().await;
    apiserver.know(Callers {
        forbidden: true,
        ..callers()
    });
    assert_eq!(scrape(at, Some("good")).await.0, 503);
    let warnings = node.status().await.warnings;
    let warning = warnings
        .iter()
        .find(|warning| warning.reason == "ScrapersUnknown");
    let message = &warning.unwrap().message;
    assert!(message.contains("monitoring.nodeExposure.enabled"), "{message}");
    let shown = "trivet_proxy_warning{reason=\"ScrapersUnknown\"}";
    assert_eq!(node.metric(shown).await, Some(1));
}

async fn scrape(at: SocketAddr, token: Option<&str>) -> (u16, String) {
    get(at, "/metrics", token).await
}

/// Status and body of a request by a client that verifies no certificate.
async fn get(at: SocketAddr, path: &str, token: Option<&str>) -> (u16, String) {
    let token = token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
    let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\n{token}connection: close\r\n\r\n");
    let stream = connect(at).await;
    let name = ServerName::IpAddress(at.ip().into());
    let mut tls = TlsConnector::from(unverifying())
        .connect(name, stream)
        .await
        .unwrap();
    tls.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // A peer may close without a close_notify.
    let _all_is_there = tls.read_to_string(&mut answer).await;
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

/// What a client without TLS reads.
async fn plain(at: SocketAddr) -> String {
    let mut stream = connect(at).await;
    stream
        .write_all(
            b"GET /metrics HTTP/1.1\r\nhost: node\r\nauthorization: Bearer good\r\nconnection: close\r\n\r\n",
        )
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ended_either_way = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn connect(at: SocketAddr) -> TcpStream {
    eventually("the metrics are served", async || {
        TcpStream::connect(at).await.is_ok()
    })
    .await;
    TcpStream::connect(at).await.unwrap()
}

/// As `insecure_skip_verify` of a Prometheus.
fn unverifying() -> Arc<ClientConfig> {
    let tls = Tls {
        ca_bundle: Authority::new().bundle,
        server_name: NAME.to_owned(),
    };
    Trust::new(&tls).unwrap().probing()
}
