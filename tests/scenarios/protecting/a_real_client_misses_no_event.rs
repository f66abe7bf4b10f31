//! client-go informers and a writer, and kubectl's `exec`, `logs -f` and `port-forward`, go through a worker's proxy
//! while one master after the other fails: no event is missed, no byte is wrong, and what is cut is cut at once.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use tokio::time::sleep;
use trivet_instruments::eventually;
use trivet_testbed::Host;
use trivet_tests::attempts::LOOPBACKS;
use trivet_tests::audit;
use trivet_tests::fault::Fault;
use trivet_tests::installation::Installation;
use trivet_tests::proxies::metrics;
use trivet_tests::real_client::{RealClient, Told};
use trivet_tests::say::say;
use trivet_tests::streams::{Kind, Life, Stream, Streams, Way, all_opened};

const NAMESPACE: &str = "real-client";

/// Three of each kind: least connections spreads them over all masters.
const PODS: usize = 3;

/// Longer than it takes to find the fault, to cut, and to open a stream again on a busy machine.
const LASTS: Duration = Duration::from_secs(9);

/// docs/testbed.md, F2 and F3: clients have recovered by then.
const RECOVERED: Duration = Duration::from_secs(4);

/// A second start of kubectl, which is most of it: three of them share two cores with a cluster.
const REOPENED: Duration = Duration::from_secs(5);

/// A stream whose master is well has a line every 100 ms; the rest is what a busy machine takes.
const UNDISTURBED: Duration = Duration::from_secs(2);

/// kubectl starts nine times at once.
const OPENED: Duration = Duration::from_secs(60);

/// An apiserver starts anew, and its two good probes.
const BACK: Duration = Duration::from_secs(60);

