//! Documents: where they come from, and which one is in force. The revision in force only grows, for all sources together,
//! with one exception: a document of the right cluster replaces one of another cluster, see [`stale`].

pub mod cache;
pub mod file;
pub mod keeper;
mod known;
pub mod seed;
pub mod stale;
pub mod watch;
mod witness;

use std::{
    cmp::Ordering,
    collections::{BTreeSet, VecDeque},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::watch as channel, time::Instant};
use tracing::{info, warn};
use trivet_crds::wire::Document;

use self::{cache::Cache, known::Known, stale::StaleDocument};
use crate::{
    balance::PathKey,
    cause, clock,
    metrics::Metrics,
    settings::Settings,
    source::Source,
    warnings::{Topic, Warnings},
};

/// The reason for a document that has the revision of the one in force, but another content.
const SAME_REVISION: &str = "SameRevision";

/// The reason for a seed where another source has brought a document already.
const SUPERSEDED: &str = "Superseded";

/// The result of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfferResult {
    /// It is in force now.
    Followed,
    /// It is in force already.
    Known,
    /// Its revision is not above that of the one in force.
    Stale,
    /// It cannot be followed.
    Rejected,
}

/// The document in force with its settings, and where it came from.
#[derive(Clone, Debug)]
pub struct InForce {
    /// The document and what follows from it.
    pub settings: Arc<Settings>,
    /// The original text, which may have fields that only later releases know.
    pub text: Arc<str>,
    /// What brought it.
    pub source: Source,
    /// When it came into force.
    pub since: Instant,
    /// How often a stale document was followed so far, in place of one with the same or a higher revision. What was
    /// written to the disk before the last time must not come back from there.
    pub replacements: u64,
}

/// The document in force, and the rules by which a newer one replaces it.
#[derive(Debug)]
pub struct Documents {
    current: channel::Sender<Option<InForce>>,
    /// What earlier documents know, the latest document first; as many documents as the disk keeps.
    history: Mutex<VecDeque<Known>>,
    /// What the seed knows, where another document came before it.
    seed: Mutex<Known>,
    /// The texts that were rejected last, by source: each is reported once, not at every poll.
    rejected: Mutex<Vec<(Source, String)>>,
    /// The documents that sources offer and that are not followed because of their revision, at most one per source.
    stale: channel::Sender<Vec<StaleDocument>>,
    /// The hash of the document that a stale one replaced. Its higher revision is no reason to follow it again.
    abandoned: Mutex<Option<String>>,
    /// The sources that have told what they have, see [`witness`].
    told: Mutex<BTreeSet<Source>>,
    cache: Option<Cache>,
    metrics: Arc<Metrics>,
    warnings: Arc<Warnings>,
}

/// How a document compares with the one in force.
enum Order {
    Newer,
    InForce,
    /// The reason why it is not followed.
    Stale(&'static str),
}

impl Documents {
    /// No document is in force yet. `cache` holds the earlier ones.
    pub fn new(cache: Option<Cache>, metrics: Arc<Metrics>, warnings: Arc<Warnings>) -> Self {
        Self {
            current: channel::Sender::new(None),
            history: Mutex::default(),
            seed: Mutex::default(),
            rejected: Mutex::default(),
            stale: channel::Sender::default(),
            abandoned: Mutex::default(),
            told: Mutex::default(),
            cache,
            metrics,
            warnings,
        }
    }

    /// The document in force, and every later one.
    pub fn subscribe(&self) -> channel::Receiver<Option<InForce>> {
        self.current.subscribe()
    }

    /// The documents that sources offer and that are not followed because of their revision.
    pub fn subscribe_stale(&self) -> channel::Receiver<Vec<StaleDocument>> {
        self.stale.subscribe()
    }

