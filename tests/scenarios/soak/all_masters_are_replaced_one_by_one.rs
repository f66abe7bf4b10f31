//! All masters are replaced one by one, five times: no worker's Lease is late, and no connection is refused. A worker that is
//! off while the last three are replaced comes back by what the documents on its disk know.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde_json::json;
use tokio::time::Instant;
use trivet_instruments::{Attempts, Client, eventually};
use trivet_testbed::Host;
use trivet_tests::attempts::{self, LOOPBACKS, once};
use trivet_tests::installation::Installation;
use trivet_tests::observe::Observer;
use trivet_tests::power_cut::ready_since;
use trivet_tests::proxies::metrics;
use trivet_tests::say::say;

/// Three masters of which no two rounds in a row have one.
type Masters = [&'static str; 3];

const FIRST: Masters = ["cp1", "cp2", "cp3"];
const SECOND: Masters = ["cp4", "cp5", "cp6"];
const THIRD: Masters = ["cp7", "cp8", "cp9"];

/// The masters after each round. The last ones are those that the documents from before the last round but one have, and
/// those that other scenarios expect.
static ROUNDS: [Masters; 5] = [SECOND, THIRD, FIRST, SECOND, FIRST];

/// New connections a second on each worker.
const RATE: u32 = 20;

/// Every apiserver answers it from its memory; at `/readyz` it asks etcd, which elects a leader when one is removed.
const PATH: &str = "/version";

const LEASE: Duration = Duration::from_secs(15);

/// Two good probes, a second apart, after the operator has seen the master's node; no promise.
const PROVEN: Duration = Duration::from_secs(90);

/// The removal delay, a drain, and the next operator's start where the leader ran on the master; no promise.
const FORGOTTEN: Duration = Duration::from_secs(150);

/// From the start of the proxy.
const USABLE: Duration = Duration::from_secs(15);

/// A host boots, and kubelet starts a static pod; no promise.
const STARTED: Duration = Duration::from_secs(60);

/// A kubelet that finds an apiserver again; no promise.
const NODE_READY: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a quarter of an hour; `cargo xtask soak` runs it"]
async fn no_lease_is_late_and_a_worker_that_slept_comes_back() -> Result<()> {
    let mut replacement = Replacement::start().await?;
    let outcome = replacement.all_rounds().await;
    // Counted also after a failure: what it cost is part of the answer.
    let costs = replacement.costs().await;
    outcome?;
    costs?;
    let usual = json!({ "discovery": null });
    replacement.installation.edit_pool(usual).await?;
    replacement.installation.nodes_ready().await
}

/// All rounds, or with `TRIVET_ROUNDS=2` the last two of them, before which the masters are the same.
#[allow(clippy::disallowed_methods, reason = "a test has no command line of its own")]
fn rounds() -> Result<&'static [Masters]> {
    match std::env::var("TRIVET_ROUNDS").as_deref() {
        Err(_) | Ok("5") => Ok(&ROUNDS),
        Ok("2") => Ok(ROUNDS.split_at(3).1),
        Ok(other) => bail!("TRIVET_ROUNDS is {other:?} and must be 2 or 5"),
    }
}

struct Replacement {
    installation: Installation,
    client: Client,
    attempts: Vec<(String, Attempts)>,
    /// The worker that is off at the moment.
    asleep: Option<String>,
    replaced: usize,
    /// The worst of the Leases of the workers that are on.
    worst: Duration,
}

impl Replacement {
    async fn start() -> Result<Self> {
        let installation = Installation::standing_by().await?;
        installation
            .edit_pool(json!({ "discovery": { "removalDelaySeconds": 5 } }))
            .await?;
        let client = installation.client()?.asking(PATH);
        let workers = installation.workers();
        let attempts = workers.iter().zip(LOOPBACKS).map(|(worker, to)| {
            let attempts = attempts::start(worker, &client, to, RATE);
            (worker.name().to_string(), attempts)
        });
        Ok(Self {
            attempts: attempts.collect(),
            installation,
            client,
            asleep: None,
            replaced: 0,
            worst: Duration::ZERO,
        })
    }

    async fn all_rounds(&mut self) -> Result<()> {
        let mut masters = FIRST;
        let mut rounds = rounds()?.iter().peekable();
        while let Some(next) = rounds.next() {
            if rounds.peek().is_none() {
                self.sleeps("w2").await?;
            }
            for (old, new) in masters.into_iter().zip(*next) {
                self.replace(old, new).await?;
            }
            masters = *next;
        }
        self.wakes("w2").await
    }

