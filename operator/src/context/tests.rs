//! A context whose API server is a closure, and what is forgotten of deleted pools.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use http::{Request, Response, Uri};
use kube::Config;
use kube::client::Body;
use kube::runtime::reflector;
use tower::{BoxError, service_fn};

use super::*;
use crate::cli::PullPolicy;

/// The status of an answer that never comes: the connection is reset.
pub(crate) const RESET: u16 = 0;

/// A client whose API server is a closure: it gets the method and the path of each request, and its body.
pub(crate) fn client(answer: impl Fn(&str, &str, &str) -> (u16, String) + Clone + Send + 'static) -> Client {
    let service = service_fn(move |request: Request<Body>| {
        let answer = answer.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = String::from_utf8(body.collect_bytes().await?.to_vec())?;
            let (code, body) = answer(parts.method.as_str(), parts.uri.path(), &body);
            if code == RESET {
                return Err(BoxError::from("connection reset"));
            }
            Response::builder()
                .status(code)
                .body(Body::from(body.into_bytes()))
                .map_err(BoxError::from)
        }
    });
    Client::new(service, "default")
}

/// A context that has read nothing, of an operator that leads.
pub(crate) fn context(
    answer: impl Fn(&str, &str, &str) -> (u16, String) + Clone + Send + 'static,
) -> Context {
    let client = client(answer);
    let mut config = Config::new(Uri::from_static("https://unused"));
    config.root_cert = Some(Vec::new());
    Context {
        recorder: Recorder::new(client.clone(), crate::MANAGER.into()),
        client,
        leadership: Arc::new(crate::leader::tests::leader("operator")),
        access: Access::try_new(config).unwrap(),
        nodes: reflector::store().0,
        pods: reflector::store().0,
        pools: reflector::store().0,
        reports: Reports::default(),
        prober: Prober::new().0,
        settings: Settings {
            namespace: "trivet-system".to_owned(),
            image: "proxy".to_owned(),
            pull_policy: PullPolicy::Always,
            pull_secrets: Vec::new(),
            service_account: "proxy".to_owned(),
            has_node_bootstrap: true,
            standby_soak: std::time::Duration::from_secs(300),
            rollout_soak_seconds: 30,
            retire_after_seconds: 600,
        },
        metrics: Arc::default(),
        readiness: Arc::default(),
        watchdog: Arc::default(),
        pool_states: PoolStates::default(),
    }
}

#[tokio::test]
async fn the_last_pool_that_is_deleted_is_probed_no_longer() {
    let ctx = context(|_, _, _| (500, String::new()));
    ctx.pool_states
        .change("gone", |state| state.uid = Some("1".to_owned()));
    let tls = trivet_crds::wire::Tls {
        ca_bundle: String::new(),
        server_name: "kubernetes".to_owned(),
    };
    // Nothing listens on port 1.
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let keys = ["gone".to_owned(), in_force_key("gone")];
    for key in &keys {
        let healths = ctx.prober.healths(key, tls.clone(), [address].into()).await;
        assert!(healths.get(&address).is_some());
    }

    ctx.forget_deleted();
    assert_eq!(ctx.pool_states.of("gone").uid, None);
    for key in &keys {
        let healths = ctx.prober.healths(key, tls.clone(), BTreeSet::new()).await;
        assert!(healths.get(&address).is_none(), "the prober remembers {key}");
    }
}
