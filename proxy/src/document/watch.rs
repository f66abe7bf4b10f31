//! Documents from the ConfigMap, followed through this proxy's own upstreams, as clients reach them.

mod api;

use std::{convert::Infallible, path::PathBuf, sync::Arc, time::Duration};

use rand::Rng;
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};
use trivet_crds::wire;

use self::api::{Api, Error};
use super::Documents;
use crate::{cause, source::Source, upstream::Upstreams};

/// How long one watch lasts. It is short, so that a watch that stalls silently is noticed.
const WATCH_SECONDS: u64 = 30;

/// How long a watch may overrun its time before it counts as stalled.
const WATCH_SLACK: Duration = Duration::from_secs(5);

/// The first wait after a failure. It is jittered, so that the fleet does not come back at once.
const SHORTEST_WAIT: Duration = Duration::from_millis(200);

/// The longest wait after repeated failures.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Which ConfigMap to follow, and with which credentials.
#[derive(Clone, Debug)]
pub struct ConfigMapTarget {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The file with the bearer token. It is read at every request, because kubelet rotates it.
    pub token_file: PathBuf,
}

/// Follows the ConfigMap for ever, with a jittered back-off after failures.
pub async fn follow(target: ConfigMapTarget, upstreams: Arc<Upstreams>, documents: Arc<Documents>) {
    let mut wait = SHORTEST_WAIT;
    let mut failing = false;
    loop {
        let Err(error) = follow_once(&target, &upstreams, &documents, &mut failing).await;
        // A warning once per outage: a proxy without a token fails for ever.
        if failing {
            debug!(
                error = cause::chain(&error),
                "still failing to follow the ConfigMap"
            );
            wait = (wait * 2).min(LONGEST_WAIT);
        } else {
            warn!(
                error = cause::chain(&error),
                "failed to follow the ConfigMap, trying again"
            );
            wait = SHORTEST_WAIT;
        }
        failing = true;
        if error.is_ours() {
            wait = LONGEST_WAIT;
        }
        let chance: f64 = rand::rng().random_range(0.5..1.0);
        sleep(wait.mul_f64(chance)).await;
    }
}

/// One connection: a list, then watches, until a request fails or a new list is needed. `failing` is cleared after the
/// list.
async fn follow_once(
    target: &ConfigMapTarget,
    upstreams: &Arc<Upstreams>,
    documents: &Documents,
    failing: &mut bool,
) -> Result<Infallible, Error> {
    let mut api = Api::connect(upstreams).await?;
    let list = api.list(target).await?;
    let mut version = resource_version(&list).unwrap_or_default().to_owned();
    for config_map in list.get("items").and_then(Value::as_array).into_iter().flatten() {
        offer(config_map, documents);
    }
    if std::mem::take(failing) {
        info!("following the ConfigMap again");
    }
    loop {
        let watch = watch_once(&mut api, target, documents, &mut version);
        timeout(Duration::from_secs(WATCH_SECONDS) + WATCH_SLACK, watch)
            .await
            .map_err(|_elapsed| Error::Stalled)??;
    }
}

async fn watch_once(
    api: &mut Api,
    target: &ConfigMapTarget,
    documents: &Documents,
    version: &mut String,
) -> Result<(), Error> {
    let mut events = api.watch(target, version, WATCH_SECONDS).await?;
    while let Some(event) = events.next().await? {
        let Some(object) = event.get("object") else {
            continue;
        };
        match event.get("type").and_then(Value::as_str) {
            Some("ADDED" | "MODIFIED") => offer(object, documents),
            // A deleted ConfigMap changes nothing: the last good document stays in force.
            Some("DELETED" | "BOOKMARK") => {}
            // Usually 410 Gone: the resource version is too old, and a new list is needed.
            Some(_) | None => return Err(Error::Refused(event.to_string())),
        }
        if let Some(newer) = resource_version(object) {
            newer.clone_into(version);
        }
    }
    Ok(())
}

fn offer(config_map: &Value, documents: &Documents) {
    let text = config_map
        .get("data")
        .and_then(|data| data.get(wire::KEY))
        .and_then(Value::as_str);
    if let Some(text) = text {
        documents.offer(text, Source::Watch);
    } else {
        warn!(key = wire::KEY, "the ConfigMap has no document");
    }
}

fn resource_version(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("resourceVersion")?.as_str()
}
