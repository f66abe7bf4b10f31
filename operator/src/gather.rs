//! Reads the proxies' reports by a watch of its own, and deletes those that nobody can write any more.
//!
//! Reports are no condition for anything. Where their CRD is absent, as after an upgrade of the chart alone, or where they
//! cannot be read, the operator works without them and says so.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use kube::api::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use trivet_crds::report::ProxyReport;

use crate::api::backoff::Backoff;
use crate::api::fence::is_fenced;
use crate::api::watch::{anew_after_outages, polled};
use crate::context::Context;
use crate::logging::chain;
use crate::reports::vanished::vanished;

/// The API server ends a watch after this time, so that a dead one is noticed.
const WATCH_SECONDS: u32 = 30;

/// Objects in one page of a list.
const PAGE: u32 = 100;

/// The pause between two looks for reports whose node or pool is gone.
const SWEEP: Duration = Duration::from_secs(60);

/// The deletions of one look: the rest waits for the next one.
const DELETIONS: usize = 100;

/// The word of this watch in metrics and logs.
const KIND: &str = "ProxyReport";

/// The words of the two loops in `/livez`.
const WATCH_LOOP: &str = "watch ProxyReport";
const SWEEP_LOOP: &str = "deletion of reports";

/// Reads the reports and deletes those that nobody can write any more, without end. Sends word when a pool's status has
/// something else to say.
pub async fn run(ctx: &Context, news: mpsc::Sender<()>) {
    tokio::join!(follow(ctx, news), sweep(ctx));
}

/// Keeps the reports up to date. It has its own back-off, and its errors end here.
async fn follow(ctx: &Context, news: mpsc::Sender<()>) {
    let config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
    let api: Api<DeserializeGuard<ProxyReport>> = Api::all(ctx.client.clone());
    let mut unreadable = BTreeSet::new();
    let begin = || watcher(api.clone(), config.clone());
    let events = anew_after_outages(begin).backoff(Backoff::default());
    let mut events = Box::pin(polled(events, || ctx.watchdog.beat(WATCH_LOOP)));
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                // At Init it is about to ask: nothing has come.
                if !matches!(event, Event::Init) {
                    ctx.metrics.watch_moved(KIND, Instant::now());
                }
                let is_read = matches!(event, Event::InitDone);
                let event = readable(event, &mut unreadable);
                if event.is_some_and(|event| ctx.reports.observe(event)) {
                    // One that waits already tells of this change too.
                    news.try_send(()).ok();
                }
                if is_read && ctx.reports.set_failing(false) {
                    tracing::info!("reading the proxies' reports again");
                }
            }
            Err(error) => {
                ctx.metrics.watch_failed(KIND);
                if !ctx.reports.set_failing(true) {
                    tracing::debug!(
                        error = chain(&error),
                        "still failing to read the proxies' reports"
                    );
                } else if is_absent(&error) {
                    tracing::warn!(
                        "the CRD proxyreports.trivet.dev is not installed: going on without the proxies' reports; apply \
                         the CRDs of this release"
                    );
                } else {
                    tracing::warn!(
                        error = chain(&error),
                        "failed to read the proxies' reports; going on without them"
                    );
                }
            }
        }
    }
}

/// The event, as far as this release can read it. A report with a word of a later release may be one that it cannot: it must not
/// keep the others from being read, and is as good as none. `told` are the names of those that the log has.
fn readable(
    event: Event<DeserializeGuard<ProxyReport>>,
    told: &mut BTreeSet<String>,
) -> Option<Event<ProxyReport>> {
    #[expect(
        clippy::result_large_err,
        reason = "what is left of a report that cannot be read, once"
    )]
    let mut read = |DeserializeGuard(report): DeserializeGuard<ProxyReport>| match report {
        Ok(report) => {
            told.remove(&report.name_any());
            Ok(report)
        }
        Err(error) => {
            let name = error.metadata.name.clone().unwrap_or_default();
            if told.insert(name.clone()) {
                tracing::warn!(name, %error, "ignoring a report that this release cannot read; upgrade the operator");
            }
            Err(error.metadata)
        }
    };
    match event {
        Event::Init => Some(Event::Init),
        Event::InitDone => Some(Event::InitDone),
        Event::InitApply(report) => read(report).ok().map(Event::InitApply),
        Event::Apply(report) => read(report).map(Event::Apply).or_else(gone).ok(),
        Event::Delete(report) => read(report).map(Event::Delete).or_else(gone).ok(),
    }
}

