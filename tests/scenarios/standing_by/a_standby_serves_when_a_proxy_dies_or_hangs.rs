//! A proxy that is killed, deleted or stopped costs no client its connection where a standby is there.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};
use trivet_instruments::{Attempt, Attempts, Outcome, Record, eventually};
use trivet_testbed::Host;
use trivet_tests::attempts::{self, LOOPBACKS};
use trivet_tests::installation::{Installation, NAMESPACE};
use trivet_tests::say::say;
use trivet_tests::serving::{daemon_set_serves, serving};

/// New connections a second.
const RATE: u32 = 50;

/// The proxy's program.
const PROXY: &str = "trivet-proxy";

/// Where apiservers listen.
const APISERVER: u16 = 6443;

const KILLS: usize = 20;
const DELETIONS: usize = 5;
const STOPS: usize = 3;

/// The node reports its standby within seconds, and the operator marks the pod then.
const MARKED: Duration = Duration::from_secs(60);

/// How long a process is stopped.
const STOPPED: Duration = Duration::from_secs(20);

/// The slowest connection where the process that serves is gone, and where it hangs, besides the machine's share.
const GONE: Duration = Duration::from_millis(300);
const HANGS: Duration = Duration::from_millis(1500);

/// What begins after a fault is judged for this long.
const AFTERWARDS: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_or_hung_proxy_costs_nothing_where_a_standby_is_there() -> Result<()> {
    let installation = Installation::standing_by().await?.told().await?;
    let [first, second] = two_workers(&installation)?;
    tokio::try_join!(
        killed_and_deleted(&installation, &first),
        stopped(&installation, &second)
    )
    .map(drop)
}

async fn killed_and_deleted(installation: &Installation, host: &Host) -> Result<()> {
    let clients = Clients::start(installation, host)?;
    let mut kills = Vec::new();
    for _ in 0..KILLS {
        let pid = daemon_set_serves(host).await?;
        let before = Instant::now();
        host.signal(pid, Signal::SIGKILL)?;
        kills.push(before..=Instant::now());
        another_serves(host, pid).await?;
        sleep(AFTERWARDS).await;
    }
    none_failed(
        &format!("{}: killed {KILLS} times", host.name()),
        clients,
        &kills,
        GONE,
    )
    .await?;

    let clients = Clients::start(installation, host)?;
    let pods = Api::<Pod>::namespaced(installation.kubernetes("cp1").await?, NAMESPACE);
    for number in 0..DELETIONS {
        let pid = daemon_set_serves(host).await?;
        let name = host.name().to_string();
        let all = installation.proxy_pods().await?;
        let pod = all.iter().find(|pod| pod.node == name && !pod.is_leaving);
        let pod = pod.with_context(|| format!("{name} has no proxy"))?;
        if number > 0 {
            // The first deletion shows that nobody has to ask where a standby is there.
            let ask = format!("--field-selector metadata.name={}", pod.name);
            installation.allow_pods_to_go(&ask).await?;
        }
        eventually(MARKED, "the deletion of a proxy beside a standby", async || {
            pods.delete(&pod.name, &DeleteParams::default()).await?;
            Ok(())
        })
        .await?;
        another_serves(host, pid).await?;
        sleep(AFTERWARDS).await;
    }
    none_failed(
        &format!("{}: deleted {DELETIONS} times", host.name()),
        clients,
        &[],
        GONE,
    )
    .await
}

async fn stopped(installation: &Installation, host: &Host) -> Result<()> {
    let clients = Clients::start(installation, host)?;
    let mut stops = Vec::new();
    for _ in 0..STOPS {
        let pid = daemon_set_serves(host).await?;
        let before = Instant::now();
        host.signal(pid, Signal::SIGSTOP)?;
        stops.push(before..=Instant::now());
        sleep(STOPPED).await;
        // Kubelet may have killed it meanwhile: each stop costs it one liveness probe, and three in a row are its limit.
        if host.pids(PROXY)?.contains(&pid) {
            host.signal(pid, Signal::SIGCONT)?;
        }
        sleep(AFTERWARDS).await;
    }
    let what = format!("{}: stopped for {STOPPED:?} {STOPS} times", host.name());
    none_failed(&what, clients, &stops, HANGS).await
}

