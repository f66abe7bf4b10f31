//! Documents: where they come from, and which one is in force. The revision in force only grows, whatever the source.

pub mod cache;
pub mod file;
pub mod keeper;
pub mod watch;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::watch as channel, time::Instant};
use tracing::{info, warn};
use trivet_crds::wire::Document;

use self::cache::Cache;
use crate::{
    balance::Identity,
    cause, clock,
    metrics::Metrics,
    settings::{self, Settings},
    source::Source,
};

/// The result of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfferResult {
    /// It is in force now.
    Followed,
    /// It is in force already.
    Known,
    /// It is older than the one in force.
    Older,
    /// It cannot be followed.
    Rejected,
}

/// The document in force with its settings, and where it came from.
#[derive(Clone, Debug)]
pub struct InForce {
    /// The document and what follows from it.
    pub settings: Arc<Settings>,
    /// The original text, which may have fields of a later release.
    pub text: Arc<str>,
    /// What brought it.
    pub source: Source,
    /// When it came into force.
    pub since: Instant,
}

/// The document in force, and the rules by which a newer one replaces it.
#[derive(Debug)]
pub struct Documents {
    current: channel::Sender<Option<InForce>>,
    /// The members of earlier documents, the latest document first; as many documents as the disk keeps.
    history: Mutex<VecDeque<Vec<Identity>>>,
    /// The texts that were rejected last, by source: each is reported once, not at every poll.
    rejected: Mutex<Vec<(Source, String)>>,
    cache: Option<Cache>,
    metrics: Arc<Metrics>,
}

impl Documents {
    /// No document is in force yet. `cache` holds the earlier ones.
    pub fn new(cache: Option<Cache>, metrics: Arc<Metrics>) -> Self {
        Self {
            current: channel::Sender::new(None),
            history: Mutex::default(),
            rejected: Mutex::default(),
            cache,
            metrics,
        }
    }

    /// The document in force, and every later one.
    pub fn subscribe(&self) -> channel::Receiver<Option<InForce>> {
        self.current.subscribe()
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

    /// The members of the document in force and of the earlier ones that the disk keeps.
    pub fn known_members(&self) -> BTreeSet<Identity> {
        let mut known: BTreeSet<_> = self.current_members().into_iter().collect();
        known.extend(self.history().iter().flatten().cloned());
        known
    }

    /// The members of earlier documents that are not in the one in force, the latest first.
    pub fn earlier_members(&self) -> Vec<Identity> {
        let mut known = self.current_members();
        let mut earlier = Vec::new();
        for identity in self.history().iter().flatten() {
            if !known.contains(identity) {
                known.push(identity.clone());
                earlier.push(identity.clone());
            }
        }
        earlier
    }

    /// Offers the documents on the disk, the newest first, until one is followed. The older ones become the history.
    pub fn offer_cached(&self) {
        let mut followed = false;
        for text in self.cache.iter().flat_map(Cache::texts) {
            if followed {
                let earlier = read(&text, clock::unix_seconds()).ok();
                self.history()
                    .extend(earlier.map(|settings| members_of(&settings)));
            } else {
                followed = self.offer(&text, Source::Cache) == OfferResult::Followed;
            }
        }
    }

    /// Offers a text. It is followed if it is valid and newer than the document in force.
    pub fn offer(&self, text: &str, source: Source) -> OfferResult {
        let settings = match read(text, clock::unix_seconds()) {
            Ok(settings) => settings,
            Err(rejection) => {
                self.reject(text, source, &rejection);
                return OfferResult::Rejected;
            }
        };
        let revision = settings.document.revision;
        if let Some(InForce {
            settings: current, ..
        }) = self.current.borrow().as_ref()
        {
            if revision < current.document.revision {
                self.reject_older(text, source, revision);
                return OfferResult::Older;
            }
            if revision == current.document.revision {
                self.reject_twin(&settings, current, source);
                return OfferResult::Known;
            }
        }
        let document = &settings.document;
        let members: Vec<_> = document
            .members
            .iter()
            .map(|member| member.name.as_str())
            .collect();
        info!(
            pool = document.pool,
            revision,
            source = source.as_str(),
            ?members,
            nodes = document.nodes,
            "following document"
        );
        let before = self.current.send_replace(Some(InForce {
            settings: Arc::new(settings),
            text: text.into(),
            source,
            since: Instant::now(),
        }));
        if let Some(before) = before {
            let mut history = self.history();
            history.push_front(members_of(&before.settings));
            history.truncate(cache::GENERATIONS);
        }
        OfferResult::Followed
    }

    fn current_members(&self) -> Vec<Identity> {
        let current = self.current.borrow();
        let members = current.iter().map(|in_force| members_of(&in_force.settings));
        members.flatten().collect()
    }

    fn history(&self) -> MutexGuard<'_, VecDeque<Vec<Identity>>> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Not a warning: the mounted ConfigMap usually lags behind the watch.
    fn reject_older(&self, text: &str, source: Source, offered: u64) {
        if self.first_rejection(text, source, "Older") {
            info!(
                source = source.as_str(),
                reason = "Older",
                offered,
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

    /// Two documents of one revision mean two writers, or an edit by hand.
    fn reject_twin(&self, offered: &Settings, current: &Settings, source: Source) {
        if offered.document.hash != current.document.hash {
            let rejection = Rejection {
                reason: "SameRevision",
                message: format!(
                    "revision {} is in force with another content",
                    current.document.revision
                ),
            };
            self.reject(&offered.document.hash, source, &rejection);
        }
    }
}

fn members_of(settings: &Settings) -> Vec<Identity> {
    settings.document.members.iter().map(settings::identity).collect()
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
