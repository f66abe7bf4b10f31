//! The operator's parts, bound and run.

use std::sync::Arc;

use anyhow::Context as _;
use kube::runtime::events::Recorder;
use kube::runtime::reflector;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::Run;
use crate::client::Access;
use crate::context::{Context, Memories};
use crate::controller::{self, Writers};
use crate::metrics::Metrics;
use crate::prober::Prober;
use crate::render::Settings;
use crate::server::{self, Vitals};
use crate::shutdown::Signals;
use crate::watch::Ledger;

/// Runs the operator until it is asked to stop.
pub fn run(run: Run) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start")?;
    let outcome = runtime.block_on(async {
        let signals = Signals::bind().context("failed to listen for signals")?;
        let shutdown = CancellationToken::new();
        let bound = Bound::bind(run).await?;
        tokio::select! {
            () = signals.second(shutdown.clone()) => anyhow::bail!("asked twice to stop"),
            outcome = bound.run(shutdown.clone()) => outcome,
        }
    });
    // A watch or a lookup that is still under way has nothing to lose.
    runtime.shutdown_background();
    outcome
}

/// An operator that has its port and knows its cluster.
pub struct Bound {
    ctx: Arc<Context>,
    writers: Writers,
    health_news: mpsc::Receiver<()>,
    server: server::Bound,
}

impl Bound {
    /// Finds the cluster and takes the port. Nothing is watched yet.
    pub async fn bind(run: Run) -> anyhow::Result<Self> {
        let access = Access::infer().await?;
        let client = access.client()?;
        let metrics = Arc::new(Metrics::default());
        let ledger = Arc::new(Ledger::new(Arc::clone(&metrics)));
        let vitals = Vitals {
            pulse: Arc::default(),
            ledger,
            metrics,
        };
        let server = server::Bound::bind(run.address, vitals.clone()).await?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), ?run, "operator starts");

        let (pools, pools_writer) = reflector::store();
        let (nodes, nodes_writer) = reflector::store();
        let (prober, health_news) = Prober::new(access.clone());
        let Vitals {
            pulse,
            ledger,
            metrics,
        } = vitals;
        let ctx = Arc::new(Context {
            recorder: Recorder::new(client.clone(), crate::MANAGER.into()),
            client,
            access,
            nodes,
            pools,
            prober,
            settings: Settings::from(&run),
            metrics,
            ledger,
            pulse,
            memories: Memories::default(),
        });
        let writers = Writers {
            pools: pools_writer,
            nodes: nodes_writer,
        };
        Ok(Self {
            ctx,
            writers,
            health_news,
            server,
        })
    }

    /// Runs all parts until `shutdown`, or until one of them ends: then the others end too.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self {
            ctx,
            writers,
            health_news,
            server,
        } = self;
        let mut parts = JoinSet::new();
        let stop = shutdown.clone();
        parts.spawn(async move {
            (
                "server",
                server
                    .run(stop)
                    .await
                    .context("failed to serve /metrics and health"),
            )
        });
        let (stop, probing) = (shutdown.clone(), Arc::clone(&ctx));
        parts.spawn(async move {
            probing.prober.run(stop, || probing.pulse.beat("probes")).await;
            ("prober", Ok(()))
        });
        let stop = shutdown.clone();
        parts.spawn(async move {
            controller::run(ctx, writers, health_news, stop).await;
            ("controller", Ok(()))
        });
        let mut outcome = Ok(());
        while let Some(ended) = parts.join_next().await {
            let (part, ended) = ended.context("a part of the operator panicked")?;
            tracing::debug!(part, "part has ended");
            shutdown.cancel();
            outcome = outcome.and(ended);
        }
        outcome
    }
}
