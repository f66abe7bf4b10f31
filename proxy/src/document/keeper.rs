//! Writes what the next start needs to the node's disk: the document in force and the proven paths. A full, read-only or
//! slow disk blocks nothing else; a failed write is retried until it succeeds.

use std::{collections::BTreeSet, future::pending, io, sync::Arc, time::Duration};

use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{InForce, cache::Cache};
use crate::{
    balance::PathKey,
    source::Source,
    warnings::{Topic, Warnings},
};

/// The first wait after a failed write; it doubles with each further one.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// The longest wait between two attempts, and so the longest delay once the disk works again.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Writes the cache.
#[derive(Debug)]
pub struct Keeper {
    cache: Cache,
    documents: watch::Receiver<Option<InForce>>,
    proven: watch::Receiver<BTreeSet<PathKey>>,
    stored: CacheContent,
    /// Whether the disk took a file since the start. A node whose disk takes none is told of it at once, not by the next
    /// document, which may be long in coming.
    is_tried: bool,
    warnings: Arc<Warnings>,
}

/// The content of the disk, actual or desired.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CacheContent {
    /// The newest document; none while the document in force came from the disk, or is the seed, which is there at the next
    /// start too: on the disk it would come before a corrected seed.
    document: Option<Stored>,
    proven: BTreeSet<PathKey>,
}

/// A document on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    revision: u64,
    text: Arc<str>,
    /// See [`InForce::replacements`].
    replacements: u64,
}

impl Keeper {
    /// A keeper of both. The disk holds the current value of `proven` already.
    pub fn new(
        cache: Cache,
        documents: watch::Receiver<Option<InForce>>,
        proven: watch::Receiver<BTreeSet<PathKey>>,
        warnings: Arc<Warnings>,
    ) -> Self {
        let stored = CacheContent {
            document: None,
            proven: proven.borrow().clone(),
        };
        Self {
            cache,
            documents,
            proven,
            stored,
            is_tried: false,
            warnings,
        }
    }