    /// Ends with the new master in use everywhere, and the old one forgotten everywhere.
    async fn replace(&mut self, old: &'static str, new: &'static str) -> Result<()> {
        let begun = Instant::now();
        let witness = self.installation.masters().into_iter().find(|name| name != old);
        let witness = witness.context("there is one master only")?;
        let observer = Observer::start(self.installation.kubernetes(&witness).await?).await?;
        self.installation.add_master(new).await?;
        self.sees("Up everywhere", new, PROVEN, |state| state == Some("Up"))
            .await?;
        self.installation.remove_master(old).await?;
        self.sees("forgotten everywhere", old, FORGOTTEN, |state| state.is_none())
            .await?;
        let history = observer.finish();
        for worker in self.awake().iter().filter(|host| !host.name().is_master()) {
            let name = worker.name().to_string();
            let gap = history.worst_lease_gap(&name);
            self.worst = self.worst.max(gap);
            ensure!(
                gap <= LEASE,
                "{name}'s Lease was {gap:?} old while {new} replaced {old}"
            );
            ensure!(
                history.left_ready(&name).is_none(),
                "{name} left Ready while {new} replaced {old}"
            );
        }
        self.replaced += 1;
        say(format!(
            "{new} has replaced {old} after {:.0} s ({} so far); oldest Lease {:.1} s",
            begun.elapsed().as_secs_f32(),
            self.replaced,
            self.worst.as_secs_f32()
        ));
        Ok(())
    }

    /// Waits until each proxy sees a master so.
    async fn sees(
        &self,
        what: &str,
        master: &str,
        within: Duration,
        is_right: impl Fn(Option<&str>) -> bool,
    ) -> Result<()> {
        eventually(within, &format!("{master} {what}"), async || {
            for host in self.awake() {
                let states = metrics(&host).await?.states();
                let state = states.get(master).map(String::as_str);
                ensure!(is_right(state), "{master} is {state:?} on {}", host.name());
            }
            Ok(())
        })
        .await
    }

    /// The hosts that are on.
    fn awake(&self) -> Vec<Host> {
        let mut hosts = self.installation.hosts();
        hosts.retain(|host| Some(host.name().to_string()) != self.asleep);
        hosts
    }

    /// Its connections have an end first, which is none of a refusal.
    async fn sleeps(&mut self, worker: &str) -> Result<()> {
        let position = self.attempts.iter().position(|(name, _)| name == worker);
        let position = position.with_context(|| format!("nothing connects on {worker}"))?;
        let (name, attempts) = self.attempts.remove(position);
        none_failed(&name, attempts).await?;
        self.asleep = Some(worker.to_owned());
        let worker = worker.to_owned();
        self.installation
            .disturb(move |cluster| cluster.switch_off(&worker))
            .await
    }

    async fn wakes(&mut self, worker: &str) -> Result<()> {
        let since = Timestamp::now();
        let booted = Instant::now();
        let name = worker.to_owned();
        self.installation
            .disturb(move |cluster| cluster.switch_on(&name))
            .await?;
        let host = self.installation.cluster().host(worker)?;
        eventually(STARTED, "its proxy runs", async || {
            host.pid("trivet-proxy")?.context("it does not run").map(drop)
        })
        .await?;
        let started = Instant::now();
        eventually(STARTED, "its proxy serves", async || {
            let attempt = once(&host, &self.client, LOOPBACKS[0]).await?;
            ensure!(attempt.succeeded(), "{attempt}");
            Ok(())
        })
        .await?;
        let usable = started.elapsed();
        let nodes = Api::<Node>::all(self.installation.kubernetes(FIRST[0]).await?);
        ready_since(&nodes, &[worker], since, NODE_READY).await?;
        say(format!(
            "{worker} slept while all masters were replaced: usable {:.1} s after the start of its proxy, Ready {:.0} s after \
             its boot",
            usable.as_secs_f32(),
            booted.elapsed().as_secs_f32()
        ));
        self.asleep = None;
        ensure!(usable <= USABLE, "usable only after {usable:?}");
        Ok(())
    }

    /// Fails if any connection has failed.
    async fn costs(&mut self) -> Result<()> {
        let mut outcome = Ok(());
        for (name, attempts) in self.attempts.drain(..) {
            outcome = outcome.and(none_failed(&name, attempts).await);
        }
        say(format!(
            "{} masters were replaced; oldest Lease {:.1} s",
            self.replaced,
            self.worst.as_secs_f32()
        ));
        outcome
    }
}

async fn none_failed(worker: &str, attempts: Attempts) -> Result<()> {
    let record = attempts.finish().await?;
    say(format!(
        "{worker}: {} of {} new connections failed, slowest {:.2} s",
        record.failed().len(),
        record.attempts().len(),
        record.slowest().as_secs_f32()
    ));
    record.all_succeeded(worker)
}
