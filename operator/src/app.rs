//! The operator's parts, bound and run.

use std::sync::Arc;

use anyhow::Context as _;
use kube::runtime::events::Recorder;
use kube::runtime::reflector;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::shutdown::Signals;
use crate::api::client::Access;
use crate::api::fence::Fence;
use crate::cli::Run;
use crate::context::{Context, PoolStates};
use crate::controller::{self, News, Writers};
use crate::dns;
use crate::gather;
use crate::leader::Leadership;
use crate::leader::campaign::Campaign;
use crate::marks;
use crate::prober::Prober;
use crate::render::Settings;
use crate::reports::Reports;
use crate::retire;
use crate::serve::metrics::Metrics;
use crate::serve::readiness::Readiness;
use crate::serve::{self, Telemetry};

mod shutdown;

/// Where the kernel tells the name of this host, which in a pod is the pod's name.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

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
            () = signals.second(shutdown.clone()) => anyhow::bail!("a second signal arrived before the operator had stopped"),
            outcome = bound.run(shutdown.clone()) => outcome,
        }
    });
    // A watch or a DNS lookup that is still under way may be dropped.
    runtime.shutdown_background();
    outcome
}

/// An operator that has bound its port and found its cluster.
pub struct Bound {
    ctx: Arc<Context>,
    writers: Writers,
    health_news: mpsc::Receiver<()>,
    leads: mpsc::Receiver<()>,
    campaign: Campaign,
    server: serve::Bound,
}

impl Bound {
    /// Finds the cluster and binds the port. Nothing is watched yet.
    pub async fn bind(run: Run) -> anyhow::Result<Self> {
        let access = Access::infer(run.tls_server_name.clone()).await?;
        let (metrics, watchdog) = (Arc::new(Metrics::default()), Arc::default());
        let telemetry = Telemetry {
            readiness: Arc::new(Readiness::new(Arc::clone(&metrics), Arc::clone(&watchdog))),
            watchdog,
            metrics,
        };
        let server = serve::Bound::bind(run.address, telemetry.clone()).await?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), ?run, "operator starts");

        let (leadership, leads) = Leadership::new();
        let leadership = Arc::new(leadership);
        let fence = Fence::new(Arc::clone(&leadership), Arc::clone(&telemetry.metrics));
        let client = access.client(fence)?;
        let campaign = Campaign::new(
            access.unfenced()?,
            &run.namespace,
            &run.identity.clone().unwrap_or_else(host_name),
            Arc::clone(&leadership),
            telemetry.clone(),
        );
        let (pools, pools_writer) = reflector::store();
        let (nodes, nodes_writer) = reflector::store();
        let (pods, pods_writer) = reflector::store();
        let (prober, health_news) = Prober::new();
        let Telemetry {
            watchdog,
            readiness,
            metrics,
        } = telemetry;
        let ctx = Arc::new(Context {
            recorder: Recorder::new(client.clone(), crate::MANAGER.into()),
            client,
            leadership,
            access,
            nodes,
            pods,
            pools,
            reports: Reports::default(),
            prober,
            settings: Settings::from(&run),
            metrics,
            readiness,
            watchdog,
            pool_states: PoolStates::default(),
        });
        let writers = Writers {
            pools: pools_writer,
            nodes: nodes_writer,
            pods: pods_writer,
        };
        Ok(Self {
            ctx,
            writers,
            health_news,
            leads,
            campaign,
            server,
        })
    }

    /// Runs all parts until `shutdown`, or until one of them ends, which ends the others.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self {
            ctx,
            writers,
            health_news,
            leads,
            campaign,
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
            let tick = || {
                probing.watchdog.beat("probes");
                // Not in the passes: after the end of the last pool there is none.
                probing.forget_deleted();
            };
            probing.prober.run(stop, tick).await;
            ("prober", Ok(()))
        });
        let (report_news, reports_changed) = mpsc::channel(1);
        let (stop, naming, names_changed) = (shutdown.clone(), Arc::clone(&ctx), report_news.clone());
        parts.spawn(async move {
            stop.run_until_cancelled(dns::run(&naming, names_changed)).await;
            ("names", Ok(()))
        });
        let (stop, reporting) = (shutdown.clone(), Arc::clone(&ctx));
        parts.spawn(async move {
            stop.run_until_cancelled(gather::run(&reporting, report_news))
                .await;
            ("reports", Ok(()))
        });
        let (stop, remembering) = (shutdown.clone(), Arc::clone(&ctx));
        parts.spawn(async move {
            campaign.run(stop, || remembering.forget_all()).await;
            ("election", Ok(()))
        });
        let (stop, retiring) = (shutdown.clone(), Arc::clone(&ctx));
        parts.spawn(async move {
            let beside = async { tokio::join!(retire::run(&retiring), marks::run(&retiring)) };
            Box::pin(stop.run_until_cancelled(beside)).await;
            ("retirement", Ok(()))
        });
        let stop = shutdown.clone();
        parts.spawn(async move {
            let news = News {
                health: health_news,
                reports: reports_changed,
                leads,
            };
            controller::run(ctx, writers, news, stop).await;
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

/// The name of this host. The identity is unique without it.
fn host_name() -> String {
    let name = std::fs::read_to_string(HOST_NAME).unwrap_or_default();
    let name = name.trim();
    if name.is_empty() {
        crate::MANAGER.to_owned()
    } else {
        name.to_owned()
    }
}