/// What happened to one master, and which streams it had.
struct Outage {
    fault: Fault,
    master: String,
    begun: Timestamp,
    complete: Timestamp,
    undone: Timestamp,
    cut: Vec<Life>,
    spared: Vec<Life>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_client_misses_no_event_while_masters_fail_one_after_another() -> Result<()> {
    let installation = Installation::protecting().await?;
    let workers = installation.workers();
    let [here, there, ..] = workers.as_slice() else {
        anyhow::bail!("two workers are needed");
    };
    let pods: Vec<_> = (1..=PODS).map(|number| format!("stream-{number}")).collect();
    installation.fresh_namespace(NAMESPACE).await?;
    installation.run_pods(NAMESPACE, &pods, there).await?;
    let all: Vec<_> = pods
        .iter()
        .flat_map(|pod| {
            Kind::ALL.map(|kind| Stream {
                pod: pod.clone(),
                kind,
            })
        })
        .collect();
    let way = Way {
        kubeconfig: installation.cluster().kubeconfig()?,
        through: LOOPBACKS[0],
        namespace: NAMESPACE.to_owned(),
    };

    let client = RealClient::start(&installation, here, NAMESPACE).await?;
    let streams = Streams::open(here, &way, all.clone());
    let outages = fail_one_after_another(&installation, here, &streams, all.len()).await;
    let told = client.finish().await?;
    let lives = streams.finish().await?;
    let outages = outages?;

    publish(&outages, &lives, &told)?;
    all_opened(&all, &lives)?;
    nothing_was_missed(&told)?;
    for outage in &outages {
        outage.was_short(&told)?;
        outage.cut_only_its_own(&lives)?;
    }
    installation
        .tools()
        .kubectl(&format!("delete namespace {NAMESPACE} --wait=false"))
        .await?;
    Ok(())
}

async fn fail_one_after_another(
    installation: &Installation,
    host: &Host,
    streams: &Streams,
    wanted: usize,
) -> Result<Vec<Outage>> {
    let mut outages: Vec<Outage> = Vec::new();
    for fault in Fault::USUAL {
        installation.masters_ready().await?;
        let open = eventually(OPENED, "every stream open", async || {
            let open = streams.open_now();
            ensure!(open.len() == wanted, "{} of {wanted} are", open.len());
            Ok(open)
        })
        .await?;
        let masters = masters_of(installation, open)?;
        let spared = |master: &&String| outages.iter().all(|outage| outage.master != **master);
        let busiest = masters
            .keys()
            .filter(spared)
            .max_by_key(|master| masters.get(*master).map(Vec::len));
        let master = busiest
            .context("no stream is on a master that has not failed yet")?
            .clone();
        let outage = outage(installation, fault, master, masters).await?;
        eventually(BACK, &format!("{} back", outage.master), async || {
            let states = metrics(host).await?.states();
            let back = states.get(&outage.master).is_some_and(|state| state == "Up");
            ensure!(back, "{states:?}");
            Ok(())
        })
        .await?;
        outages.push(outage);
    }
    Ok(outages)
}

async fn outage(
    installation: &Installation,
    fault: Fault,
    master: String,
    mut masters: BTreeMap<String, Vec<Life>>,
) -> Result<Outage> {
    say(format!("{master}: {}", fault.story()));
    let cut = masters.remove(&master).unwrap_or_default();
    let begun = Timestamp::now();
    let name = master.clone();
    installation
        .disturb(move |cluster| fault.inject(cluster, &name))
        .await?;
    let complete = Timestamp::now();
    sleep(LASTS).await;
    let undone = Timestamp::now();
    let name = master.clone();
    installation
        .disturb(move |cluster| fault.undo(cluster, &name))
        .await?;
    Ok(Outage {
        fault,
        master,
        begun,
        complete,
        undone,
        cut,
        spared: masters.into_values().flatten().collect(),
    })
}

/// The streams by the master whose audit log has them last.
fn masters_of(installation: &Installation, open: Vec<Life>) -> Result<BTreeMap<String, Vec<Life>>> {
    let mut masters = BTreeMap::<_, Vec<_>>::new();
    for life in open {
        let Stream { pod, kind } = &life.stream;
        let master = audit::serves_stream(pod, kind.subresource(), &installation.cluster().masters())?;
        let master = master.with_context(|| format!("no audit log has the {kind:?} of {pod}"))?;
        masters.entry(master).or_default().push(life);
    }
    Ok(masters)
}

/// A watch that is taken up again where it was cut skips nothing; a list might.
fn nothing_was_missed(told: &Told) -> Result<()> {
    let summary = told.summary()?;
    ensure!(summary.writes.ok > 0, "nothing was written");
    for (index, informer) in summary.informers.iter().enumerate() {
        ensure!(
            informer.missed == 0,
            "informer {index} missed events: {informer:?}"
        );
        ensure!(
            informer.relists == 0,
            "informer {index} listed again: {informer:?}"
        );
    }
    let rewatched = summary.informers.iter().any(|informer| informer.watches > 1);
    ensure!(
        rewatched,
        "no informer's watch was ever cut: there was nothing to miss"
    );
    let without = Duration::from_millis(summary.writes.longest_without_milliseconds);
    ensure!(without <= RECOVERED, "no write succeeded for {without:?}");
    Ok(())
}

impl Outage {
    /// The longest watch delays that were measured on a real cluster. client-go takes up a watch that was cut without a pause.
    fn bound(&self) -> Duration {
        match self.fault {
            Fault::Kill => Duration::from_secs(1),
            _ => Duration::from_secs(3),
        }
    }

    fn was_short(&self, told: &Told) -> Result<()> {
        let (gap, bound) = (told.longest_delay(self.begun, self.undone), self.bound());
        ensure!(
            gap <= bound,
            "{} {}: an event came {gap:?} after its write, not within {bound:?}",
            self.master,
            self.fault
        );
        Ok(())
    }

