//! Finds the cluster. What only reads gets a client that refuses to write.

use anyhow::{Context, Result};
use http::{Method, Request, Uri};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::service_fn;
use trivet_operator::api::client::{self, Access as OperatorAccess};

use crate::BadUsage;
use crate::cli;

/// The field manager of the plugin's writes, as `kubectl get --show-managed-fields` shows it.
pub const MANAGER: &str = "kubectl-trivet";

/// What the plugin calls itself: the audit log of an apiserver names it.
const USER_AGENT: &str = concat!("kubectl-trivet/", env!("CARGO_PKG_VERSION"));

/// A cluster and how to reach it.
pub struct Cluster {
    /// The namespace that Trivet is installed in.
    pub namespace: String,
    config: Config,
    writing: Client,
}

impl Cluster {
    /// The cluster that the flags name.
    pub async fn find(flags: &cli::Access) -> Result<Self> {
        let mut config = client::named(config(flags).await?, USER_AGENT);
        if flags.user.is_some() {
            config.auth_info.impersonate.clone_from(&flags.user);
            config.auth_info.impersonate_groups = (!flags.groups.is_empty()).then(|| flags.groups.clone());
        }
        let writing = client::of(&config)?;
        Ok(Self {
            namespace: flags.namespace.clone(),
            config,
            writing,
        })
    }

    /// A client that refuses to change anything.
    pub fn reading(&self) -> Client {
        read_only(self.writing.clone())
    }

    /// A client that may write.
    pub fn writing(&self) -> Client {
        self.writing.clone()
    }

    /// What the operator's code needs to verify members.
    pub fn operator_access(&self) -> Result<OperatorAccess> {
        Ok(OperatorAccess::try_new(self.config.clone())?)
    }
}

async fn config(flags: &cli::Access) -> Result<Config> {
    let options = KubeConfigOptions {
        context: flags.context.clone(),
        ..KubeConfigOptions::default()
    };
    let read = match &flags.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let of_file = match read {
        Ok(file) => Config::from_custom_kubeconfig(file, &options).await,
        Err(error) => Err(error),
    };
    match of_file {
        Ok(config) => Ok(config),
        // In a pod there is no kubeconfig; one that was named must be used.
        Err(error) if flags.kubeconfig.is_some() || flags.context.is_some() => {
            Err(error).context(BadUsage("the kubeconfig cannot be used".to_owned()))
        }
        Err(error) => Config::incluster().map_err(|_| {
            anyhow::Error::from(error).context(BadUsage(
                "there is no kubeconfig that can be used: set KUBECONFIG, or name one by --kubeconfig"
                    .to_owned(),
            ))
        }),
    }
}

/// A request that a client which only reads does not send.
#[derive(Debug)]
struct WouldWrite {
    method: Method,
    path: String,
}

impl std::fmt::Display for WouldWrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {} would change the cluster, and this command only reads",
            self.method, self.path
        )
    }
}

impl std::error::Error for WouldWrite {}

/// The same client, which refuses to change anything.
fn read_only(inner: Client) -> Client {
    let namespace = inner.default_namespace().to_owned();
    let guard = service_fn(move |request: Request<Body>| {
        let inner = inner.clone();
        async move {
            if is_harmless(request.method(), request.uri()) {
                return Ok(inner.send(request).await?);
            }
            Err::<_, tower::BoxError>(Box::new(WouldWrite {
                method: request.method().clone(),
                path: request.uri().path().to_owned(),
            }))
        }
    });
    Client::new(guard, namespace)
}

/// Whether the API server changes nothing by this request.
fn is_harmless(method: &Method, uri: &Uri) -> bool {
    let is_dry = || {
        let mut pairs = uri.query().unwrap_or_default().split('&');
        pairs.any(|pair| pair == "dryRun=All")
    };
    method == Method::GET || method == Method::HEAD || is_dry()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use http::Response;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use kube::api::{DeleteParams, Patch, PatchParams, PostParams};

    use super::*;

    /// A client that only reads, and how many requests the API server got.
    fn client() -> (Api<ConfigMap>, Arc<AtomicU32>) {
        let count = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&count);
        let service = service_fn(move |_: Request<Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            async { Response::builder().body(Body::from(b"{\"metadata\":{}}".to_vec())) }
        });
        let inner = Client::new(service, "default");
        (Api::default_namespaced(read_only(inner)), count)
    }

    #[tokio::test]
    async fn a_client_that_only_reads_sends_no_write() {
        let (api, count) = client();
        let patch = Patch::Merge(serde_json::json!({}));
        let create = api.create(&PostParams::default(), &ConfigMap::default()).await;
        assert!(create.is_err());
        assert!(api.patch("a", &PatchParams::default(), &patch).await.is_err());
        assert!(
            api.replace("a", &PostParams::default(), &ConfigMap::default())
                .await
                .is_err()
        );
        let refusal = api.delete("a", &DeleteParams::default()).await.unwrap_err();
        let text = crate::output::chain(&anyhow::Error::from(refusal));
        assert!(text.contains("DELETE") && text.contains("only reads"), "{text}");
        assert_eq!(count.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn reads_and_dry_runs_are_sent() {
        let (api, count) = client();
        api.get("a").await.unwrap();
        let dry = PatchParams::default().dry_run();
        api.patch("a", &dry, &Patch::Merge(serde_json::json!({})))
            .await
            .unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_name_that_reads_like_a_dry_run_is_none() {
        for uri in [
            "/x?fieldManager=dryRun=All",
            "/dryRun=All",
            "/x?dryRun=",
            "/x?dryRun=AllOfIt",
        ] {
            assert!(!is_harmless(&Method::PATCH, &uri.parse().unwrap()), "{uri}");
        }
        assert!(is_harmless(
            &Method::PATCH,
            &"/x?force=true&dryRun=All".parse().unwrap()
        ));
    }
}
