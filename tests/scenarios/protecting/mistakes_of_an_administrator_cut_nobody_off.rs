//! Whatever an administrator gets wrong, one mistake after the other, no client of a node is cut off, and the operator says what
//! is wrong. Meanwhile the operator that led is stopped for a minute: it is succeeded within twenty seconds, and writes nothing
//! of its own once it goes on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::Api;
use tokio::time::{Instant, sleep_until};
use trivet_crds::data_plane_name;
use trivet_instruments::eventually;
use trivet_tests::audit;
use trivet_tests::installation::{Installation, NAMESPACE, POOL};
use trivet_tests::mistakes::Mistakes;
use trivet_tests::observe::{History, Observer};
use trivet_tests::operators::{Operator, PROGRAM};
use trivet_tests::pods::assert_untouched;
use trivet_tests::real_client::{RealClient, Told};
use trivet_tests::say::say;
use trivet_tests::steady_clients::SteadyClients;

const WATCHED: &str = "mistakes";

/// New connections a second from each of two workers.
const RATE: u32 = 20;

/// The slowest that one of them may be: no member is at fault.
const SLOW: Duration = Duration::from_secs(1);

/// The longest that a node's Lease may be without a renewal.
const LEASE: Duration = Duration::from_secs(15);

/// How long the operator that led is stopped.
const STOPPED: Duration = Duration::from_secs(60);

/// The Lease expires after 15 s, and the others look at it every two.
const SUCCEEDED: Duration = Duration::from_secs(20);

/// How long an operator may lead without a renewal.
const DEADLINE: SignedDuration = SignedDuration::from_secs(10);

/// Looks at the Lease of an operator that goes on: it knows then that another one leads.
const LOOKS: usize = 2;

/// An operator that goes on is at work.
const AT_WORK: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_of_an_administrator_cut_nobody_off() -> Result<()> {
    let installation = Installation::protecting().await?.told().await?;
    installation.operator_works().await?;
    installation.fresh_namespace(WATCHED).await?;
    let proxies = installation.proxies("cp1").await?;
    let template = template(&installation).await?;
    let observer = Observer::start(installation.kubernetes("cp1").await?).await?;
    let workers = installation.workers();
    let worker = workers.first().context("there is no worker")?;
    let watches = RealClient::start(&installation, worker, WATCHED).await?;
    let clients = SteadyClients::start_at(RATE, &installation)?;
    let mut mistakes = Mistakes::begin(&installation).await?;

    let stopped = Stopped::leader(&installation).await?;
    let outcome = made(&mut mistakes, &installation, &stopped).await;
    sleep_until(stopped.begun + STOPPED).await;
    let continued = stopped.goes_on(&installation).await?;
    let undone = mistakes.undo().await;
    let written = match outcome {
        Ok(()) => stopped.has_written_nothing_since(continued, &installation).await,
        Err(error) => Err(error),
    };

    let history = observer.finish();
    let told = watches.finish().await?;
    let refused = clients
        .none_was_refused("mistakes of an administrator", SLOW)
        .await;
    for worker in &workers {
        lease_was_renewed(&history, &worker.name().to_string())?;
    }
    refused?;
    written?;
    undone?;
    no_watch_began_anew(&told)?;
    assert_untouched(&proxies, &installation.proxies("cp1").await?)?;
    let now = self::template(&installation).await?;
    ensure!(
        now == template,
        "the proxies' DaemonSet had {} other templates",
        now - template
    );
    installation
        .tools()
        .kubectl(&format!("delete namespace {WATCHED} --wait=false"))
        .await?;
    installation.proxies_settled().await
}

async fn made(mistakes: &mut Mistakes<'_>, installation: &Installation, stopped: &Stopped) -> Result<()> {
    mistakes.without_an_operator().await?;
    stopped.is_succeeded(installation).await?;
    mistakes.all().await
}

fn lease_was_renewed(history: &History, worker: &str) -> Result<()> {
    let gap = history.worst_lease_gap(worker);
    say(format!("{worker}: oldest Lease {:.1} s", gap.as_secs_f32()));
    ensure!(gap <= LEASE, "{worker}'s Lease was late: {gap:?}");
    ensure!(history.left_ready(worker).is_none(), "{worker} left Ready");
    Ok(())
}

fn no_watch_began_anew(told: &Told) -> Result<()> {
    ensure!(told.failures.is_empty(), "requests failed: {:?}", told.failures);
    let informers = &told.summary()?.informers;
    ensure!(!informers.is_empty(), "there was no watch");
    for (index, informer) in informers.iter().enumerate() {
        ensure!(
            informer.missed == 0 && informer.relists == 0 && informer.watches == 1,
            "watch {index}: {informer:?}"
        );
    }
    say(format!("{} watches: none began anew", informers.len()));
    Ok(())
}

/// An operator that led until it was stopped.
struct Stopped {
    operator: Operator,
    begun: Instant,
    at: Timestamp,
}

impl Stopped {
    async fn leader(installation: &Installation) -> Result<Self> {
        let operator = installation.leader().await?;
        let (node, at) = (operator.node.clone(), Timestamp::now());
        installation
            .disturb(move |cluster| cluster.stop(&node, PROGRAM))
            .await?;
        Ok(Self {
            operator,
            begun: Instant::now(),
            at,
        })
    }

    async fn is_succeeded(&self, installation: &Installation) -> Result<()> {
        let left = SUCCEEDED.saturating_sub(self.begun.elapsed());
        let new = installation.other_leader(&self.operator, left).await?;
        say(format!(
            "{} leads {:.1} s after {} was stopped",
            new.pod,
            self.begun.elapsed().as_secs_f32(),
            self.operator.pod
        ));
        Ok(())
    }

    async fn goes_on(&self, installation: &Installation) -> Result<Timestamp> {
        let (node, continued) = (self.operator.node.clone(), Timestamp::now());
        installation
            .disturb(move |cluster| cluster.cont(&node, PROGRAM))
            .await?;
        Ok(continued)
    }

    /// What it finds undone when it goes on is obeyed by another one, or is another one's by now.
    async fn has_written_nothing_since(
        &self,
        continued: Timestamp,
        installation: &Installation,
    ) -> Result<()> {
        let (pod, masters) = (&self.operator.pod, installation.cluster().masters());
        eventually(AT_WORK, "the old leader at work", async || {
            let looks = audit::looks_at_lease(pod, &(continued..Timestamp::now()), &masters)?;
            ensure!(looks >= LOOKS, "it has looked at the Lease {looks} times");
            Ok(())
        })
        .await?;
        let writes = audit::writes_of_pod(pod, &((self.at + DEADLINE)..Timestamp::now()), &masters)?;
        ensure!(writes.is_empty(), "{pod} leads no longer, and writes: {writes:?}");
        let before = audit::writes_of_pod(pod, &(Timestamp::UNIX_EPOCH..self.at), &masters)?;
        ensure!(
            !before.is_empty(),
            "the audit logs show no write of {pod} as it led"
        );
        say(format!(
            "{pod} was stopped for {} s, and has written nothing since its deadline",
            continued.duration_since(self.at).as_secs()
        ));
        Ok(())
    }
}

/// The generation of the proxies' DaemonSet: it grows with each change of its spec.
async fn template(installation: &Installation) -> Result<i64> {
    let sets = Api::<DaemonSet>::namespaced(installation.kubernetes("cp1").await?, NAMESPACE);
    let set = sets.get(&data_plane_name(POOL)).await?;
    set.metadata.generation.context("the DaemonSet has no generation")
}
