//! Fills the cluster as kubelets, the DaemonSet controller and the proxies would have.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use trivet_crds::{data_plane_name, report, wire};

use super::access::{Access, Call};
use super::objects::{self, Fleet, NAMESPACE, News, POOL, Sizes};

/// Writes under way at a time. More do not make one apiserver faster.
const PARALLEL: usize = 16;

/// How long the operator may take to make the objects of a pool, and to write the status of a large one.
const LIMIT: Duration = Duration::from_secs(120);

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The CRDs, the namespace, the nodes and the pool.
pub(crate) async fn base(access: &Arc<Access>, nodes: usize) -> Result<()> {
    for plural in ["apiserverpools", "proxyreports"] {
        let name = format!("{plural}.{}", trivet_crds::GROUP);
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../../crds/{}_{plural}.yaml", trivet_crds::GROUP));
        let text = fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
        access
            .write(Call::apply(format!("{path}?fieldManager=bench"), text))
            .await?;
        wait_for(access, &path, |crd| has(crd, "Established")).await?;
    }
    let namespace = json!({ "metadata": { "name": NAMESPACE } });
    access
        .write(Call::create("/api/v1/namespaces", &namespace))
        .await?;
    write_all(access, nodes, |index| {
        Call::create("/api/v1/nodes", &objects::node(index))
    })
    .await?;
    let pool = json!({
        "apiVersion": "trivet.dev/v1alpha1", "kind": "ApiserverPool", "metadata": { "name": POOL }, "spec": {},
    });
    access
        .write(Call::create(collection("apiserverpools"), &pool))
        .await?;
    Ok(())
}

/// Waits until the operator has made the objects of the pool.
pub(crate) async fn wait_for_fleet(access: &Access) -> Result<Fleet> {
    let name = data_plane_name(POOL);
    let map = wait_for(access, &configuration(), |map| document(map).is_some()).await?;
    let document = document(&map).context("the ConfigMap has no document")?;
    let daemon_set = wait_for(access, &daemon_set(&name), |_| true).await?;
    Ok(Fleet {
        daemon_set,
        revision: document.revision,
        template: document.rollout.template,
    })
}

/// The pods and the reports of the proxies, and what the DaemonSet controller says of them.
pub(crate) async fn proxies(access: &Arc<Access>, fleet: &Fleet, nodes: usize) -> Result<Sizes> {
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let (of, path) = (fleet.clone(), pods.clone());
    write_all(access, nodes, move |index| {
        Call::create(&path, &objects::pod(index, &of))
    })
    .await?;
    let path = pods.clone();
    write_all(access, nodes, move |index| {
        let status = format!("{path}/{}/status", objects::pod_name(index));
        Call::merge(status, &objects::pod_status(index))
    })
    .await?;
    let of = fleet.clone();
    write_all(access, nodes, move |index| report_of(index, &of, News::None, 0)).await?;
    let status = format!("{}/status", daemon_set(&data_plane_name(POOL)));
    access
        .write(Call::merge(status, &objects::daemon_set_status(fleet, nodes)))
        .await?;
    let last = nodes.saturating_sub(1);
    let size = async |path: String| {
        let object = access
            .get(&path)
            .await?
            .with_context(|| format!("{path} is not there"))?;
        Ok::<_, anyhow::Error>(object.to_string().len())
    };
    Ok(Sizes {
        node: size(format!("/api/v1/nodes/{}", objects::node_name(last))).await?,
        pod: size(format!("{pods}/{}", objects::pod_name(last))).await?,
        report: size(report_path(last)).await?,
    })
}

/// The write of a report, as a proxy makes it.
pub(crate) fn report_of(index: usize, fleet: &Fleet, news: News, written: u32) -> Call {
    let report = objects::report(index, fleet, news, written);
    // Strings and numbers: it cannot fail.
    let object = report.object().unwrap_or_default();
    let path = format!("{}?fieldManager=trivet-proxy&force=true", report_path(index));
    Call::apply(path, object.to_string())
}

/// Waits until the status of the pool says that every proxy follows the document, and that all is well.
pub(crate) async fn wait_for_status(access: &Access) -> Result<()> {
    let path = pool();
    let is_good = |pool: &Value| has(pool, "ConfigSynced") && has(pool, "Ready");
    let waited = wait_for(access, &path, is_good).await;
    if waited.is_err() {
        let pool = access.get(&path).await?.unwrap_or_default();
        bail!("the status of the pool does not become good: {}", pool["status"]);
    }
    Ok(())
}

/// The path of the pool.
pub(crate) fn pool() -> String {
    format!("{}/{POOL}", collection("apiserverpools"))
}

/// The path of the ConfigMap with its document.
fn configuration() -> String {
    format!(
        "/api/v1/namespaces/{NAMESPACE}/configmaps/{}",
        data_plane_name(POOL)
    )
}

fn daemon_set(name: &str) -> String {
    format!("/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{name}")
}

fn report_path(index: usize) -> String {
    let name = report::name(POOL, &objects::node_name(index));
    format!("{}/{name}", collection(report::PLURAL))
}

fn collection(plural: &str) -> String {
    format!("/apis/{}/{}/{plural}", trivet_crds::GROUP, report::VERSION)
}

/// The document in a ConfigMap, once it has all masters.
fn document(map: &Value) -> Option<wire::Document> {
    let text = map["data"][wire::KEY].as_str()?;
    let document = wire::Document::parse(text).ok()?;
    (document.members.len() == super::cluster::MASTERS.len()).then_some(document)
}

/// Whether the object has this condition.
fn has(object: &Value, type_: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition["type"] == type_ && condition["status"] == "True")
}

async fn wait_for(access: &Access, path: &str, is_good: impl Fn(&Value) -> bool) -> Result<Value> {
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        if let Some(object) = access.get(path).await?
            && is_good(&object)
        {
            return Ok(object);
        }
        sleep(LOOK_EVERY).await;
    }
    bail!("{path} is not as wanted after {LIMIT:?}")
}

/// Makes so many writes, several at a time.
async fn write_all(
    access: &Arc<Access>,
    count: usize,
    call: impl Fn(usize) -> Call + Send + Sync + 'static,
) -> Result<()> {
    let (next, call) = (Arc::new(AtomicUsize::new(0)), Arc::new(call));
    let mut writers = JoinSet::new();
    for _ in 0..PARALLEL {
        let (access, next, call) = (Arc::clone(access), Arc::clone(&next), Arc::clone(&call));
        writers.spawn(async move {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return Ok::<_, anyhow::Error>(());
                }
                access.write(call(index)).await?;
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    Ok(())
}
