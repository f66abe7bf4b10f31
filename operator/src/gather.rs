//! Reads the proxies' reports by a watch of its own, and deletes those that nobody can write any more.
//!
//! Reports are no condition for anything. Where their CRD is absent, as after an upgrade of the chart alone, or where they
//! cannot be read, the operator works without them and says so.

use std::time::Duration;

use futures::StreamExt;
use kube::Api;
use kube::api::DeleteParams;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
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
    let api: Api<ProxyReport> = Api::all(ctx.client.clone());
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
                if ctx.reports.observe(event) {
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
    let names = vanished(
        &ctx.reports.all(),
        &ctx.nodes.state(),
        &ctx.pods.state(),
        &ctx.pools.state(),
    );
    for name in names.into_iter().take(DELETIONS) {
        ctx.watchdog.beat(SWEEP_LOOP);
        match api.delete(&name, &DeleteParams::default()).await {
            Ok(_) => tracing::info!(name, "deleted the report of a proxy that is gone"),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
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

    use serde_json::json;

    use super::*;
    use crate::context::tests::context;

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