    /// The revision of the ConfigMap in the API, if it is older than the document in force: it came back from a backup. A
    /// mounted ConfigMap does not tell, because it lags behind, and one with another authority is of another cluster.
    pub fn older_in_api(&self) -> Option<u64> {
        let in_force = self.in_force()?;
        let stale = self.stale.borrow();
        let in_api = stale
            .iter()
            .find(|stale| stale.source == Source::Watch && !stale.is_twin)?;
        let has_its_authority = stale::authority(&in_api.settings) == stale::authority(&in_force.settings);
        has_its_authority.then_some(in_api.settings.document.revision)
    }

    /// The document in force now.
    pub fn in_force(&self) -> Option<InForce> {
        self.current.borrow().clone()
    }

    /// The revision in force.
    pub fn revision(&self) -> Option<u64> {
        let revision = |in_force: &InForce| in_force.settings.document.revision;
        self.current.borrow().as_ref().map(revision)
    }

    /// The paths of the document in force and of the earlier ones that the disk keeps.
    pub fn known_paths(&self) -> BTreeSet<PathKey> {
        let mut known: BTreeSet<_> = self.current().paths.into_iter().collect();
        known.extend(self.history().iter().flat_map(|earlier| &earlier.paths).cloned());
        known
    }

    /// The paths of earlier documents that are not in the one in force, the latest first.
    pub fn earlier_paths(&self) -> Vec<PathKey> {
        let mut known = self.current().paths;
        let mut earlier = Vec::new();
        for path in self.history().iter().flat_map(|earlier| &earlier.paths) {
            if !known.contains(path) {
                known.push(path.clone());
                earlier.push(path.clone());
            }
        }
        earlier
    }

    /// Where else an apiserver may be: the further endpoints of the document in force, and the members of the seed, at
    /// addresses that neither it nor an earlier document has for a member.
    pub fn further_paths(&self) -> Vec<PathKey> {
        let earlier: BTreeSet<_> = self.history().iter().flat_map(Known::addresses).collect();
        known::further(&self.current(), earlier, &self.seed())
    }

    /// Offers the documents on the disk, the newest first, until one is followed. The older ones become the history.
    pub fn offer_cached(&self) {
        let mut followed = false;
        let mut refused = Vec::new();
        for (path, text) in self.cached_files() {
            let text = match text {
                Ok(text) => text,
                Err(error) => {
                    warn!(file = %path.display(), %error, "skipping cached document");
                    refused.extend((!followed).then(|| format!("{}: {error}", path.display())));
                    continue;
                }
            };
            match read(&text, clock::unix_seconds()) {
                Ok(settings) if followed => self.history().push_back(Known::of(&settings.document)),
                Ok(settings) => {
                    followed = self.offer_valid(settings, &text, Source::Cache) == OfferResult::Followed;
                }
                Err(_) if followed => {}
                Err(rejection) => {
                    refused.push(format!("{}: {}", path.display(), rejection.message));
                    self.reject(&text, Source::Cache, &rejection);
                }
            }
        }
        self.warn_of_refused(&refused);
    }

    /// Warns of files that are newer than the document in force and that cannot be followed.
    fn warn_of_refused(&self, refused: &[String]) {
        let Some((newest, others)) = refused.split_first() else {
            return;
        };
        let start = match self.revision() {
            Some(revision) => format!("started from the older document {revision}"),
            None => "started without a document of the disk".to_owned(),
        };
        let more = match others.len() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        let message = format!(
            "{newest}{more}; {start}; this ends when the next document is written: check the disk if it comes back"
        );
        self.warnings.raise(Topic::CacheContent, "CacheCorrupt", message);
    }

    /// Offers a text. It is followed if it is valid and newer than the document in force.
    pub fn offer(&self, text: &str, source: Source) -> OfferResult {
        match read(text, clock::unix_seconds()) {
            Ok(settings) => {
                let result = self.offer_valid(settings, text, source);
                // After the offer, so that no report tells a revision that the offer contests.
                self.has_told(source);
                result
            }
            Err(rejection) => {
                self.reject(text, source, &rejection);
                OfferResult::Rejected
            }
        }
    }