    fn cut_only_its_own(&self, lives: &[Life]) -> Result<()> {
        let Self { fault, master, .. } = self;
        ensure!(!self.cut.is_empty(), "{master} {fault}: it had no stream");
        ensure!(!self.spared.is_empty(), "{master} {fault}: no other had a stream");
        for before in &self.cut {
            let life = later(lives, before)?;
            let Some((ended, why)) = &life.ended else {
                anyhow::bail!("{master} {fault}, yet {life:?} never ended");
            };
            let after = ended.duration_since(self.complete);
            ensure!(
                after <= RECOVERED.try_into()?,
                "{master} {fault}: {:?} ended only after {after:.1} ({why})",
                life.stream
            );
            let again = reopened_after(lives, life, *ended)?;
            ensure!(
                again <= REOPENED,
                "{master} {fault}: {:?} was back after {again:?}",
                life.stream
            );
        }
        for before in &self.spared {
            let life = later(lives, before)?;
            let whole = life.ended.as_ref().is_none_or(|(ended, _)| *ended > self.undone);
            ensure!(whole, "{master} {fault}, but another's stream was cut: {life:?}");
            let silence = life.longest_silence;
            ensure!(
                silence <= UNDISTURBED || life.ended.is_some(),
                "{:?} was silent for {silence:?}",
                life.stream
            );
        }
        Ok(())
    }
}

/// The same life when all was over.
fn later<'a>(lives: &'a [Life], before: &Life) -> Result<&'a Life> {
    lives
        .iter()
        .find(|life| life.stream == before.stream && life.begun == before.begun)
        .context("a stream is lost")
}

/// From the end of a life to the first line of the stream's next one.
fn reopened_after(lives: &[Life], life: &Life, ended: Timestamp) -> Result<Duration> {
    let mut next = lives
        .iter()
        .filter(|next| next.stream == life.stream && next.begun >= ended);
    let first = next
        .find_map(|next| next.first)
        .with_context(|| format!("{:?} was never opened again", life.stream))?;
    Ok(first.duration_since(ended).unsigned_abs())
}

fn publish(outages: &[Outage], lives: &[Life], told: &Told) -> Result<()> {
    for outage in outages {
        let ends = outage.cut.iter().map(|before| later(lives, before));
        let ends = ends.collect::<Result<Vec<_>>>()?;
        let slowest = ends
            .iter()
            .filter_map(|life| life.ended.as_ref())
            .map(|(ended, _)| ended.duration_since(outage.complete))
            .max();
        say(format!(
            "{} {}: longest from a write to its event {:.2} s; {} streams cut, the last after {:.2} s; {} went on",
            outage.master,
            outage.fault,
            told.longest_delay(outage.begun, outage.undone).as_secs_f32(),
            outage.cut.len(),
            slowest.unwrap_or_default().as_secs_f32(),
            outage.spared.len(),
        ));
        for life in ends {
            let Some((ended, why)) = &life.ended else { continue };
            let again = reopened_after(lives, life, *ended);
            let again = again.map_or_else(|_| "never".to_owned(), |again| format!("{again:.2?}"));
            say(format!(
                "  {} of {}: {} lines, back after {again} ({})",
                life.stream.kind.subresource(),
                life.stream.pod,
                life.lines,
                why.lines().last().unwrap_or_default()
            ));
        }
    }
    let summary = told.summary()?;
    let writes = &summary.writes;
    say(format!(
        "{} writes, {} retried, {} requests failed, longest without one {:.2} s",
        writes.ok,
        writes.retried,
        writes.failed,
        Duration::from_millis(writes.longest_without_milliseconds).as_secs_f32()
    ));
    for (index, informer) in summary.informers.iter().enumerate() {
        say(format!(
            "informer {index}: {} events, {} missed, {} lists again, {} watches, longest delay {} ms",
            informer.events,
            informer.missed,
            informer.relists,
            informer.watches,
            informer.longest_delay_milliseconds
        ));
    }
    for failure in told.failures.iter().take(10) {
        say(format!(
            "  {} {}: {} ({})",
            failure.at, failure.who, failure.what, failure.error
        ));
    }
    Ok(())
}
