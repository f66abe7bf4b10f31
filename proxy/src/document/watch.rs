//! Documents from the ConfigMap, followed through this proxy's own upstreams, as clients reach them.
//!
//! A watch that no longer works must be noticed within about a minute. Its connection counts for its upstream as a client's
//! does, so it is cut when the upstream is silent, and moved when the upstream is stranded. The kernel's keepalive ends it
//! when only this connection is dead. If a healthy apiserver sends no events, it sends no bookmarks either, and the watch is
//! ended for that. Meanwhile kubelet still updates the mounted ConfigMap.

mod schedule;

use std::{convert::Infallible, path::PathBuf, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info, warn};
use trivet_crds::wire;

use self::schedule::Backoff;
use super::Documents;
use crate::{
    api::{Api, Credentials, Error, Failure, Verb},
    cause,
    source::Source,
    upstream::Upstreams,
    warnings::Topic,
};

/// How long a watch may last beyond its `timeoutSeconds` before it counts as stalled.
const WATCH_SLACK: Duration = Duration::from_secs(5);

/// A watch that ends by more than this before its `timeoutSeconds` counts as failed. The apiserver may have lost its store to
/// a backup: then it takes the resourceVersion for one of the future, and the next watch would tell nothing.
const EARLY: Duration = Duration::from_secs(5);

/// How long a denial lasts before it is warned of. An apiserver that starts denies everything for a second or two, and after a
/// restore from a backup kubelet needs some time to bring a new token.
const DENIED_FOR_LONG: Duration = Duration::from_secs(60);

/// Which ConfigMap to follow, and with which credentials.
#[derive(Clone, Debug)]
pub struct ConfigMapTarget {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The file with the bearer token. It is read at every request, because kubelet rotates it.
    pub token_file: PathBuf,
    /// The file with the authorities of the apiservers, PEM. The token is sent only to a server whose certificate they
    /// verify. The authority in a document is not enough: a document may come from another cluster, or from any writer of
    /// the ConfigMap.
    pub authority_file: PathBuf,
}

impl ConfigMapTarget {
    /// The credentials alone.
    pub fn credentials(&self) -> Credentials {
        Credentials {
            token_file: self.token_file.clone(),
            authority_file: self.authority_file.clone(),
        }
    }

    fn path(&self) -> String {
        let Self { namespace, name, .. } = self;
        format!("/api/v1/namespaces/{namespace}/configmaps?fieldSelector=metadata.name%3D{name}")
    }

    fn watch_path(&self, version: &str, seconds: u64) -> String {
        format!(
            "{}&watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={version}",
            self.path()
        )
    }
}

/// Follows one ConfigMap.
struct Follower {
    target: ConfigMapTarget,
    upstreams: Arc<Upstreams>,
    documents: Arc<Documents>,
    /// Whether the last attempt failed: only the first of several failures is logged as a warning.
    failing: bool,
    /// Whether the apiserver of this connection has sent a bookmark. One without a watch cache sends none, and one that has
    /// seen no change since its start does not send any yet.
    has_bookmarks: bool,
    /// Since when the API denies the ConfigMap.
    denied_since: Option<Instant>,
}

/// Follows the ConfigMap without end, with a jittered back-off after failures.
pub async fn follow(target: ConfigMapTarget, upstreams: Arc<Upstreams>, documents: Arc<Documents>) {
    let mut follower = Follower {
        target,
        upstreams,
        documents,
        failing: false,
        has_bookmarks: false,
        denied_since: None,
    };
    let mut backoff = Backoff::default();
    loop {
        let started = Instant::now();
        let error = follower.follow_once().await;
        let settings = follower.upstreams.settings();
        let nodes = settings.map_or(0, |settings| settings.document.nodes);
        wait(&mut backoff, error.failure(), started, nodes).await;
    }
}

/// Waits after a failure of an attempt that started then.
async fn wait(backoff: &mut Backoff, failure: Failure, started: Instant, nodes: u32) {
    let wait = backoff.next(failure, started.elapsed(), nodes, rand::random());
    sleep(wait).await;
}

impl Follower {
    /// One connection, until it fails; logs why.
    async fn follow_once(&mut self) -> Error {
        let Err(error) = self.list_and_watch().await;
        let told = cause::chain(&error);
        if self.failing {
            debug!(error = told, "still failing to follow the ConfigMap");
        } else {
            warn!(error = told, "failed to follow the ConfigMap, trying again");
        }
        self.failing = true;
        if let Error::Denied(words) = &error {
            self.denied(words);
        }
        error
    }

    /// Warns where the API denies the ConfigMap for long.
    fn denied(&mut self, words: &str) {
        let since = *self.denied_since.get_or_insert_with(Instant::now);
        if since.elapsed() < DENIED_FOR_LONG {
            return;
        }
        let ConfigMapTarget { namespace, name, .. } = &self.target;
        let message = format!(
            "the API server does not let this proxy watch the ConfigMap {namespace}/{name}, so edits come up to two minutes \
             late, by the mount: run helm upgrade, which restores the Role and the RoleBinding trivet-proxy: {words}"
        );
        self.documents
            .warnings
            .raise(Topic::Watch, "ConfigMapDenied", message);
    }

