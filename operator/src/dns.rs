//! Publishes where a pool's apiservers are: a headless Service for the cluster, and records for external-dns.
//!
//! Nothing on a node depends on it, and it depends on no pass: a pass leaves behind which members are in force and how most
//! nodes find them ([`wish`]), and this loop makes the names say so. [`decision`] and [`damping`] are pure; [`act`] is thin.
//! Between two reads it goes on with what its own writes have left, so a change of health is written within a second; a write
//! over anything else fails, and it reads again. The objects of a pool that is gone stay until its proxies are retired
//! ([`crate::retire`]).

pub mod act;
pub mod damping;
pub mod decision;
pub mod published;
pub mod render;
pub mod wish;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::ResourceExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use self::act::Actor;
use self::damping::Damping;
use self::decision::{Decision, Live, Object, Place, decide};
use self::published::{Published, REFUSED, Trouble, Unobserved};
use self::wish::Facts;
use crate::api::fence::{is_conflict, is_fenced};
use crate::context::Context;
use crate::logging::chain;

/// The pause between two looks. A look that finds nothing new asks the API server for nothing.
const LOOK: Duration = Duration::from_secs(1);

/// The pause between two reads while a name is published or wanted: somebody may have edited the objects, external-dns may have
/// observed its one, and its CRD may have been installed.
const READ: Duration = Duration::from_secs(10);

/// The same while none is. What an earlier operator has left is found by the first read of a term.
const READ_IDLE: Duration = Duration::from_secs(600);

/// So many conflicts in a row are no race: an object of that name is there, and it is not Trivet's.
const CONFLICTS: u32 = 2;

/// What a pass and this loop tell each other of one pool.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    /// What the last pass has found out.
    pub facts: Option<Facts>,
    /// What is published; `None` while no name is wanted and none is left.
    pub published: Option<Published>,
}

impl Exchange {
    /// What the status is to say: of a pool that asks for a name, that nothing is known, until the loop has looked.
    pub fn to_tell(self) -> Option<Published> {
        let wish = self.facts.and_then(|facts| facts.wish);
        let is_wanted = wish.is_some_and(|wish| !wish.is_empty());
        self.published.or_else(|| is_wanted.then(Published::default))
    }
}

/// Keeps the names in step, without end. Sends word when a pool's status has something else to say.
pub async fn run(ctx: &Context, news: mpsc::Sender<()>) {
    let mut names = Names::default();
    loop {
        sleep(LOOK).await;
        let Some(leads) = ctx.leadership.enter(Instant::now()) else {
            // The next term begins with what it reads.
            names = Names::default();
            continue;
        };
        let term = leads.term.text();
        if names.term != term {
            names = Names {
                term,
                ..Names::default()
            };
        }
        let work = ctx.watchdog.begin("dns");
        if Box::pin(names.look(ctx, Instant::now())).await {
            // One that waits already tells of this change too.
            news.try_send(()).ok();
        }
        drop((work, leads));
    }
}

/// What is remembered from look to look.
#[derive(Debug, Default)]
struct Names {
    term: String,
    live: Option<Live>,
    /// When the objects were last read, or tried to be.
    read_at: Option<Instant>,
    pools: BTreeMap<String, Memory>,
    is_failing: bool,
}

/// What is remembered of one pool.
#[derive(Debug, Default)]
struct Memory {
    damping: Damping,
    unobserved: Unobserved,
    /// The writes that have failed, by kind and name.
    failures: BTreeMap<(&'static str, String), Failure>,
}

/// A write that has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    /// How many conflicts in a row there were.
    conflicts: u32,
    /// What people are told; `None` if it may have been a race.
    trouble: Option<Trouble>,
    /// It is not tried again before this moment.
    rests_until: Instant,
}

