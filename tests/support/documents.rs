//! The pool's wire document as the API server shows it: when each revision appeared there.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use trivet_crds::data_plane_name;
use trivet_crds::wire::{self, Document};

use crate::installation::{NAMESPACE, POOL};

/// A revision, and when it was seen in the ConfigMap.
#[derive(Debug, Clone)]
pub struct Published {
    /// When this watch received the change.
    pub at: Timestamp,
    /// The document.
    pub document: Arc<Document>,
}

/// A watch on the pool's ConfigMap.
#[derive(Debug)]
pub struct Documents {
    latest: watch::Receiver<Option<Published>>,
    revisions: Arc<Mutex<BTreeSet<u64>>>,
    _watch: JoinSet<()>,
}

impl Documents {
    /// Starts to watch.
    pub fn watch(client: Client) -> Self {
        let (publish, latest) = watch::channel(None);
        let config_maps = Api::<ConfigMap>::namespaced(client, NAMESPACE);
        let only = watcher::Config::default().fields(&format!("metadata.name={}", data_plane_name(POOL)));
        let revisions = Arc::<Mutex<BTreeSet<u64>>>::default();
        let seen = Arc::clone(&revisions);
        let mut watch = JoinSet::new();
        watch.spawn(async move {
            let mut events = watcher(config_maps, only).default_backoff().boxed();
            while let Some(event) = events.next().await {
                let Ok(Event::Apply(config_map) | Event::InitApply(config_map)) = event else {
                    continue;
                };
                if let Some(published) = read(&config_map) {
                    seen.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(published.document.revision);
                    publish.send_replace(Some(published));
                }
            }
        });
        Self {
            latest,
            revisions,
            _watch: watch,
        }
    }

    /// How many revisions have been seen, the first one included.
    pub fn revisions(&self) -> usize {
        self.revisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// The first document for which `wanted` holds, the current one included.
    pub async fn until(&mut self, within: Duration, wanted: impl Fn(&Document) -> bool) -> Result<Published> {
        let fits = |latest: &Option<Published>| {
            latest
                .as_ref()
                .is_some_and(|published| wanted(&published.document))
        };
        let found = timeout(within, self.latest.wait_for(fits)).await;
        let found = found.with_context(|| {
            format!(
                "the ConfigMap does not show the edit within {} s",
                within.as_secs()
            )
        })?;
        let found = found.context("the watch of the ConfigMap ended")?.clone();
        found.context("the watch of the ConfigMap lost its document")
    }
}

fn read(config_map: &ConfigMap) -> Option<Published> {
    let text = config_map.data.as_ref()?.get(wire::KEY)?;
    let document = Document::parse(text).ok()?;
    Some(Published {
        at: Timestamp::now(),
        document: Arc::new(document),
    })
}
