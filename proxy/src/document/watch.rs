//! The document from its ConfigMap, followed through this proxy's own upstreams: the path it offers to others is the
//! path it trusts itself.

mod api;

use std::{convert::Infallible, path::PathBuf, sync::Arc, time::Duration};

use rand::Rng;
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};
use trivet_crds::wire;

use self::api::{Api, Error};
use super::{Documents, Source};
use crate::{cause, upstream::Upstreams};

/// How long one watch lasts. Short, so that one that stalls without a word is noticed.
const WATCH_SECONDS: u64 = 30;

/// How long past its end a watch is believed to be only late.
const WATCH_SLACK: Duration = Duration::from_secs(5);

/// The first wait after a failure; the fleet must not come back all at once.
const SHORTEST_WAIT: Duration = Duration::from_millis(200);

/// The longest wait after repeated failures.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Which ConfigMap to follow, and as whom.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Holds the bearer token; read at every request, because it is rotated.
    pub token_file: PathBuf,
}

/// Follows the ConfigMap for ever, with a jittered back-off after failures.
pub async fn follow(target: Target, upstreams: Arc<Upstreams>, documents: Arc<Documents>) {
    let mut wait = SHORTEST_WAIT;
    let mut failing = false;
    loop {
        let Err(error) = follow_once(&target, &upstreams, &documents, &mut failing).await;
        // Said once per outage: without a token this is how a proxy runs for ever.
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

/// One connection: a list, then watches, until one of them fails or asks for a new list. `failing` is cleared once the
/// list is there.
async fn follow_once(
    target: &Target,
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
    target: &Target,
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
            // Most often 410 Gone: the version is too old, and a new list is due.
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