    /// Writes each change until `stop`, and then once more if something is still to be written.
    pub async fn run(mut self, stop: CancellationToken) {
        let cache = self.cache.clone();
        if let Err(error) = blocking(move || cache.tidy()).await {
            debug!(%error, "failed to tidy the document cache");
        }
        let mut wait = None;
        loop {
            // Read before the write, so that the last write includes every change from before the stop.
            let last = stop.is_cancelled();
            wait = match self.write().await {
                Ok(()) => {
                    self.warnings.clear(Topic::CacheWrite);
                    None
                }
                Err(error) => Some(self.failed(&error, wait)),
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

    /// Writes what differs from the disk. The document comes first, because the new list of proven paths may lack paths
    /// of the oldest document on the disk, which the write of the document removes.
    async fn write(&mut self) -> io::Result<()> {
        if !self.is_tried {
            let cache = self.cache.clone();
            blocking(move || cache.check_writable()).await?;
            self.is_tried = true;
        }
        let wanted = self.wanted();
        if let Some(document) = wanted.document.clone()
            && wanted.document != self.stored.document
        {
            let cache = self.cache.clone();
            // Compared with what was written, not with the document before: that one may never have reached the disk.
            let written = self.stored.document.as_ref();
            let is_alone = document.replacements > written.map_or(0, |written| written.replacements);
            blocking(move || {
                if is_alone {
                    cache.store_alone(document.revision, &document.text)
                } else {
                    cache.store(document.revision, &document.text)
                }
            })
            .await?;
            self.stored.document = wanted.document;
            // This write replaces what could not be read at the start.
            self.warnings.clear(Topic::CacheRead);
            self.warnings.clear(Topic::CacheContent);
        }
        if wanted.proven != self.stored.proven {
            let (cache, proven) = (self.cache.clone(), wanted.proven.clone());
            blocking(move || cache.store_proven(proven)).await?;
            self.stored.proven = wanted.proven;
        }
        Ok(())
    }

    /// Reads the list before the document, so that the list is not newer.
    fn wanted(&mut self) -> CacheContent {
        let proven = self.proven.borrow_and_update().clone();
        let in_force = self.documents.borrow_and_update();
        let brought = in_force
            .as_ref()
            .filter(|in_force| !matches!(in_force.source, Source::Cache | Source::Seed));
        CacheContent {
            document: brought.map(|in_force| Stored {
                revision: in_force.settings.document.revision,
                text: Arc::clone(&in_force.text),
                replacements: in_force.replacements,
            }),
            proven,
        }
    }

    /// Warns of a failed write, once per outage, and returns the wait before the next attempt.
    fn failed(&self, error: &io::Error, wait: Option<Duration>) -> Duration {
        let Some(wait) = wait else {
            let directory = self.cache.directory().display();
            let message = format!("{directory}: failed to keep documents on the disk, trying again: {error}");
            self.warnings.raise(Topic::CacheWrite, "CacheUnwritable", message);
            return SHORTEST_WAIT;
        };
        debug!(%error, "still failing to keep documents on the disk");
        (wait * 2).min(LONGEST_WAIT)
    }

    async fn changed(&mut self) {
        let changed = tokio::select! {
            changed = self.documents.changed() => changed,
            changed = self.proven.changed() => changed,
        };
        if changed.is_err() {
            // No more changes can come; the caller waits for the stop.
            pending::<()>().await;
        }
    }
}

/// Runs a write on a separate thread: an fsync of a slow disk takes seconds and must not block the event loop.
async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::document::Documents;

    async fn reasons(warnings: &Warnings, wanted: &[&str]) {
        let all = || {
            warnings
                .all()
                .iter()
                .map(|warning| warning.reason)
                .collect::<Vec<_>>()
        };
        let wait = async {
            while all() != wanted {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(60), wait).await;
        assert!(reached.is_ok(), "{:?} instead of {wanted:?}", all());
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_takes_no_file_is_told_before_a_document_is_to_be_kept() {
        let directory = tempfile::tempdir().unwrap();
        let in_the_way = directory.path().join("cache");
        fs::write(&in_the_way, "").unwrap();
        let cache = Cache::new(in_the_way.clone());
        let warnings = Arc::new(Warnings::default());
        let documents = Documents::new(None, Arc::default(), Arc::clone(&warnings));
        let (_proven, proven) = watch::channel(BTreeSet::new());
        let keeper = Keeper::new(cache, documents.subscribe(), proven, Arc::clone(&warnings));
        let stop = CancellationToken::new();
        let keeping = tokio::spawn(keeper.run(stop.clone()));
        reasons(&warnings, &["CacheUnwritable"]).await;
        fs::remove_file(&in_the_way).unwrap();
        reasons(&warnings, &[]).await;
        assert_eq!(
            fs::read_dir(&in_the_way).unwrap().count(),
            0,
            "the trial is removed"
        );
        stop.cancel();
        keeping.await.unwrap();
    }

    #[tokio::test]
    async fn a_cached_document_that_cannot_be_followed_is_told_with_its_file() {
        let directory = tempfile::tempdir().unwrap();
        for (revision, content) in [(1, &b"garbage"[..]), (2, &[0xff, 0xfe])] {
            let name = format!("document-{revision:020}.json");
            fs::write(directory.path().join(name), content).unwrap();
        }
        let warnings = Arc::new(Warnings::default());
        let cache = Cache::new(directory.path().to_owned());
        let documents = Documents::new(Some(cache), Arc::default(), Arc::clone(&warnings));
        documents.offer_cached();
        let all = warnings.all();
        let [warning] = all.as_slice() else {
            panic!("{all:?}");
        };
        assert_eq!(warning.reason, "CacheCorrupt");
        assert!(
            warning.message.contains("document-00000000000000000002.json")
                && warning.message.contains("and 1 more")
                && warning.message.contains("without a document"),
            "{warning:?}"
        );
    }
}
