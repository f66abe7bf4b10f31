//! The operator's parts, bound and run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use kube::runtime::reflector;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::Run;
use crate::client::Access;
use crate::context::{Context, Parts};
use crate::controller::{self, Writers};
use crate::prober::Prober;
use crate::render::Settings;
use crate::server::{Bound, Vitals};
use crate::shutdown::Signals;

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
    let vitals = Vitals {
        pulse: Arc::default(),
        is_ready: Arc::new(AtomicBool::new(false)),
        metrics: Arc::default(),
    };
    let server = Bound::bind(run.address, vitals.clone()).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), ?run, "operator starts");

    let (pools, pools_writer) = reflector::store();
    let (nodes, nodes_writer) = reflector::store();
    let (prober, health_news) = Prober::new(access.clone());
    let prober = Arc::new(prober);
    let ctx = Arc::new(Context::new(Parts {
        client,
        access,
        nodes: nodes.clone(),
        pools: pools.clone(),
        prober: Arc::clone(&prober),
        settings: Settings::from(&run),
        metrics: Arc::clone(&vitals.metrics),
        pulse: Arc::clone(&vitals.pulse),
    }));

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
    let is_ready = Arc::clone(&vitals.is_ready);
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
    let stopping = shutdown.clone();
    tasks.spawn(async move {
        let both = async { tokio::join!(pools.wait_until_ready(), nodes.wait_until_ready()) };
        tokio::select! {
            (Ok(()), Ok(())) = both => is_ready.store(true, Ordering::Release),
            () = stopping.cancelled() => {}
        }
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
