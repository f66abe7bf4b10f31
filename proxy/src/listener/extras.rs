//! The extra listeners: for each of them the upstreams that its clients reach.
//!
//! A listener that has left the document is kept until the last of its connections has ended. So is one that only another
//! process of this node knew, and whose connections this one has taken: they drain.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::sleep;
use tracing::{info, warn};

use crate::{
    connection::Shared,
    settings::Settings,
    upstream::{LOOK_EVERY, Service, ServiceLog, Upstreams},
    warnings::{Topic, Warnings},
};

/// The upstreams of all extra listeners.
#[derive(Debug)]
pub struct Extras {
    /// What their connections share with those of the apiservers.
    apiservers: Arc<Shared>,
    all: Mutex<BTreeMap<String, Extra>>,
}

#[derive(Debug)]
struct Extra {
    shared: Arc<Shared>,
    service_log: ServiceLog,
    /// Whether no server answers, as far as it was told.
    is_gone: bool,
}

impl Extras {
    /// No extra listener, beside those of the apiservers.
    pub(super) fn new(apiservers: Arc<Shared>) -> Self {
        Self {
            apiservers,
            all: Mutex::default(),
        }
    }

    /// Puts a document in force. A listener that stays keeps its upstreams; the connections of one that has gone drain.
    pub fn apply(&self, settings: &Arc<Settings>) {
        let mut all = self.all();
        for listener in settings.document.extra_listeners() {
            self.known(&mut all, &listener.name);
        }
        for extra in all.values() {
            let upstreams = &extra.shared.upstreams;
            upstreams.apply(Arc::clone(settings));
            // Its proofs cost a probe each, so only those of paths in use are kept.
            upstreams.forget_proofs_but(&BTreeSet::new());
        }
    }

    /// What the connections of a listener share; none of one that this process does not know.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Shared>> {
        self.all().get(name).map(|extra| Arc::clone(&extra.shared))
    }

    /// The same for connections that another process had. Those of a listener that this one does not know drain.
    pub(super) fn adopt(&self, name: &str) -> Arc<Shared> {
        let mut all = self.all();
        let is_known = all.contains_key(name);
        let shared = self.known(&mut all, name);
        drop(all);
        if !is_known && let Some(settings) = self.apiservers.upstreams.settings() {
            shared.upstreams.apply(settings);
        }
        shared
    }

    /// The upstreams of all of them, each with the name of its listener.
    pub fn upstreams(&self) -> BTreeMap<String, Arc<Upstreams>> {
        let all = self.all();
        let named = all.iter();
        named
            .map(|(name, extra)| (name.clone(), Arc::clone(&extra.shared.upstreams)))
            .collect()
    }

    /// Looks periodically, without end, what becomes of them. That no server of a listener answers is a warning.
    pub async fn watch(&self, warnings: Arc<Warnings>) {
        let clock = Arc::clone(self.apiservers.upstreams.clock());
        let mut lapses = clock.lapses();
        loop {
            sleep(LOOK_EVERY).await;
            let turns = lapses.since(&clock).is_zero();
            if self.all().is_empty() {
                warnings.clear(Topic::ExtraListeners);
                continue;
            }
            for upstreams in self.upstreams().into_values() {
                // After a lapse the answers may lie unread.
                if turns {
                    upstreams.look_for_overdue_replies();
                }
            }
            self.tell(&warnings);
            self.forget_what_is_over();
        }
    }

    fn tell(&self, warnings: &Warnings) {
        let mut all = self.all();
        for (listener, extra) in all.iter_mut() {
            if !extra.shared.upstreams.is_in_document() {
                extra.is_gone = false;
                continue;
            }
            let Some((service, members)) = extra.shared.upstreams.look_at_service(&mut extra.service_log)
            else {
                continue;
            };
            extra.is_gone = service == Service::Gone;
            match service {
                Service::Up => info!(listener, members, "a server of the extra listener is Up again"),
                Service::Unready | Service::LastResort => warn!(
                    listener,
                    members,
                    "no server of the extra listener is Up: clients are sent to those that answer, and nothing is cut"
                ),
                Service::Gone => warn!(listener, members, "no server of the extra listener answers"),
            }
        }
        let gone = all.iter().filter(|(_, extra)| extra.is_gone);
        let gone: Vec<_> = gone.map(|(name, _)| name.as_str()).collect();
        if gone.is_empty() {
            return warnings.clear(Topic::ExtraListeners);
        }
        let message = format!(
            "no server answers at memberPort of the extra listener {}: its clients are tried with each member, and refused where none takes them; check these servers, or remove the entry from spec.listeners",
            gone.join(", ")
        );
        warnings.raise(Topic::ExtraListeners, "NoServerAnswers", message);
    }

    fn forget_what_is_over(&self) {
        self.all().retain(|listener, extra| {
            let upstreams = &extra.shared.upstreams;
            // A second reference belongs to a task that opens or adopts a connection and has not counted it yet.
            let is_over = upstreams.is_over() && Arc::strong_count(&extra.shared) == 1;
            if is_over {
                info!(listener, "the last connection of a removed listener has ended");
                upstreams.abandon();
            }
            !is_over
        });
    }

    fn known(&self, all: &mut BTreeMap<String, Extra>, name: &str) -> Arc<Shared> {
        let make = || {
            let upstreams = Upstreams::of_listener(&self.apiservers.upstreams, name);
            Extra {
                shared: Arc::new(self.apiservers.beside(upstreams)),
                service_log: ServiceLog::default(),
                is_gone: false,
            }
        };
        let extra = all.entry(name.to_owned()).or_insert_with(make);
        Arc::clone(&extra.shared)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Extra>> {
        // A panic while the lock is held leaves the entries valid.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
