//! Keeps on the node's disk what the next start needs: the document in force, and who proved itself. A disk that is full,
//! read-only or slow holds nobody up: what it does not take is tried again until it does.

use std::{collections::BTreeSet, future::pending, io, sync::Arc, time::Duration};

use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{InForce, Source, cache::Cache};
use crate::balance::Identity;

/// The first wait after a failed write; it doubles with each further one.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// The longest wait: how late the disk may be once it works again.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The one that writes.
#[derive(Debug)]
pub struct Keeper {
    cache: Cache,
    documents: watch::Receiver<Option<InForce>>,
    proven: watch::Receiver<BTreeSet<Identity>>,
    kept: Memory,
}

/// What the disk holds, or should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Memory {
    /// Revision and text of the newest document; none while that came from the disk itself.
    document: Option<(u64, Arc<str>)>,
    proven: BTreeSet<Identity>,
}

impl Keeper {
    /// Follows both. `proven` is now what the disk holds.
    pub fn new(
        cache: Cache,
        documents: watch::Receiver<Option<InForce>>,
        proven: watch::Receiver<BTreeSet<Identity>>,
    ) -> Self {
        let kept = Memory {
            document: None,
            proven: proven.borrow().clone(),
        };
        Self {
            cache,
            documents,
            proven,
            kept,
        }
    }

    /// Writes what changes until `stop`, and once more what is still to be written then.
    pub async fn run(mut self, stop: CancellationToken) {
        let cache = self.cache.clone();
        if let Err(error) = blocking(move || cache.tidy()).await {
            debug!(%error, "failed to tidy the document cache");
        }
        let mut wait = None;
        loop {
            // Asked before the last look, so that nothing from before the stop is missed.
            let last = stop.is_cancelled();
            wait = match self.write().await {
                Ok(()) => {
                    if wait.is_some() {
                        info!("keeping documents on the disk again");
                    }
                    None
                }
                Err(error) => Some(failed(&error, wait)),
            };
            if last {
                return;
            }
            let next = async {
                match wait {
                    Some(wait) => sleep(wait).await,
                    None => self.changed().await,
                }
            };
            tokio::select! {
                () = next => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Writes what differs from what is kept. The document comes first: the list shrinks with documents, and must not
    /// forget whom the newest one on the disk names.
    async fn write(&mut self) -> io::Result<()> {
        let wanted = self.wanted();
        if let Some((revision, text)) = wanted.document.clone()
            && wanted.document != self.kept.document
        {
            let cache = self.cache.clone();
            blocking(move || cache.store(revision, &text)).await?;
            self.kept.document = wanted.document;
        }
        if wanted.proven != self.kept.proven {
            let (cache, proven) = (self.cache.clone(), wanted.proven.clone());
            blocking(move || cache.store_proven(proven)).await?;
            self.kept.proven = wanted.proven;
        }
        Ok(())
    }

    /// The list is read first, so that it is no newer than the document.
    fn wanted(&mut self) -> Memory {
        let proven = self.proven.borrow_and_update().clone();
        let in_force = self.documents.borrow_and_update();
        let brought = in_force
            .as_ref()
            .filter(|in_force| in_force.source != Source::Cache);
        Memory {
            document: brought
                .map(|in_force| (in_force.settings.document.revision, Arc::clone(&in_force.text))),
            proven,
        }
    }

    async fn changed(&mut self) {
        let changed = tokio::select! {
            changed = self.documents.changed() => changed,
            changed = self.proven.changed() => changed,
        };
        if changed.is_err() {
            // Nothing more comes but the stop.
            pending::<()>().await;
        }
    }
}

/// Says that a write failed, once an outage, and how long to wait for the next.
fn failed(error: &io::Error, wait: Option<Duration>) -> Duration {
    if let Some(wait) = wait {
        debug!(%error, "still failing to keep documents on the disk");
        (wait * 2).min(LONGEST_WAIT)
    } else {
        warn!(%error, "failed to keep documents on the disk, trying again");
        SHORTEST_WAIT
    }
}

/// A sync of a slow disk takes seconds, which no connection may wait for.
async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
