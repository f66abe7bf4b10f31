//! Retires proxies whose pool is gone: those without clients, or those with the annotation [`trivet_crds::RETIRE`].
//!
//! Nothing that deletes an object may cut nodes off, so the proxies of a deleted pool stay. Without the annotation they are
//! retired only after every node has been without a client for a while. [`decision`] is pure; [`read`] and
//! [`act`] are thin. How far a retirement is stands in annotations of the objects, so a new operator goes on with it. Each look
//! takes no step that the API server does not confirm, and none while something cannot be read.

pub mod act;
pub mod command;
pub mod decision;
pub mod facts;
pub mod read;
pub mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};
use tokio::time::{Instant, sleep};
use trivet_crds::GROUP;
use trivet_crds::report::VERSION;

use self::act::Actor;
use self::decision::{Step, decide};
use self::facts::{Fleet, Owner};
use self::read::Nodes;
use self::words::{progress, retired};
use crate::context::Context;
use crate::logging::chain;

/// The pause between two looks while nothing is retired. Nothing is urgent about an orphan.
const LOOK: Duration = Duration::from_secs(10);

/// The pause while something is. The steps wait for pods that start and end.
const SOON: Duration = Duration::from_secs(2);

/// Looks after orphans without end.
pub async fn run(ctx: &Context) {
    let mut retirements = Retirements::default();
    loop {
        let Some(leads) = ctx.leadership.enter(Instant::now()) else {
            sleep(LOOK).await;
            continue;
        };
        let work = ctx.watchdog.begin("retirement");
        let pause = match Box::pin(retirements.look(ctx)).await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::debug!(error, "looking for proxies without a pool failed");
                LOOK
            }
        };
        drop((work, leads));
        sleep(pause).await;
    }
}

/// What is remembered from look to look: what was told already.
#[derive(Debug, Default)]
struct Retirements {
    /// The last words about each fleet.
    told: BTreeMap<String, String>,
}

impl Retirements {
    /// Takes the next step of each fleet. Returns the pause before the next look.
    async fn look(&mut self, ctx: &Context) -> Result<Duration, String> {
        let namespace = &ctx.settings.namespace;
        let (fleets, pools) = read::all(&ctx.client, namespace)
            .await
            .map_err(|error| chain(&error))?;
        self.told.retain(|pool, _| fleets.contains_key(pool));
        let mut pause = LOOK;
        for fleet in fleets.into_values() {
            let owner = read::owner(&fleet.pool, pools.as_ref());
            if owner == Owner::Exists && is_untouched(&fleet) {
                self.told.remove(&fleet.pool);
                continue;
            }
            let pool = fleet.pool.clone();
            let next = Box::pin(self.retire(ctx, fleet, owner)).await;
            match next {
                Ok(next) => pause = pause.min(next),
                // Another fleet does not wait for this one.
                Err(error) => self.tell(&pool, &format!("the retirement cannot go on: {error}")),
            }
        }
        Ok(pause)
    }

    async fn retire(&mut self, ctx: &Context, fleet: Fleet, owner: Owner) -> Result<Duration, String> {
        let Some(nodes) = Nodes::cached(ctx) else {
            return Ok(LOOK);
        };
        let (client, namespace) = (&ctx.client, ctx.settings.namespace.as_str());
        let retire_after = ctx.settings.retire_after_seconds;
        let facts = Box::pin(read::facts(
            client,
            namespace,
            (fleet, owner),
            &nodes,
            retire_after,
        ))
        .await;
        let facts = facts.map_err(|error| chain(&error))?;
        let fleet = &facts.fleet;
        let step = decide(&facts);
        if let Some(words) = progress(&step) {
            self.tell(&fleet.pool, &words);
        }
        let actor = Actor { client, namespace };
        match Box::pin(take(&actor, fleet, &step, &nodes)).await {
            Ok(()) => {}
            Err(error) if error.is_conflict() => return Ok(SOON),
            Err(error) => return Err(chain(&error)),
        }
        match &step {
            Step::Ignore => publish(ctx, &fleet.pool, words::ignored()).await,
            Step::Finish(left) => publish(ctx, &fleet.pool, retired(&fleet.pool, left)).await,
            _ => {}
        }
        Ok(match step {
            Step::Stay(_) => LOOK,
            _ => SOON,
        })
    }

    /// Logs what is new.
    fn tell(&mut self, pool: &str, words: &str) {
        let told = self.told.insert(pool.to_owned(), words.to_owned());
        if told.is_none_or(|told| told != words) {
            tracing::info!(pool, "{words}");
        }
    }
}

/// Whether no retirement has begun, and the annotation asks for none.
fn is_untouched(fleet: &Fleet) -> bool {
    !fleet.is_asked() && fleet.begun().is_none() && fleet.remover.is_none()
}

/// Takes a step.
async fn take(actor: &Actor<'_>, fleet: &Fleet, step: &Step, nodes: &Nodes) -> Result<(), act::Error> {
    match step {
        Step::Stay(_) | Step::AwaitRemovers(_) | Step::AwaitEnd(_) => Ok(()),
        Step::Ignore => actor.ignore(fleet).await,
        Step::Undo(_) => actor.undo(fleet).await,
        Step::Begin(begun) => actor.begin(fleet, begun).await,
        Step::DeleteWriter => actor.delete_writer(fleet).await,
        Step::Place(begun) => actor.place(fleet, begun).await,
        Step::DeleteProxies => actor.delete_proxies(fleet).await,
        Step::Finish(_) => actor.finish(fleet, nodes).await,
    }
}

/// Publishes an event about a pool, which may be gone.
async fn publish(ctx: &Context, pool: &str, (type_, reason, note): (EventType, &str, String)) {
    let about = ObjectReference {
        api_version: Some(format!("{GROUP}/{VERSION}")),
        kind: Some("ApiserverPool".to_owned()),
        name: Some(pool.to_owned()),
        ..ObjectReference::default()
    };
    let event = Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note),
        action: "Retire".to_owned(),
        secondary: None,
    };
    if let Err(error) = ctx.recorder.publish(&event, &about).await {
        // The log has the same words.
        tracing::warn!(pool, error = chain(&error), "failed to publish an event");
    }
}

/// The names of all fleets whose pool exists.
fn owned(fleets: &BTreeMap<String, Fleet>, pools: Option<&BTreeSet<String>>) -> Vec<String> {
    let has_pool = |pool: &&String| read::owner(pool, pools) == Owner::Exists;
    fleets.keys().filter(has_pool).cloned().collect()
}

#[cfg(test)]
mod tests;
