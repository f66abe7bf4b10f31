//! Whether this operator can do its work, for `/readyz`: which kinds of objects have been listed once, what the API server
//! refuses, and whether it takes part in the election. Passes wait here for a kind.
//!
//! Nothing is sent to an operator that is ready. It is what people see of one that cannot do its work: where it has lost its
//! rights, or reaches no API server, it cannot write a status either.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;
use tokio::time::Instant;

use super::metrics::Metrics;
use super::watchdog::Watchdog;
use crate::logging::chain;

/// The kinds that are watched.
pub const KINDS: [&str; 5] = ["ApiserverPool", "Node", "ConfigMap", "DaemonSet", "Pod"];

/// How long a refusal counts that is not repeated. A request that is refused is tried again after five seconds at most, and a
/// watch that is not refused any more may bring no event.
const REFUSED_FOR: Duration = Duration::from_secs(15);

/// How long an operator without an answer about its Lease is ready: several times what the loss of an apiserver takes.
const CUT_OFF_AFTER: Duration = Duration::from_secs(60);

/// Which kinds have been read once, and what keeps the operator from its work.
///
/// (kube's own `Store::wait_until_ready` wakes only one of its waiters, and for pools that one is `Controller`.)
#[derive(Debug)]
pub struct Readiness {
    metrics: Arc<Metrics>,
    watchdog: Arc<Watchdog>,
    unread: watch::Sender<BTreeSet<&'static str>>,
    hindrances: Mutex<Hindrances>,
}

/// What keeps the operator from its work.
#[derive(Debug, Default)]
struct Hindrances {
    /// What the API server refuses: when it last did, and its words.
    refused: BTreeMap<&'static str, (Instant, String)>,
    /// Since when nothing is known of the Lease, and why.
    cut_off: Option<(Instant, String)>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new(Arc::default(), Arc::default())
    }
}

impl Readiness {
    /// No kind has been read. `metrics` counts the events and errors of the watches, and `watchdog` sees that they go on.
    pub fn new(metrics: Arc<Metrics>, watchdog: Arc<Watchdog>) -> Self {
        Self {
            metrics,
            watchdog,
            unread: watch::Sender::new(KINDS.into()),
            hindrances: Mutex::default(),
        }
    }

    /// Whether this operator can do its work at `now`, and if not, why.
    pub fn check(&self, now: Instant) -> Result<(), String> {
        let unread: Vec<_> = self.unread.borrow().iter().copied().collect();
        let refused = self.refused(now);
        let cut_off = self.with(|hindrances| hindrances.cut_off.clone());
        let cut_off = cut_off.filter(|(since, _)| now.saturating_duration_since(*since) >= CUT_OFF_AFTER);
        if !refused.is_empty() {
            let words = refused.iter().map(|(what, words)| format!("{what}: {words}"));
            let words = words.collect::<Vec<_>>().join("; ");
            return Err(format!(
                "the API server refuses what the chart's roles allow the operator: {words}"
            ));
        }
        if let Some((since, why)) = cut_off {
            let seconds = now.saturating_duration_since(since).as_secs();
            return Err(format!("no part in the election for {seconds} s: {why}"));
        }
        if unread.is_empty() {
            Ok(())
        } else {
            Err(format!(
                "the watched objects have not been read yet: {}",
                unread.join(", ")
            ))
        }
    }

    /// Whether this kind has been read once.
    pub fn has_read(&self, kind: &str) -> bool {
        !self.unread.borrow().contains(kind)
    }

    /// Waits until this kind has been read once.
    pub async fn read(&self, kind: &'static str) {
        // The sender lives as long as `self`, so the wait cannot fail.
        self.unread
            .subscribe()
            .wait_for(|unread| !unread.contains(kind))
            .await
            .ok();
    }