    fn offer_valid(&self, settings: Settings, text: &str, source: Source) -> OfferResult {
        let revision = settings.document.revision;
        match self.order(&settings.document, source) {
            Order::Newer => {}
            Order::InForce => {
                self.drop_stale(source);
                return OfferResult::Known;
            }
            Order::Stale(reason) => {
                if self.first_rejection(text, source, reason) {
                    let in_force = self.revision();
                    // Not a warning: the mounted ConfigMap usually lags behind the watch. `stale` warns if this lasts.
                    info!(
                        source = source.as_str(),
                        reason,
                        offered = revision,
                        in_force,
                        "refused document"
                    );
                }
                if source == Source::Seed {
                    *self.seed() = Known::of(&settings.document);
                }
                self.keep_stale(settings, text, source, reason);
                return OfferResult::Stale;
            }
        }
        self.drop_stale(source);
        let before = self.follow(Arc::new(settings), text.into(), source, false);
        if let Some(before) = before {
            self.put_into_history(Known::of(&before.settings.document));
        }
        OfferResult::Followed
    }

    fn put_into_history(&self, before: Known) {
        let current = self.current();
        let mut history = self.history();
        history.push_front(before);
        let documents = [&current].into_iter().chain(&*history).map(Known::addresses);
        let mut is_kept = known::kept(&documents.collect::<Vec<_>>(), cache::GENERATIONS + 1).into_iter();
        is_kept.next();
        history.retain(|_| is_kept.next().unwrap_or_default());
    }

    /// Follows a stale document in place of `judged`, unless that is no longer in force. Forgets the members of earlier
    /// documents, because they are of another cluster.
    pub fn follow_stale(&self, stale: &StaleDocument, judged: &InForce) {
        let is_judged = |in_force: InForce| in_force.text == judged.text;
        if !self.in_force().is_some_and(is_judged) {
            return;
        }
        warn!(
            offered = stale.settings.document.revision,
            in_force = judged.settings.document.revision,
            "following a document in place of one that came before it: its authority verifies a member, that of the one in force none"
        );
        self.drop_stale(stale.source);
        self.history().clear();
        *self.abandoned() = Some(judged.settings.document.hash.clone());
        self.follow(
            Arc::clone(&stale.settings),
            Arc::clone(&stale.text),
            stale.source,
            true,
        );
    }

    fn follow(
        &self,
        settings: Arc<Settings>,
        text: Arc<str>,
        source: Source,
        is_replacement: bool,
    ) -> Option<InForce> {
        let document = &settings.document;
        let members: Vec<_> = document
            .members
            .iter()
            .map(|member| member.name.as_str())
            .collect();
        info!(
            pool = document.pool,
            revision = document.revision,
            source = source.as_str(),
            ?members,
            nodes = document.nodes,
            "following document"
        );
        let mut before = None;
        self.current.send_modify(|current| {
            before = current.take();
            let replacements = before.as_ref().map_or(0, |before| before.replacements);
            *current = Some(InForce {
                settings,
                text,
                source,
                since: Instant::now(),
                replacements: replacements + u64::from(is_replacement),
            });
        });
        before
    }

    fn order(&self, document: &Document, source: Source) -> Order {
        let current = self.current.borrow();
        let Some(in_force) = current.as_ref() else {
            return Order::Newer;
        };
        let current = &in_force.settings.document;
        match document.revision.cmp(&current.revision) {
            Ordering::Equal if document.hash == current.hash => Order::InForce,
            // Whatever its revision: a seed says what was right when the node was installed.
            _ if source == Source::Seed => Order::Stale(SUPERSEDED),
            // A seed that was made without a cluster has revision 1, as a document that somebody writes by hand may have.
            Ordering::Equal if in_force.source == Source::Seed => Order::Newer,
            // Two documents of one revision mean two writers, or an edit by hand.
            Ordering::Equal => Order::Stale(SAME_REVISION),
            Ordering::Less => Order::Stale("Older"),
            Ordering::Greater if self.abandoned().as_ref() == Some(&document.hash) => {
                Order::Stale("Abandoned")
            }
            Ordering::Greater => Order::Newer,
        }
    }