/// Waits until another process than this one serves.
async fn another_serves(host: &Host, pid: i32) -> Result<()> {
    eventually(
        Duration::from_secs(40),
        "another process that serves",
        async || {
            let now = serving(host)?.with_context(|| format!("nobody serves {}", host.name()))?;
            ensure!(now.pid != pid, "{pid} still serves");
            Ok(())
        },
    )
    .await
}

/// Clients of a node's proxy, and beside them half as many of a master, and of the proxy of a node without a fault: what those
/// wait for is the machine's share.
struct Clients {
    through_proxy: Attempts,
    direct: Attempts,
    without_a_fault: Attempts,
}

impl Clients {
    fn start(installation: &Installation, host: &Host) -> Result<Self> {
        let client = installation.client()?;
        let master = installation.cluster().host("cp1")?;
        let apiserver = SocketAddr::from((master.ipv4(), APISERVER));
        Ok(Self {
            through_proxy: attempts::start(host, &client, LOOPBACKS[0], RATE),
            direct: attempts::start(host, &client, apiserver, RATE / 2),
            without_a_fault: attempts::start(&master, &client, LOOPBACKS[0], RATE / 2),
        })
    }

    /// The record of the node's clients, and the machine's share.
    async fn finish(self) -> Result<(Record, Duration)> {
        let (record, direct, without_a_fault) = tokio::join!(
            self.through_proxy.finish(),
            self.direct.finish(),
            self.without_a_fault.finish()
        );
        let record = record?.beside(direct?.attempts().to_vec());
        let machine = record.machine().max(without_a_fault?.slowest());
        Ok((record, machine))
    }
}

/// Fails if a connection failed, other than those that a process had accepted when it was killed or stopped: the kernel ends
/// them, or nobody answers them.
async fn none_failed(
    what: &str,
    clients: Clients,
    faults: &[RangeInclusive<Instant>],
    limit: Duration,
) -> Result<()> {
    let (record, machine) = clients.finish().await?;
    let was_accepted = |attempt: &Attempt| {
        let end = attempt.started + attempt.took;
        let overlaps =
            |fault: &RangeInclusive<Instant>| attempt.started <= *fault.end() && *fault.start() <= end;
        matches!(
            attempt.outcome,
            Outcome::Reset | Outcome::Ended | Outcome::TimedOut
        ) && faults.iter().any(overlaps)
    };
    let others = record.attempts().iter().filter(|attempt| !was_accepted(attempt));
    let slowest = others.map(|attempt| attempt.took).max().unwrap_or_default();
    let (accepted, failed): (Vec<_>, Vec<_>) = record
        .failed()
        .into_iter()
        .partition(|attempt| was_accepted(attempt));
    say(format!(
        "{what}: {} of {} new connections failed, and {} with the process that had accepted them; slowest {:.2} s (the \
         machine's share {:.2} s)",
        failed.len(),
        record.attempts().len(),
        accepted.len(),
        slowest.as_secs_f32(),
        machine.as_secs_f32()
    ));
    for attempt in &failed {
        say(format!(
            "  {}: {:?} after {:?}: {:?}",
            attempt.at, attempt.outcome, attempt.took, attempt.error
        ));
    }
    ensure!(failed.is_empty(), "{what}: {} connections failed", failed.len());
    ensure!(
        slowest <= limit + machine,
        "{what}: the slowest connection took {slowest:?}, and {limit:?} is promised"
    );
    Ok(())
}

fn two_workers(installation: &Installation) -> Result<[Host; 2]> {
    let workers: Vec<_> = installation.workers().into_iter().take(2).collect();
    workers.try_into().ok().context("there are not two workers")
}
