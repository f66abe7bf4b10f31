//! The wire document: where it comes from, and which one is followed. Revisions only grow, whatever brings them.

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
    cause,
    metrics::Metrics,
    settings::{self, Settings},
};

/// What brought a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The file named on the command line, in a cluster the mounted ConfigMap.
    File,
    /// This node's disk.
    Cache,
    /// The ConfigMap, through the API.
    Watch,
}

impl Source {
    /// All of them, in the order of the metric.
    pub const ALL: [Self; 3] = [Self::File, Self::Cache, Self::Watch];

    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "File",
            Self::Cache => "Cache",
            Self::Watch => "Watch",
        }
    }
}

/// What became of an offered document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfferResult {
    /// It is in force now.
    Followed,
    /// It is the one in force.
    Known,
    /// It is older than the one in force.
    Older,
    /// It cannot be followed.
    Rejected,
}

/// The document in force, worked out, and how it came to be.
#[derive(Clone, Debug)]
pub struct InForce {
    /// The document.
    pub settings: Arc<Settings>,
    /// It as it came: a later release may have written fields that are not known here.
    pub text: Arc<str>,
    /// What brought it.
    pub source: Source,
    /// When.
    pub since: Instant,
}

/// The document in force, and the way for a newer one to replace it.
#[derive(Debug)]
pub struct Documents {
    current: channel::Sender<Option<InForce>>,
    /// The members of the documents before it, the latest first, as many as the disk keeps.
    history: Mutex<VecDeque<Vec<Identity>>>,
    /// The text that each source was last refused for: said once, not at every look.
    refused: Mutex<Vec<(Source, String)>>,
    cache: Option<Cache>,
    metrics: Arc<Metrics>,
}

impl Documents {
    /// None in force yet. Earlier ones are in `cache`.
    pub fn new(cache: Option<Cache>, metrics: Arc<Metrics>) -> Self {
        Self {
            current: channel::Sender::new(None),
            history: Mutex::default(),
            refused: Mutex::default(),
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

    /// The members of the document in force and of those before it, as many as the disk keeps.
    pub fn known_members(&self) -> BTreeSet<Identity> {
        let mut known: BTreeSet<_> = self.current_members().into_iter().collect();
        known.extend(self.history().iter().flatten().cloned());
        known
    }

    /// The members of earlier documents that the one in force has not, the latest first.
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

    /// Offers the generations on the disk, the newest first, until one is followed. The older ones are history.
    pub fn offer_cached(&self) {
        let mut followed = false;
        for text in self.cache.iter().flat_map(Cache::texts) {
            if followed {
                let earlier = read(&text).ok();
                self.history()
                    .extend(earlier.map(|settings| members_of(&settings)));
            } else {
                followed = self.offer(&text, Source::Cache) == OfferResult::Followed;
            }
        }
    }

    /// Offers a text; it is followed if it is valid and newer.
    pub fn offer(&self, text: &str, source: Source) -> OfferResult {
        let settings = match read(text) {
            Ok(settings) => settings,
            Err(rejection) => {
                self.refuse(text, source, &rejection);
                return OfferResult::Rejected;
            }
        };
        let revision = settings.document.revision;
        if let Some(InForce {
            settings: current, ..
        }) = self.current.borrow().as_ref()
        {
            if revision < current.document.revision {
                self.refuse_older(text, source, revision);
                return OfferResult::Older;
            }
            if revision == current.document.revision {
                self.warn_of_twin(&settings, current, source);
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

    fn refuse(&self, text: &str, source: Source, rejection: &Rejection) {
        if self.first_refusal(text, source, rejection.reason) {
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

    /// Usual where the mounted ConfigMap lags behind the watch, so nobody needs to act.
    fn refuse_older(&self, text: &str, source: Source, offered: u64) {
        if self.first_refusal(text, source, "Older") {
            info!(
                source = source.as_str(),
                reason = "Older",
                offered,
                in_force = self.revision(),
                "refused document"
            );
        }
    }

    /// Counts a rejection, unless this text of this source was refused already.
    fn first_refusal(&self, text: &str, source: Source, reason: &'static str) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.iter().any(|(by, known)| *by == source && known == text) {
            return false;
        }
        // The disk brings several texts at once, the other sources one at a time.
        refused.retain(|(by, _)| *by != source || source == Source::Cache);
        refused.push((source, text.to_owned()));
        self.metrics.document_refused(source, reason);
        true
    }

    /// Two documents of one revision are two writers, or an edit by hand.
    fn warn_of_twin(&self, offered: &Settings, current: &Settings, source: Source) {
        if offered.document.hash != current.document.hash {
            let rejection = Rejection {
                reason: "SameRevision",
                message: format!(
                    "revision {} is in force with another content",
                    current.document.revision
                ),
            };
            self.refuse(&offered.document.hash, source, &rejection);
        }
    }
}

fn members_of(settings: &Settings) -> Vec<Identity> {
    settings.document.members.iter().map(settings::identity).collect()
}

/// Why a text is not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// One fixed word.
    pub reason: &'static str,
    /// What is wrong with which field.
    pub message: String,
}

/// Reads a text as far as following it needs.
pub fn read(text: &str) -> Result<Settings, Rejection> {
    let document = Document::parse(text).map_err(|error| Rejection {
        reason: error.reason(),
        message: cause::chain(&error),
    })?;
    Settings::new(Arc::new(document)).map_err(|error| Rejection {
        reason: "UnusableTls",
        message: error.to_string(),
    })
}