    /// Keeps a stale document for [`stale::resolve`]. Not those of the cache, which offers documents only at the start.
    fn keep_stale(&self, settings: Settings, text: &str, source: Source, reason: &'static str) {
        if source == Source::Cache {
            return;
        }
        self.stale.send_if_modified(|stale| {
            if stale
                .iter()
                .any(|known| known.source == source && &*known.text == text)
            {
                return false;
            }
            // If a source offers several stale documents one after the other, the time of the first counts.
            let since = stale
                .iter()
                .find(|known| known.source == source)
                .map(|known| known.since);
            stale.retain(|known| known.source != source);
            stale.push(StaleDocument {
                settings: Arc::new(settings),
                text: text.into(),
                source,
                is_twin: reason == SAME_REVISION,
                since: since.unwrap_or_else(Instant::now),
            });
            true
        });
    }

    fn drop_stale(&self, source: Source) {
        self.stale.send_if_modified(|stale| {
            let before = stale.len();
            stale.retain(|known| known.source != source);
            stale.len() < before
        });
    }

    /// The documents on the disk, the newest first.
    fn cached_files(&self) -> Vec<(PathBuf, io::Result<String>)> {
        let Some(cache) = &self.cache else {
            return Vec::new();
        };
        cache.files().unwrap_or_else(|error| {
            let message = format!(
                "{}: no document can be read from there: {error}",
                cache.directory().display()
            );
            self.warnings.raise(Topic::CacheRead, "CacheUnreadable", message);
            Vec::new()
        })
    }

    fn abandoned(&self) -> MutexGuard<'_, Option<String>> {
        self.abandoned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the document in force knows; nothing if there is none.
    fn current(&self) -> Known {
        let current = self.current.borrow();
        let known = current
            .as_ref()
            .map(|in_force| Known::of(&in_force.settings.document));
        known.unwrap_or_default()
    }

    fn history(&self) -> MutexGuard<'_, VecDeque<Known>> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seed(&self) -> MutexGuard<'_, Known> {
        self.seed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reject(&self, text: &str, source: Source, rejection: &Rejection) {
        if self.first_rejection(text, source, rejection.reason) {
            let Rejection { reason, message } = rejection;
            warn!(
                source = source.as_str(),
                reason,
                error = message,
                in_force = self.revision(),
                "refused document"
            );
        }
    }

    /// Counts a rejection, unless this text of this source was rejected already.
    fn first_rejection(&self, text: &str, source: Source, reason: &'static str) -> bool {
        let mut rejected = self.rejected.lock().unwrap_or_else(PoisonError::into_inner);
        if rejected.iter().any(|(by, known)| *by == source && known == text) {
            return false;
        }
        // The disk offers several texts at once, the other sources one at a time.
        rejected.retain(|(by, _)| *by != source || source == Source::Cache);
        rejected.push((source, text.to_owned()));
        self.metrics.document_rejected(source, reason);
        true
    }
}

/// Why a text is not followed; the document in force stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// One fixed word for logs and metrics.
    pub reason: &'static str,
    /// Which field is wrong, and why.
    pub message: String,
}

/// Reads a text and derives its settings. `now` is [`clock::unix_seconds`].
pub fn read(text: &str, now: u64) -> Result<Settings, Rejection> {
    let checked = Document::parse(text).and_then(|document| {
        document.check_revision(now)?;
        Ok(document)
    });
    let document = checked.map_err(|error| Rejection {
        reason: error.reason(),
        message: cause::chain(&error),
    })?;
    Settings::new(Arc::new(document)).map_err(|error| Rejection {
        reason: "UnusableTls",
        message: error.to_string(),
    })
}