impl Names {
    /// One look at all pools. True if there is something new to tell.
    async fn look(&mut self, ctx: &Context, now: Instant) -> bool {
        let pools = ctx.pools.state();
        let facts = pools.iter().filter_map(|pool| {
            let name = pool.name_any();
            let facts = ctx.pool_states.change(&name, |state| state.dns.facts.clone());
            Some((name, facts?))
        });
        let facts: BTreeMap<_, _> = facts.collect();
        self.pools.retain(|pool, _| facts.contains_key(pool));
        if facts.is_empty() || !Box::pin(self.read(ctx, &facts, now)).await {
            return false;
        }
        let mut has_news = false;
        for (pool, facts) in &facts {
            has_news |= Box::pin(self.keep(ctx, pool, facts, now)).await;
        }
        has_news
    }

    /// Reads the objects when it is time to. False while they are not known.
    async fn read(&mut self, ctx: &Context, facts: &BTreeMap<String, Facts>, now: Instant) -> bool {
        let is_wanted = |facts: &Facts| facts.wish.as_ref().is_some_and(|wish| !wish.is_empty());
        let is_used =
            facts.values().any(is_wanted) || self.live.as_ref().is_some_and(|live| !live.is_empty());
        let pause = if is_used { READ } else { READ_IDLE };
        let is_recent = |at: Instant| now.saturating_duration_since(at) < pause;
        if self.read_at.is_some_and(is_recent) {
            return self.live.is_some();
        }
        self.read_at = Some(now);
        match Box::pin(actor(ctx).read(None)).await {
            Ok(live) => {
                self.live = Some(live);
                self.is_failing = false;
            }
            Err(error) => {
                // Without the objects nothing is written over them. Who wants no name is not bothered.
                self.live = None;
                let words = format!("the objects behind the names cannot be read: {}", chain(&error));
                if is_used && !self.is_failing {
                    tracing::warn!(words, "names of apiservers are not kept up to date");
                }
                self.is_failing = is_used;
                for (pool, _) in facts.iter().filter(|(_, facts)| is_wanted(facts)) {
                    let trouble = Trouble {
                        reason: REFUSED,
                        words: words.clone(),
                    };
                    ctx.pool_states.change(pool, |state| {
                        let published = state.dns.published.get_or_insert_default();
                        published.is_known = true;
                        published.trouble = Some(trouble);
                    });
                }
            }
        }
        self.live.is_some()
    }

    /// Makes the names of one pool say what is true. True if there is something new to tell.
    async fn keep(&mut self, ctx: &Context, pool: &str, facts: &Facts, now: Instant) -> bool {
        let Some(all) = &mut self.live else { return false };
        let memory = self.pools.entry(pool.to_owned()).or_default();
        let namespace = ctx.settings.namespace.as_str();
        let live = all.of(pool);
        if facts.wish.as_ref().is_some_and(wish::Wish::is_empty) && live.is_empty() {
            *memory = Memory::default();
            let before = ctx.pool_states.change(pool, |state| state.dns.published.take());
            return before.is_some();
        }
        let place = Place { pool, namespace };
        let decision = decide(place, facts, &live, &mut memory.damping, now);
        let failed = Box::pin(memory.write(ctx, pool, &decision, all, now)).await;
        if failed.iter().any(|(_, error)| is_conflict(error)) {
            self.read_at = None;
        }
        memory.settle(pool, failed, &decision, now);
        let trouble = memory.trouble().cloned();
        let mut published = Published::new(
            (&all.of(pool), &decision.wish),
            namespace,
            trouble.as_ref(),
            &mut memory.unobserved,
            now,
        );
        published.is_open = decision.is_open;
        ctx.pool_states.change(pool, |state| {
            let is_new = state.dns.published.as_ref() != Some(&published);
            state.dns.published = Some(published);
            is_new
        })
    }
}

