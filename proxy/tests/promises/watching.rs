//! The ConfigMap is followed through the proxy's own upstreams, and the token goes to nobody but this cluster's apiservers.

use std::{
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::task::AbortOnDropHandle;

use crate::support::{authority::Authority, eventually, node::Node};

/// How long a connection may take for its first request before it counts as one without any.
const FIRST_REQUEST: Duration = Duration::from_secs(2);

/// What an apiserver with one ConfigMap has been asked.
#[derive(Default)]
struct Asked {
    /// Lists and watches, each with its query and token.
    config_maps: Vec<String>,
    /// Connections that ended, or waited, without a request.
    silent: usize,
    /// Handshakes that the client ended.
    rejected: usize,
}

/// An apiserver that is ready and has one ConfigMap.
struct ConfigMaps {
    address: SocketAddr,
    asked: Arc<Mutex<Asked>>,
    document: Arc<Mutex<String>>,
    _process: AbortOnDropHandle<()>,
}

impl ConfigMaps {
    async fn start(tls: Arc<ServerConfig>, status: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, document) = (Arc::<Mutex<Asked>>::default(), Arc::<Mutex<String>>::default());
        let state = (Arc::clone(&asked), Arc::clone(&document));
        let process = async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (asked, document) = (Arc::clone(&state.0), Arc::clone(&state.1));
                let tls = TlsAcceptor::from(Arc::clone(&tls));
                tokio::spawn(async move {
                    match tls.accept(stream).await {
                        Ok(stream) => serve(stream, status, &asked, &document).await,
                        Err(_) => asked.lock().unwrap().rejected += 1,
                    }
                });
            }
        };
        Self {
            address,
            asked,
            document,
            _process: AbortOnDropHandle::new(tokio::spawn(process)),
        }
    }

    fn lists_and_watches(&self) -> Vec<String> {
        self.asked.lock().unwrap().config_maps.clone()
    }
}

async fn serve(
    mut stream: TlsStream<TcpStream>,
    status: &str,
    asked: &Mutex<Asked>,
    document: &Mutex<String>,
) {
    let mut is_first = true;
    loop {
        let request = async {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.ok()?);
            }
            String::from_utf8(request).ok()
        };
        let request = tokio::select! {
            request = request => request,
            () = sleep(FIRST_REQUEST), if is_first => None,
        };
        let Some(request) = request else {
            asked.lock().unwrap().silent += usize::from(is_first);
            return;
        };
        is_first = false;
        let (status, body) = if request.contains("/configmaps?") {
            asked.lock().unwrap().config_maps.push(request.clone());
            let map = serde_json::json!({
                "metadata": { "resourceVersion": "7" },
                "data": { "pool.json": *document.lock().unwrap() },
            });
            let list = serde_json::json!({ "metadata": { "resourceVersion": "7" }, "items": [map] });
            (status, list.to_string())
        } else {
            ("200 OK", "ok".to_owned())
        };
        let is_watch = request.contains("watch=true") && status.starts_with("200");
        let answer = if is_watch {
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned()
        } else {
            format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        if is_watch {
            // No event ever comes.
            sleep(Duration::from_secs(3600)).await;
        }
    }
}

#[tokio::test]
async fn the_watch_trusts_the_service_accounts_authority_and_not_the_documents() {
    let mut node = Node::new();
    let apiserver = ConfigMaps::start(node.authority.server(), "200 OK").await;
    let foreign = node.pool().with_authorities(&Authority::new().bundle);
    node.write(&foreign.impatient_with(apiserver.address));
    *apiserver.document.lock().unwrap() = node.pool().revision(2).impatient_with(apiserver.address).text();
    let authority = Authority::new();
    // Of neither the document nor the apiserver: nobody gets the token.
    node.use_the_api("the token\n", &authority.bundle);
    node.start().await;
    node.follows(1).await;
    eventually("the proxy has tried", async || {
        apiserver.asked.lock().unwrap().rejected > 0
    })
    .await;
    assert_eq!(apiserver.lists_and_watches(), Vec::<String>::new());
    // Rotated to that of the apiserver.
    fs::write(node.path("ca.crt"), &node.authority.bundle).unwrap();
    node.follows(2).await;
    eventually("it is watched", async || apiserver.lists_and_watches().len() == 2).await;
    let requests = apiserver.lists_and_watches();
    assert!(requests[0].contains("Bearer the token"), "{requests:?}");
    let timeout = requests[1].split("timeoutSeconds=").nth(1).unwrap();
    let seconds: u64 = timeout.split('&').next().unwrap().parse().unwrap();
    assert!((300..=600).contains(&seconds), "{requests:?}");
    assert!(
        node.metric_f64("trivet_proxy_watch_last_event_timestamp_seconds")
            .await
            > 1.0e9
    );
}

#[tokio::test]
async fn a_proxy_without_a_token_makes_no_connection_for_the_watch() {
    let mut node = Node::new();
    let apiserver = ConfigMaps::start(node.authority.server(), "200 OK").await;
    let authorities = node.authority.bundle.clone();
    node.use_the_api("the token\n", &authorities);
    fs::remove_file(node.path("token")).unwrap();
    node.write(&node.pool().impatient_with(apiserver.address));
    node.start().await;
    eventually("ready", async || node.ready().await).await;
    // Longer than the first attempt takes, and than a connection may be silent.
    sleep(FIRST_REQUEST * 2).await;
    let asked = apiserver.asked.lock().unwrap();
    assert_eq!((asked.silent, asked.rejected, asked.config_maps.len()), (0, 0, 0));
}

#[tokio::test]
async fn a_denied_token_is_tried_a_few_times_and_not_for_ever() {
    let mut node = Node::new();
    let apiserver = ConfigMaps::start(node.authority.server(), "403 Forbidden").await;
    let authorities = node.authority.bundle.clone();
    node.use_the_api("the token\n", &authorities);
    node.write(&node.pool().impatient_with(apiserver.address));
    node.start().await;
    eventually("denied twice", async || apiserver.lists_and_watches().len() >= 2).await;
    sleep(Duration::from_secs(5)).await;
    // After 0, 0.5, 1.5, 3.5 and 7.5 seconds at the shortest. Waits that begin with 200 ms would make at least 5 attempts.
    let tried = apiserver.lists_and_watches().len();
    assert!(tried <= 4, "{tried}");
}
