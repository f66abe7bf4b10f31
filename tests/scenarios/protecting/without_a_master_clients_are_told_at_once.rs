//! While no apiserver can be reached, clients are refused within two seconds instead of being held, so that a kubelet
//! that starts meanwhile starts its static pods; and all is well three seconds after the first one is back.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use tokio::time::{Instant, sleep, sleep_until};
use trivet_instruments::eventually;
use trivet_instruments::{Outcome, Record};
use trivet_testbed::{Cluster, Component, Fault, Host, Progress, images};
use trivet_tests::attempts::{self, LOOPBACKS};
use trivet_tests::installation::Installation;
use trivet_tests::say::say;

/// New connections a second from each worker.
const RATE: u32 = 10;

/// docs/testbed.md, F14 and O8; and what it takes to measure it on a busy machine.
const TOLD: Duration = Duration::from_millis(2000 + 250);

/// docs/testbed.md, F14.
const USABLE: Duration = Duration::from_secs(3);

/// docs/testbed.md, F2: a proxy has noticed by then that no apiserver answers.
const NOTICED: Duration = Duration::from_secs(3);

/// Some attempts after that, each of which may take [`TOLD`].
const LASTS: Duration = Duration::from_secs(10);

/// A kubelet that asks in vain goes on with what it has on its disk; a container takes a second or two.
const STATIC_POD: Duration = Duration::from_secs(30);

/// "Flat": what buffers of a hundred connections may take, and far less than what a leak of each attempt would.
const GROWTH_KIB: u64 = 8 * 1024;

/// Where a kubelet finds its static pods.
const MANIFEST: &str = "/etc/kubernetes/manifests/told-at-once.yaml";

#[tokio::test(flavor = "multi_thread")]
async fn without_a_master_clients_are_told_at_once_and_a_kubelet_starts_its_pods() -> Result<()> {
    let installation = Installation::protecting().await?;
    installation.masters_ready().await?;
    installation
        .disturb(|cluster| cluster.load_image(&images::pod(&Progress::new())?))
        .await?;
    let (workers, client) = (installation.workers(), installation.client()?);
    let attempts: Vec<_> = workers
        .iter()
        .zip(LOOPBACKS)
        .map(|(worker, loopback)| attempts::start(worker, &client, loopback, RATE))
        .collect();
    sleep(NOTICED).await;
    let first = workers.first().context("there is no worker")?;
    let memory = resident(first)?;

    let silent = installation.disturb(|cluster| {
        on_masters(cluster, |cluster, master| {
            cluster.inject(master, Fault::Blackhole)
        })
    });
    silent.await?;
    let (complete, over) = (Timestamp::now(), Instant::now() + LASTS);
    sleep(NOTICED).await;
    let started = start_static_pod(&installation, first).await;
    sleep_until(over).await;
    let grown = resident(first)?.saturating_sub(memory);
    let gone_for = Timestamp::now().duration_since(complete);
    installation.disturb(|cluster| cluster.heal("cp1")).await?;
    let healed = Timestamp::now();
    sleep(USABLE * 2).await;

    let mut records = Vec::new();
    for (worker, attempts) in workers.iter().zip(attempts) {
        records.push((worker.name().to_string(), attempts.finish().await?));
    }
    installation
        .disturb(|cluster| on_masters(cluster, Cluster::heal))
        .await?;
    remove(&first.file(MANIFEST))?;
    say(format!(
        "no master for {:.1} s: the static pod ran after {:.1} s; {}'s proxy grew by {grown} KiB",
        gone_for.as_secs_f32(),
        started.as_ref().map_or(f32::NAN, Duration::as_secs_f32),
        first.name()
    ));
    for (name, record) in &records {
        told_at_once(name, record, complete, healed)?;
        usable_again(name, record, healed)?;
    }
    started?;
    ensure!(grown <= GROWTH_KIB, "the proxy grew by {grown} KiB");
    installation.masters_ready().await?;
    installation.nodes_ready().await
}

fn on_masters(cluster: &Cluster, work: impl Fn(&Cluster, &str) -> Result<()>) -> Result<()> {
    let masters = cluster.masters();
    masters
        .iter()
        .try_for_each(|master| work(cluster, &master.name().to_string()))
}

/// How long a kubelet that starts without any apiserver takes to start a static pod.
async fn start_static_pod(installation: &Installation, host: &Host) -> Result<Duration> {
    let name = host.name().to_string();
    let killed = name.clone();
    installation
        .disturb(move |cluster| cluster.kill(&killed, Component::Kubelet.program()))
        .await?;
    let path = host.file(MANIFEST);
    fs::create_dir_all(path.parent().context("a manifest lies in a directory")?)?;
    fs::write(&path, manifest()).with_context(|| format!("failed to write {}", path.display()))?;
    let start = Instant::now();
    installation
        .disturb(move |cluster| cluster.start_component(&name, Component::Kubelet))
        .await?;
    eventually(STATIC_POD, "the static pod", async || {
        ensure!(host.pid("trivet-pod")?.is_some(), "it does not run");
        Ok(start.elapsed())
    })
    .await
}

fn manifest() -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: told-at-once, namespace: default}}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: pod, image: '{}', imagePullPolicy: Never, args: ['--port', '18080']}}
",
        images::POD
    )
}

fn told_at_once(name: &str, record: &Record, complete: Timestamp, healed: Timestamp) -> Result<()> {
    let (from, to) = (complete.checked_add(NOTICED)?, healed.checked_sub(TOLD)?);
    let during = |attempt: &&trivet_instruments::Attempt| (from..to).contains(&attempt.at);
    let during: Vec<_> = record.attempts().iter().filter(during).collect();
    let slowest = during.iter().max_by_key(|attempt| attempt.took);
    let slowest = slowest.with_context(|| format!("{name} made no attempts meanwhile"))?;
    say(format!(
        "{name}: {} connections while no master answered, the slowest was told after {} ms",
        during.len(),
        slowest.took.as_millis()
    ));
    let reset = |attempt: &&&trivet_instruments::Attempt| attempt.outcome != Outcome::Reset;
    let other = during.iter().find(reset);
    ensure!(other.is_none(), "{name}: not reset: {other:?}");
    ensure!(slowest.took <= TOLD, "{name}: held: {slowest}");
    Ok(())
}

fn usable_again(name: &str, record: &Record, healed: Timestamp) -> Result<()> {
    let mut answered = record.attempts().iter().filter(|attempt| attempt.succeeded());
    let first = answered
        .find(|attempt| attempt.end() >= healed)
        .with_context(|| format!("{name}: no connection was answered again"))?;
    let after = first.end().duration_since(healed);
    say(format!(
        "{name}: usable {:.2} s after the first master was back",
        after.as_secs_f32()
    ));
    ensure!(
        after <= USABLE.try_into()?,
        "{name}: usable only after {after:.2}"
    );
    Ok(())
}

/// The resident memory of a node's proxy, in KiB.
fn resident(host: &Host) -> Result<u64> {
    let pid = host.pid("trivet-proxy")?.context("no proxy runs")?;
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("a process without memory")?.parse()?)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
