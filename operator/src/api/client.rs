//! The operator's client of the Kubernetes API, and the authorities that it trusts.
//!
//! kube's default client takes up to 295 s to notice that an apiserver is silent. This one notices within ten seconds:
//!
//! | what is silent | noticed by | after |
//! |---|---|---|
//! | the host, before a connection | the connect's time-out | 2 s |
//! | the apiserver, or its host, before the head of a response | the answer's time-out | 5 s |
//! | the same in the body, as in the middle of a list | the bound of each gap in a body | 5 s |
//! | the host of a watch that is at rest | the kernel's keepalive, which the user time-out ends | 9 s |
//!
//! A watch whose apiserver hangs is told from one at rest only by its end, which the API server is asked for every 30 s
//! ([`super::watch`]); meanwhile each pass and the election read on connections of their own.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderValue, Request, Uri, header};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::ByteString;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder, service_fn};
use tower_http::timeout::TimeoutBody;
use trivet_trust::Trust;

use super::fence::Fence;

/// Covers one lost SYN, which the kernel sends again after 1 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Idle time before the first keepalive, the interval between keepalives, and their number.
const KEEP_ALIVE: (Duration, Duration, u32) = (Duration::from_secs(5), Duration::from_secs(2), 3);

/// How long sent bytes may stay unacknowledged.
const USER_TIMEOUT: Duration = Duration::from_secs(8);

/// How long the head of a response may take. A hung apiserver accepts and never responds; the response to a list of
/// thousands of nodes starts within a second.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest gap in the body of a response that is no watch. An apiserver writes a list as fast as its client reads.
const LONGEST_GAP: Duration = Duration::from_secs(5);

/// The longest gap in a watch, above the time after which the API server ends it and kube gives it up.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// What the operator calls itself, and the one command that retires: the audit log of an apiserver names it.
const USER_AGENT: &str = concat!("trivet-operator/", env!("CARGO_PKG_VERSION"));

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a service account nor a kubeconfig can be read.
    #[error("failed to find the cluster: neither a kubeconfig nor a service account can be used")]
    Config(#[source] Box<kube::config::InferConfigError>),
    /// The configuration that was found cannot be used.
    #[error("failed to set up the client of {url}")]
    Client {
        /// The API server's address.
        url: Uri,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The cluster's authorities are unknown, and without them no member can be verified.
    #[error(
        "the kubeconfig of {url} names no certificate-authority, which Trivet's proxies need to verify members"
    )]
    NoAuthority {
        /// The API server's address.
        url: Uri,
    },
    /// The file with the cluster's authorities cannot be read.
    #[error("failed to read the cluster's authorities from {}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// How to reach the cluster.
#[derive(Clone, Debug)]
pub struct Access {
    config: Config,
}

impl Access {
    /// From the kubeconfig, or inside a cluster from the service account. `tls_server_name` is the name that the API
    /// server's certificate must cover, if that is not its address.
    pub async fn infer(tls_server_name: Option<String>) -> Result<Self, Error> {
        let mut config = Config::infer()
            .await
            .map_err(|error| Error::Config(Box::new(error)))?;
        config.tls_server_name = tls_server_name.or(config.tls_server_name);
        Self::try_new(named(config, USER_AGENT))
    }

    /// From a configuration that names the cluster's authorities.
    pub fn try_new(config: Config) -> Result<Self, Error> {
        if config.root_cert.is_none() && config.root_cert_file.is_none() {
            return Err(Error::NoAuthority {
                url: config.cluster_url,
            });
        }
        Ok(Self { config })
    }

    /// A client with the operator's own credentials. It writes only what the fence lets pass.
    pub fn client(&self, fence: Fence) -> Result<Client, Error> {
        build(&self.config, Some(fence))
    }

    /// A client that writes although this process does not lead: that of the election, whose Lease those write too, and that of
    /// a command which somebody runs.
    pub fn unfenced(&self) -> Result<Client, Error> {
        build(&self.config, None)
    }