    /// What the API server refuses at `now`, with its words.
    pub fn refused(&self, now: Instant) -> BTreeMap<&'static str, String> {
        self.with(|hindrances| {
            let is_recent = |at: Instant| now.saturating_duration_since(at) < REFUSED_FOR;
            let recent = hindrances.refused.iter().filter(|(_, (at, _))| is_recent(*at));
            recent.map(|(what, (_, words))| (*what, words.clone())).collect()
        })
    }

    /// Records whether the API server lets the operator do this. What is no refusal says nothing about it.
    pub fn observe_request(&self, what: &'static str, failure: Option<&kube::Error>) {
        let now = Instant::now();
        self.with(|hindrances| match failure.map(refusal) {
            None => drop(hindrances.refused.remove(what)),
            Some(Some(words)) => drop(hindrances.refused.insert(what, (now, words.to_owned()))),
            Some(None) => {}
        });
    }

    /// Records whether the operator has been told of the Lease, or why not.
    pub fn observe_election(&self, failure: Option<String>) {
        let now = Instant::now();
        self.with(|hindrances| {
            let since = hindrances.cut_off.as_ref().map_or(now, |(since, _)| *since);
            hindrances.cut_off = failure.map(|why| (since, why));
        });
    }

    /// Records that the watch of this kind is looked at.
    pub fn polled(&self, kind: &'static str) {
        self.watchdog.beat(&format!("watch {kind}"));
    }

    /// Records an event or error of the watch of this kind.
    pub fn observe<K>(&self, kind: &'static str, item: &Result<Event<K>, watcher::Error>) {
        match item {
            // It is about to ask: nothing has come.
            Ok(Event::Init) => {}
            Ok(event) => {
                self.metrics.watch_moved(kind, Instant::now());
                self.observe_request(kind, None);
                if matches!(event, Event::InitDone) {
                    self.unread.send_if_modified(|unread| unread.remove(kind));
                }
            }
            Err(error) => {
                self.metrics.watch_failed(kind);
                if let Some(source) = source(error) {
                    self.observe_request(kind, Some(source));
                }
                tracing::warn!(kind, error = chain(error), "watch failed; starting it again");
            }
        }
    }

    fn with<T>(&self, use_hindrances: impl FnOnce(&mut Hindrances) -> T) -> T {
        use_hindrances(&mut self.hindrances.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The words with which the API server refuses a request for who asks it.
pub fn refusal(error: &kube::Error) -> Option<&str> {
    match error {
        kube::Error::Api(status) if matches!(status.code, 401 | 403) => Some(&status.message),
        _ => None,
    }
}

/// The request that a watch has failed with, if it was one.
fn source(error: &watcher::Error) -> Option<&kube::Error> {
    match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => Some(source),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use kube::core::Status;
    use tokio::time::advance;

    use super::*;

    fn read_all(readiness: &Readiness) {
        for kind in KINDS {
            readiness.observe::<Node>(kind, &Ok(Event::InitDone));
        }
    }

    fn failure(code: u16) -> kube::Error {
        kube::Error::Api(
            Status::failure("nodes is forbidden", "Forbidden")
                .with_code(code)
                .boxed(),
        )
    }

    #[tokio::test]
    async fn it_is_ready_once_every_kind_has_been_read() {
        let readiness = Readiness::default();
        for kind in KINDS {
            let why = readiness.check(Instant::now()).unwrap_err();
            assert!(why.contains(kind), "{why}");
            readiness.observe::<Node>(kind, &Ok(Event::Init));
            assert!(!readiness.has_read(kind));
            readiness.observe::<Node>(kind, &Ok(Event::InitDone));
            readiness.read(kind).await;
        }
        assert_eq!(readiness.check(Instant::now()), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_refused_is_told_until_it_is_refused_no_longer() {
        let readiness = Readiness::default();
        read_all(&readiness);
        for error in [
            watcher::Error::InitialListFailed(failure(403)),
            watcher::Error::WatchStartFailed(failure(401)),
        ] {
            readiness.observe::<Node>("Node", &Err(error));
            let why = readiness.check(Instant::now()).unwrap_err();
            assert!(why.contains("Node: nodes is forbidden"), "{why}");
            // The beginning of the next attempt is no success.
            readiness.observe::<Node>("Node", &Ok(Event::Init));
            assert!(readiness.check(Instant::now()).is_err());
            // A watch that goes on may bring nothing.
            advance(REFUSED_FOR).await;
            assert_eq!(readiness.check(Instant::now()), Ok(()));
        }
        readiness.observe::<Node>("Node", &Err(watcher::Error::InitialListFailed(failure(403))));
        readiness.observe::<Node>("Node", &Ok(Event::InitDone));
        assert_eq!(readiness.check(Instant::now()), Ok(()));
    }

    #[tokio::test]
    async fn an_api_server_that_is_absent_or_overloaded_refuses_nothing() {
        let readiness = Readiness::default();
        read_all(&readiness);
        for code in [404, 410, 429, 500, 503] {
            readiness.observe::<Node>("Node", &Err(watcher::Error::WatchStartFailed(failure(code))));
        }
        assert_eq!(readiness.check(Instant::now()), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_operator_that_hears_nothing_of_its_lease_for_a_minute_is_not_ready() {
        let readiness = Readiness::default();
        read_all(&readiness);
        readiness.observe_election(Some("no answer".to_owned()));
        advance(CUT_OFF_AFTER / 2).await;
        readiness.observe_election(Some("no route".to_owned()));
        assert_eq!(readiness.check(Instant::now()), Ok(()), "half a minute");
        advance(CUT_OFF_AFTER / 2).await;
        let why = readiness.check(Instant::now()).unwrap_err();
        assert_eq!(why, "no part in the election for 60 s: no route");
        readiness.observe_election(None);
        assert_eq!(readiness.check(Instant::now()), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_only_tries_again_has_no_young_event() {
        let metrics = Arc::new(Metrics::default());
        let readiness = Readiness::new(Arc::clone(&metrics), Arc::default());
        readiness.observe::<Node>("Node", &Ok(Event::InitDone));
        advance(Duration::from_secs(90)).await;
        readiness.observe::<Node>("Node", &Ok(Event::Init));
        let text = metrics.to_text().unwrap();
        assert!(
            text.contains("watch_last_event_age_seconds{kind=\"Node\"} 90"),
            "{text}"
        );
    }
}