impl Memory {
    /// Writes what the look has decided, but for what has failed just now, and notes in `live` what has become of it. Returns what
    /// has failed: one kind does not wait for another. Nothing is deleted before its successor is there.
    async fn write(
        &self,
        ctx: &Context,
        pool: &str,
        decision: &Decision,
        live: &mut Live,
        now: Instant,
    ) -> Vec<(Object, kube::Error)> {
        let actor = actor(ctx);
        let mut failed = Vec::new();
        let mut are_written = true;
        for (object, version) in &decision.apply {
            if self.rests(object, now) {
                are_written = false;
                continue;
            }
            let (kind, name) = (object.kind(), object.name());
            match Box::pin(actor.apply(object, version.clone())).await {
                Ok(written) => {
                    tracing::info!(pool, kind, name, "published where the apiservers are");
                    live.note(written);
                }
                Err(error) => {
                    are_written = false;
                    failed.push((object.clone(), error));
                }
            }
        }
        let to_delete = decision.delete.iter().filter(|_| are_written);
        for object in to_delete.filter(|object| !self.rests(object, now)) {
            let (kind, name) = (object.kind(), object.name());
            match Box::pin(actor.delete(object)).await {
                Ok(()) => {
                    tracing::info!(pool, kind, name, "withdrew a name of the apiservers");
                    live.forget(object);
                }
                Err(error) => failed.push((object.clone(), error)),
            }
        }
        failed
    }

    fn rests(&self, object: &Object, now: Instant) -> bool {
        let failure = self.failures.get(&(object.kind(), object.name()));
        failure.is_some_and(|failure| now < failure.rests_until)
    }

    /// Notes how the writes of a look went. What was not tried keeps its failure, and what is not wanted any more loses it.
    fn settle(&mut self, pool: &str, failed: Vec<(Object, kube::Error)>, decision: &Decision, now: Instant) {
        let wanted = decision.apply.iter().map(|(object, _)| object);
        let wanted: BTreeSet<_> = wanted
            .chain(&decision.delete)
            .map(|object| (object.kind(), object.name()))
            .collect();
        let before = std::mem::take(&mut self.failures);
        let rest = before
            .iter()
            .filter(|(key, failure)| wanted.contains(*key) && now < failure.rests_until);
        self.failures = rest
            .map(|(key, failure)| (key.clone(), failure.clone()))
            .collect();
        for (object, error) in failed {
            // The next leader tells what it finds.
            if is_fenced(&error) {
                continue;
            }
            let key = (object.kind(), object.name());
            let old = before.get(&key);
            let failure = Failure::of(&object, &error, old.map_or(0, |old| old.conflicts), now);
            let is_told = old.is_some_and(|old| old.trouble == failure.trouble);
            if let Some(trouble) = failure.trouble.as_ref().filter(|_| !is_told) {
                let Trouble { reason, words } = trouble;
                tracing::warn!(pool, reason, words, "names of apiservers are not kept up to date");
            }
            self.failures.insert(key, failure);
        }
    }

    fn trouble(&self) -> Option<&Trouble> {
        self.failures
            .values()
            .find_map(|failure| failure.trouble.as_ref())
    }
}

impl Failure {
    /// A write of `object` has failed after so many conflicts in a row.
    fn of(object: &Object, error: &kube::Error, conflicts: u32, now: Instant) -> Self {
        let (kind, name) = (object.kind(), object.name());
        let conflicts = if is_conflict(error) {
            conflicts.saturating_add(1)
        } else {
            0
        };
        let trouble = if conflicts == 0 {
            Some(Trouble {
                reason: REFUSED,
                words: format!("failed to write {kind} {name}: {}", chain(error)),
            })
        } else {
            // After the first one the next look reads what is there.
            (conflicts >= CONFLICTS).then(|| Trouble {
                reason: "NameTaken",
                words: format!(
                    "{kind} {name} cannot be written, because one of that name is there that is not Trivet's, or somebody \
                     keeps changing it: delete it, or set another name in spec.dns"
                ),
            })
        };
        Self {
            conflicts,
            rests_until: if trouble.is_some() { now + READ } else { now },
            trouble,
        }
    }
}

fn actor(ctx: &Context) -> Actor<'_> {
    Actor {
        client: &ctx.client,
        namespace: &ctx.settings.namespace,
    }
}

#[cfg(test)]
mod tests;