    /// A list, then watches, until a request fails or a new list is needed.
    async fn list_and_watch(&mut self) -> Result<Infallible, Error> {
        let mut api = Api::connect(&self.upstreams, &self.target.credentials()).await?;
        self.has_bookmarks = false;
        let list = api.request(Verb::Get, &self.target.path()).await?;
        let mut version = resource_version(&list).unwrap_or_default().to_owned();
        self.denied_since = None;
        self.documents.warnings.clear(Topic::Watch);
        let config_maps: Vec<_> = list
            .get("items")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .collect();
        if config_maps.is_empty() {
            self.documents.has_told(Source::Watch);
        }
        for config_map in config_maps {
            self.offer(config_map);
        }
        loop {
            let started = Instant::now();
            let time = schedule::watch_time(rand::random());
            self.watch_once(&mut api, &mut version, time).await?;
            if started.elapsed() + EARLY < time {
                return Err(Error::EndedEarly);
            }
        }
    }

    async fn watch_once(&mut self, api: &mut Api, version: &mut String, time: Duration) -> Result<(), Error> {
        let end = Instant::now() + time + WATCH_SLACK;
        let path = self.target.watch_path(version, time.as_secs());
        let mut events = api.watch(&path).await?;
        if std::mem::take(&mut self.failing) {
            info!("following the ConfigMap again");
        }
        self.upstreams.metrics().watch_event();
        loop {
            let limit = schedule::next_event_until(Instant::now(), end, self.has_bookmarks);
            let event = timeout_at(limit, events.next());
            let Some(event) = event.await.map_err(|_elapsed| Error::Stalled)?? else {
                return Ok(());
            };
            self.upstreams.metrics().watch_event();
            self.take_in(&event, version)?;
        }
    }

    fn take_in(&mut self, event: &Value, version: &mut String) -> Result<(), Error> {
        let Some(object) = event.get("object") else {
            return Ok(());
        };
        match event.get("type").and_then(Value::as_str) {
            Some("ADDED" | "MODIFIED") => self.offer(object),
            // A deleted ConfigMap changes nothing: the last good document stays in force.
            Some("DELETED") => {}
            Some("BOOKMARK") => self.has_bookmarks = true,
            // Usually 410 Gone: the resource version is too old, and a new list is needed.
            Some(_) | None => return Err(Error::Refused(event.to_string())),
        }
        if let Some(newer) = resource_version(object) {
            newer.clone_into(version);
        }
        Ok(())
    }

    fn offer(&self, config_map: &Value) {
        let text = config_map
            .get("data")
            .and_then(|data| data.get(wire::KEY))
            .and_then(Value::as_str);
        if let Some(text) = text {
            self.documents.offer(text, Source::Watch);
        } else {
            warn!(key = wire::KEY, "the ConfigMap has no document");
        }
    }
}

fn resource_version(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("resourceVersion")?.as_str()
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch::Sender;

    use super::*;
    use crate::balance::place::Place;

    const HOUR: Duration = Duration::from_secs(3600);

    /// When attempts are made within an hour, in a cluster of 5,000 nodes, if each of them fails like this after this time.
    async fn attempts(failure: Failure, lasts: Duration) -> Vec<Duration> {
        let (start, mut made) = (Instant::now(), Vec::new());
        let mut backoff = Backoff::default();
        while start.elapsed() < HOUR {
            let started = Instant::now();
            made.push(start.elapsed());
            sleep(lasts).await;
            wait(&mut backoff, failure, started, 5000).await;
        }
        made
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_token_is_tried_again_within_seconds_and_then_every_few_minutes() {
        let made = attempts(Failure::Denied, Duration::ZERO).await;
        assert!(
            made.iter().filter(|at| at.as_secs() < 10).count() >= 3,
            "{made:?}"
        );
        assert!(made.len() <= 30, "{made:?}");
        for pair in made.windows(2).filter(|pair| pair[0] > HOUR / 2) {
            assert!(pair[1] >= pair[0] + Duration::from_secs(240), "{made:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_breaks_is_made_anew_within_a_second_after_it_was_good() {
        let lasts = Duration::from_secs(300);
        let made = attempts(Failure::Other, lasts).await;
        assert!(made.len() >= 12, "{made:?}");
        for pair in made.windows(2) {
            assert!(pair[1] < pair[0] + lasts + Duration::from_secs(1), "{made:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_denial_that_lasts_is_warned_of_and_one_of_a_start_is_not() {
        let documents = Arc::new(Documents::new(None, Arc::default(), Arc::default()));
        let place = Place {
            node: "w1".to_owned(),
            zone: String::new(),
        };
        let mut follower = Follower {
            target: ConfigMapTarget {
                namespace: "trivet-system".to_owned(),
                name: "trivet-default".to_owned(),
                token_file: PathBuf::new(),
                authority_file: PathBuf::new(),
            },
            upstreams: Upstreams::new(place, Arc::default(), None, Sender::default()),
            documents: Arc::clone(&documents),
            failing: false,
            has_bookmarks: false,
            denied_since: None,
        };
        follower.denied("403 Forbidden: no");
        sleep(DENIED_FOR_LONG / 2).await;
        follower.denied("403 Forbidden: no");
        assert!(documents.warnings.all().is_empty());
        sleep(DENIED_FOR_LONG / 2).await;
        follower.denied("403 Forbidden: no");
        let warning = documents.warnings.all().remove(0);
        assert_eq!(warning.reason, "ConfigMapDenied");
        assert!(
            warning
                .message
                .ends_with("RoleBinding trivet-proxy: 403 Forbidden: no")
        );
    }
}