/// The end of the report with this name.
fn gone(metadata: ObjectMeta) -> Result<Event<ProxyReport>, serde_json::Error> {
    let empty = json!({ "metadata": metadata, "poolName": "", "nodeName": "", "observedTime": "" });
    serde_json::from_value(empty).map(Event::Delete)
}

/// Whether the API server does not know the kind.
fn is_absent(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(source) | watcher::Error::WatchStartFailed(source)) = error else {
        return false;
    };
    matches!(source, kube::Error::Api(status) if status.code == 404)
}

async fn sweep(ctx: &Context) {
    let mut looks = interval(SWEEP);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        ctx.watchdog.beat(SWEEP_LOOP);
        sweep_once(ctx).await;
    }
}

async fn sweep_once(ctx: &Context) {
    let has_read = |kind| ctx.readiness.has_read(kind);
    if !(has_read("Node") && has_read("Pod") && has_read("ApiserverPool")) {
        return;
    }
    let Some(_work) = ctx.leadership.enter(Instant::now()) else {
        return;
    };
    let api: Api<ProxyReport> = Api::all(ctx.client.clone());
    let gone = vanished(
        &ctx.reports.all(),
        &ctx.nodes.state(),
        &ctx.pods.state(),
        &ctx.pools.state(),
    );
    for (name, report) in gone.into_iter().take(DELETIONS) {
        ctx.watchdog.beat(SWEEP_LOOP);
        match api.delete(&name, &report.deletion()).await {
            Ok(_) => tracing::info!(name, "deleted the report of a proxy that is gone"),
            // Its proxy has written it since, or somebody has deleted it.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            // The next leader deletes them.
            Err(error) if is_fenced(&error) => return,
            Err(error) => {
                // The others would only wait for the same error.
                tracing::warn!(name, error = chain(&error), "failed to delete a report");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;
    use crate::context::tests::context;

    fn report(node: &str, health: &str) -> Value {
        let member = json!({ "name": "cp1", "address": "10.0.0.1:6443", "health": health, "future": [1] });
        json!({ "apiVersion": "trivet.dev/v1alpha1", "kind": "ProxyReport",
                "metadata": { "name": format!("default.{node}") }, "poolName": "default", "nodeName": node,
                "observedTime": "2026-11-29T00:00:00Z", "members": [member], "future": { "x": "y" } })
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_of_a_later_release_that_cannot_be_read_hides_no_other_and_unknown_fields_hide_none() {
        let ctx = context(move |_, _, _| {
            let items = [report("w1", "Up"), report("w2", "Degraded")];
            (
                200,
                json!({ "metadata": { "resourceVersion": "1" }, "items": items }).to_string(),
            )
        });
        let run = tokio::time::timeout(Duration::from_secs(1), run(&ctx, mpsc::channel(1).0));
        assert!(run.await.is_err(), "it ended");
        assert!(ctx.reports.has_read());
        let nodes: Vec<_> = ctx
            .reports
            .of("default")
            .into_iter()
            .map(|report| report.node.clone())
            .collect();
        assert_eq!(nodes, ["w1"]);
    }

    #[test]
    fn a_report_that_can_be_read_no_longer_is_as_good_as_none_until_it_can() {
        let guard = |health: &str| serde_json::from_value(report("w1", health)).unwrap();
        let mut told = BTreeSet::new();
        let reports = crate::reports::Reports::default();
        for (health, expected) in [("Up", 1), ("Degraded", 0), ("Degraded", 0), ("Down", 1)] {
            let event = readable(Event::Apply(guard(health)), &mut told).unwrap();
            reports.observe(event);
            assert_eq!(reports.of("default").len(), expected, "{health}");
            assert_eq!(told.len(), 1 - expected, "{health}");
        }
        assert!(readable(Event::InitApply(guard("Degraded")), &mut told).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_absent_crd_is_asked_for_again_and_ends_nothing() {
        let asked = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&asked);
        let ctx = context(move |_, path, _| {
            assert!(path.ends_with("/proxyreports"), "{path}");
            *counted.lock().unwrap() += 1;
            let body = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404 });
            (404, body.to_string())
        });
        let run = tokio::time::timeout(Duration::from_secs(120), run(&ctx, mpsc::channel(1).0));
        assert!(run.await.is_err(), "it ended");
        let asked = *asked.lock().unwrap();
        assert!((12..200).contains(&asked), "{asked}");
        assert!(!ctx.reports.has_read());
    }
}
