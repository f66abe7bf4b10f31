//! Runs a pass over a pool whenever something that matters to it has changed, and every half minute.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{self, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::reflector::store::Writer;
use kube::runtime::{Predicate, PredicateConfig, WatchStreamExt, predicates};
use kube::{Api, Resource, ResourceExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use trivet_crds::pool::ApiserverPool;
use trivet_crds::{POOL_LABEL, wire};

use crate::api::watch::{NodesSeen, paced, trim_node, trim_pod, watch};
use crate::apply::{self, Applied, Live, apply};
use crate::context::Context;
use crate::dns::wish;
use crate::leader::take;
use crate::observe::replacement::Replacement;
use crate::observe::{self, Observed, bootstrap, observe, proxies, replacement};
use crate::plan::{Facts, Plan, Verdict, plan};
use crate::pools::StoredPool;
use crate::render::render;
use crate::report::{self, Pass, report};
use crate::wake::wake;

mod pass;

use self::pass::{pass, retry};

/// Some things change without an event: the cluster's authorities, DNS names, and whatever a silently dead watch misses.
const RESYNC: Duration = Duration::from_secs(30);

/// A rejected spec may become acceptable by something that starts no pass over it, such as the end of another pool.
const REJECTED_RESYNC: Duration = Duration::from_secs(10);

/// The pods of a new template that become ready start no pass, and the DaemonSet controller may forget them.
const REPLACING_RESYNC: Duration = Duration::from_secs(10);

/// The shortest time between two passes that changes of nodes start: in a large outage nodes change by the hundred.
const NODES_PACE: Duration = Duration::from_secs(1);

/// The shortest time between two passes that reports start: in a rollout each node's standby changes.
const REPORTS_PACE: Duration = Duration::from_secs(3);

/// The shortest delay before the next pass.
const SOONEST: Duration = Duration::from_millis(200);

/// The caches that the watches fill.
pub struct Writers {
    /// All pools.
    pub pools: Writer<StoredPool>,
    /// All nodes.
    pub nodes: Writer<Node>,
    /// All pods of proxies.
    pub pods: Writer<Pod>,
}

/// What starts a pass over all pools, besides changes of objects.
pub struct News {
    /// The health of a member has changed.
    pub health: mpsc::Receiver<()>,
    /// The proxies report something else of their nodes.
    pub reports: mpsc::Receiver<()>,
    /// This operator begins to lead.
    pub leads: mpsc::Receiver<()>,
}

/// Why a pass failed. It is retried.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The objects of the pool could not be taken from an earlier leader.
    #[error("failed to begin the first pass of a term")]
    Take(#[from] take::Error),
    /// What the plan depends on could not be read.
    #[error("failed to observe")]
    Observe(#[from] observe::Error),
    /// The document could not be serialised.
    #[error("failed to serialise the document")]
    Document(#[from] wire::Error),
    /// An object could not be written.
    #[error("failed to apply")]
    Apply(#[from] apply::Error),
    /// The status could not be written.
    #[error("failed to report")]
    Report(#[from] report::Error),
}

impl Error {
    /// One fixed word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Take(_) => "TakeFailed",
            Self::Observe(error) => error.reason(),
            Self::Document(error) => error.reason(),
            Self::Apply(error) => error.reason(),
            Self::Report(_) => "StatusFailed",
        }
    }

    /// The write of the status that failed.
    fn status_write(&self) -> Option<&kube::Error> {
        match self {
            Self::Report(error) => Some(&error.source),
            Self::Take(_) | Self::Observe(_) | Self::Document(_) | Self::Apply(_) => None,
        }
    }

    /// The write that failed.
    fn write(&self) -> Option<&kube::Error> {
        match self {
            Self::Take(error) => Some(&error.source),
            Self::Apply(error) => Some(&error.source),
            Self::Report(error) => Some(&error.source),
            Self::Observe(_) | Self::Document(_) => None,
        }
    }
}

/// Runs passes until `shutdown`, and waits for those under way.
pub async fn run(ctx: Arc<Context>, writers: Writers, news: News, shutdown: CancellationToken) {
    let client = &ctx.client;
    let namespace = &ctx.settings.namespace;
    let readiness = || Arc::clone(&ctx.readiness);
    let pools = watch(
        Api::<StoredPool>::all(client.clone()),
        None,
        "ApiserverPool",
        readiness(),
    )
    .reflect(writers.pools)
    .touched_objects()
    // The predicate ignores resourceVersion, because our own status writes must not start a pass.
    .predicate_filter(
        predicates::generation.combine(predicates::annotations),
        PredicateConfig::default(),
    );
    let maps = Api::<PartialObjectMeta<ConfigMap>>::namespaced(client.clone(), namespace);
    let maps = watch(maps, Some(POOL_LABEL), "ConfigMap", readiness())
        .touched_objects()
        .predicate_filter(predicates::resource_version, PredicateConfig::default());
    let sets = Api::<PartialObjectMeta<DaemonSet>>::namespaced(client.clone(), namespace);
    let sets = watch(sets, Some(POOL_LABEL), "DaemonSet", readiness())
        .touched_objects()
        .predicate_filter(predicates::resource_version, PredicateConfig::default());
    let pods = watch(
        Api::<Pod>::namespaced(client.clone(), namespace),
        Some(POOL_LABEL),
        "Pod",
        readiness(),
    )
    .modify(trim_pod)
    .reflect(writers.pods)
    .take_until(shutdown.clone().cancelled_owned());
    let passes = Controller::for_stream(pools, ctx.pools.clone())
        .watches_stream(maps, pool_of)
        .watches_stream(sets, pool_of)
        .reconcile_all_on(node_changes(&ctx, writers.nodes))
        .reconcile_all_on(receive(news.health))
        .reconcile_all_on(receive(news.leads))
        .reconcile_all_on(paced(receive(news.reports), REPORTS_PACE))
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(pass, retry, Arc::clone(&ctx));
    let passes = passes.for_each(|outcome| {
        if let Err(controller::Error::RunnerError(error)) = &outcome {
            tracing::error!(%error, "passes cannot run");
        }
        // `pass` has logged a failed pass. An object whose pool is gone is an orphan and stays.
        std::future::ready(())
    });
    // The pods start no pass: what matters of them changes the status of their DaemonSet too.
    tokio::join!(passes, pods.for_each(|_| std::future::ready(())));
}

/// One pass: read, decide, write the difference, report.
async fn reconcile(pool: &ApiserverPool, ctx: &Context) -> Result<Duration, Error> {
    let name = pool.name_any();
    let state = ctx.pool_states.of(&name);
    let (daemon_set, writer) = tokio::try_join!(proxies::read(ctx, &name), bootstrap::observe(ctx, &name))?;
    let Observed {
        facts,
        proxies,
        caches,
    } = Box::pin(observe(pool, ctx, (daemon_set, &writer), state.memory)).await?;
    let plan = plan(pool, &facts)?;
    log_restore(&name, &facts, &plan);
    ctx.reports.set_in_force(&name, plan.revision);
    let live = Live {
        object: proxies.daemon_set.clone(),
        last: state.last_apply,
    };
    let live_writer = Live {
        object: writer.daemon_set.clone(),
        last: state.last_writer,
    };
    let applied = match &plan.rollout {
        Some(rollout) => {
            let desired = render(rollout, &ctx.settings)?;
            Box::pin(apply(&ctx.client, desired, live, live_writer)).await
        }
        None => Applied {
            proxies: live,
            writer: live_writer,
            failure: None,
        },
    };
    ctx.pool_states.change(&name, |state| {
        state.last_apply.clone_from(&applied.proxies.last);
        state.last_writer.clone_from(&applied.writer.last);
        // Also where a write has failed: the next pass sees by the ConfigMap what has arrived.
        state.memory = plan.memory.clone();
    });
    let replacement = replacement::observe(&caches, &proxies);
    let next_wake = wake(ctx, &name, applied.proxies.object.as_ref(), &replacement).await;
    let pass = Pass {
        plan: &plan,
        facts: &facts,
        proxies: &proxies,
        writer: &writer,
        applied: &applied,
    };
    let names = wish::Facts::new(&pool.spec.dns, &name, &plan, pass.health());
    ctx.pool_states
        .change(&name, |state| state.dns.facts = Some(names));
    // Where the API server has refused an object, the status says so. Where it is absent, a status cannot be written.
    if applied
        .failure
        .as_ref()
        .is_none_or(|failure| failure.refusal().is_some())
    {
        report(ctx, pool, pass).await?;
    }
    applied.failure.map_or_else(
        || Ok(next_pass(&plan, &replacement, next_wake)),
        |failure| Err(failure.into()),
    )
}

/// Logs that what is in force is written again, because it came back from a backup.
fn log_restore(pool: &str, facts: &Facts, plan: &Plan) {
    let in_force = facts.current.document.as_ref();
    let (Some(in_force), Some(rollout)) = (in_force, &plan.rollout) else {
        return;
    };
    let (from, to) = (in_force.revision, rollout.document.revision);
    if from < to && in_force.same_content(&rollout.document) {
        tracing::info!(
            pool,
            from,
            to,
            "writing the document anew: proxies follow a later one, as after a restore from a backup"
        );
    }
}

fn next_pass(plan: &Plan, replacement: &Replacement, next_wake: Option<Duration>) -> Duration {
    let at_most = match plan.verdict {
        Verdict::Accepted { .. } if replacement.is_under_way => REPLACING_RESYNC,
        Verdict::Accepted { .. } | Verdict::Paused { .. } => RESYNC,
        Verdict::Rejected { .. } => REJECTED_RESYNC,
    };
    let due = [plan.next_look, next_wake].into_iter().flatten().min();
    due.map_or(at_most, |wait| wait.clamp(SOONEST, at_most))
}

/// The pool of a ConfigMap or DaemonSet. The label names it, because there is no ownerReference.
fn pool_of<K: Resource>(object: K) -> Option<ObjectRef<StoredPool>> {
    object.labels().get(POOL_LABEL).map(|pool| ObjectRef::new(pool))
}

/// Yields an item when the nodes have changed in a way that matters to pools.
fn node_changes(ctx: &Context, writer: Writer<Node>) -> impl Stream<Item = ()> + Send + 'static {
    let mut seen = NodesSeen::default();
    let changes = watch(
        Api::<Node>::all(ctx.client.clone()),
        None,
        "Node",
        Arc::clone(&ctx.readiness),
    )
    .modify(trim_node)
    .reflect(writer)
    .filter_map(move |event| std::future::ready(event.ok().filter(|event| seen.observe(event)).map(drop)));
    paced(changes, NODES_PACE)
}

fn receive(mut news: mpsc::Receiver<()>) -> impl Stream<Item = ()> + Send + 'static {
    futures::stream::poll_fn(move |task| news.poll_recv(task))
}

#[cfg(test)]
mod tests;