    /// The cluster's authorities, PEM, as they are now: a mounted bundle is replaced when the authorities change.
    pub async fn authorities(&self) -> Result<String, Error> {
        if let Some(path) = &self.config.root_cert_file {
            let read = tokio::fs::read_to_string(path).await;
            return read.map_err(|source| Error::Authority {
                path: path.clone(),
                source,
            });
        }
        Ok(self
            .config
            .root_cert
            .iter()
            .flatten()
            .map(|certificate| pem(certificate))
            .collect())
    }
}

/// A client of the one apiserver at `url` without credentials. It verifies that apiserver as the proxies do.
pub fn anonymous(url: Uri, trust: &Trust) -> Client {
    let config = Config::new(url);
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(trust.strict().as_ref().clone())
        .https_only()
        .with_server_name_resolver(FixedServerNameResolver::new(trust.server_name()))
        .enable_http1()
        .wrap_connector(connector());
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .timeout(ANSWER_TIMEOUT)
        .service(HttpClient::builder(TokioExecutor::new()).build::<_, Body>(https));
    ClientBuilder::new(service, config.default_namespace.clone()).build()
}

/// The configuration of a client that tells the API server the name of its program.
#[must_use]
pub fn named(mut config: Config, program: &'static str) -> Config {
    let name = HeaderValue::from_static(program);
    config.headers.push((header::USER_AGENT, name));
    config
}

/// A client with the credentials of a configuration. It may write.
pub fn of(config: &Config) -> Result<Client, Error> {
    build(config, None)
}

fn build(config: &Config, fence: Option<Fence>) -> Result<Client, Error> {
    let failed = |error| Error::Client {
        url: config.cluster_url.clone(),
        source: Box::new(error),
    };
    // kube sets up TLS with the provider of the process. An error means that it is installed already.
    trivet_trust::provider().install_default().ok();
    let https = config
        .rustls_https_connector_with_connector(connector())
        .map_err(failed)?;
    let http = HttpClient::builder(TokioExecutor::new()).build::<_, Body>(https);
    // The fence is asked last, after a token may have been waited for.
    let send = service_fn(move |request: Request<Body>| {
        let verdict = fence
            .as_ref()
            .map_or(Ok(()), |fence| fence.check(request.method()));
        let gap = longest_gap(request.uri());
        let answer = verdict.map(|()| http.request(request));
        async move {
            let response = answer?.await?;
            Ok::<_, BoxError>(response.map(|body| TimeoutBody::new(gap, body)))
        }
    });
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(failed)?)
        .layer(config.extra_headers_layer().map_err(failed)?)
        .timeout(ANSWER_TIMEOUT)
        .service(send);
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}

/// How long the body of the response to a request for `uri` may pause.
fn longest_gap(uri: &Uri) -> Duration {
    let mut fields = uri.query().unwrap_or_default().split('&');
    if fields.any(|field| field == "watch=true") {
        LONGEST_REST
    } else {
        LONGEST_GAP
    }
}

/// Connects with bounds on the connect and on every byte in flight.
fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let (idle, interval, retries) = KEEP_ALIVE;
    connector.set_keepalive(Some(idle));
    connector.set_keepalive_interval(Some(interval));
    connector.set_keepalive_retries(Some(retries));
    connector.set_tcp_user_timeout(Some(USER_TIMEOUT));
    connector
}

fn pem(der: &[u8]) -> String {
    // Kubernetes encodes bytes as base64 in JSON, which spares a dependency for one function.
    let encoded = serde_json::json!(ByteString(der.to_vec()));
    let text = encoded.as_str().unwrap_or_default();
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for (index, character) in text.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            out.push('\n');
        }
        out.push(character);
    }
    out.push_str("\n-----END CERTIFICATE-----\n");
    out
}

#[cfg(test)]
mod tests;
