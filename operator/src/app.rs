//! The operator's parts, bound and run.

use std::sync::Arc;

use anyhow::Context as _;
use kube::runtime::events::Recorder;
use kube::runtime::reflector;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::Run;
use crate::client::Access;
use crate::context::{Context, Memories};
use crate::controller::{self, Writers};
use crate::metrics::Metrics;
use crate::prober::Prober;
use crate::render::Settings;
use crate::server::{Bound, Vitals};
use crate::shutdown::Signals;
use crate::watch::Ledger;

/// Runs the operator until it is asked to stop.
pub fn run(run: Run) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start")?;
    let outcome = runtime.block_on(operate(run));
    // A probe or a watch that is still under way has nothing to lose.
    runtime.shutdown_background();
    outcome
}

async fn operate(run: Run) -> anyhow::Result<()> {
    let signals = Signals::bind().context("failed to listen for signals")?;
    let shutdown = CancellationToken::new();
    let access = Access::infer().await?;
    let client = access.client()?;
    let metrics = Arc::new(Metrics::default());
    let ledger = Arc::new(Ledger::new(Arc::clone(&metrics)));
    let vitals = Vitals {
        pulse: Arc::default(),
        ledger,
        metrics,
    };
    let server = Bound::bind(run.address, vitals.clone()).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), ?run, "operator starts");

    let (pools, pools_writer) = reflector::store();
    let (nodes, nodes_writer) = reflector::store();
    let (prober, health_news) = Prober::new(access.clone());
    let prober = Arc::new(prober);
    let ctx = Arc::new(Context {
        recorder: Recorder::new(client.clone(), crate::MANAGER.into()),
        client,
        access,
        nodes,
        pools,
        prober: Arc::clone(&prober),
        settings: Settings::from(&run),
        metrics: Arc::clone(&vitals.metrics),
        ledger: Arc::clone(&vitals.ledger),
        pulse: Arc::clone(&vitals.pulse),
        memories: Memories::default(),
    });

    let mut tasks = JoinSet::new();
    let stopping = shutdown.clone();
    tasks.spawn(async move {
        server
            .run(stopping)
            .await
            .context("failed to serve metrics and health")
    });
    let (stopping, pulse) = (shutdown.clone(), Arc::clone(&vitals.pulse));
    tasks.spawn(async move {
        prober.run(stopping, || pulse.beat("probes")).await;
        Ok(())
    });
    let (stopping, writers) = (
        shutdown.clone(),
        Writers {
            pools: pools_writer,
            nodes: nodes_writer,
        },
    );
    tasks.spawn(async move {
        controller::run(ctx, writers, health_news, stopping).await;
        Ok(())
    });
    tokio::select! {
        () = signals.second(shutdown.clone()) => anyhow::bail!("asked twice to stop"),
        outcome = finish(&mut tasks, &shutdown) => outcome,
    }
}

/// Waits for all parts. A part that ends by itself, or fails, ends the others.
async fn finish(tasks: &mut JoinSet<anyhow::Result<()>>, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let mut outcome = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended = ended
            .context("a part of the operator panicked")
            .and_then(|ended| ended);
        if ended.is_err() && outcome.is_ok() {
            outcome = ended;
            shutdown.cancel();
        }
    }
    outcome
}
