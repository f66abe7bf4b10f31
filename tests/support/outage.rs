//! One outage of one master, measured: the same code with Trivet and without.

mod measured;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use trivet_testbed::Host;

use crate::attempts::{Attempts, LOOPBACKS, Record};
use crate::audit;
use crate::fault::Fault;
use crate::installation::{Installation, Server};
use crate::observe::{History, Observer};
use crate::proxies::metrics;
use crate::say::say;

pub use self::measured::Measured;
use self::measured::Onset;

/// New connections a second from each worker.
const RATE: u32 = 20;

/// Attempts before the fault: they show that what fails later fails because of it.
const WARM_UP: Duration = Duration::from_secs(3);

/// How often a person is told that it goes on.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);

/// When an outage is over.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After this long.
    Passed(Duration),
    /// As soon as every worker has left Ready, at the latest after this long.
    WorkersNotReady(Duration),
}

/// Lets `fault` happen to `master` while the workers use `server`, and takes it back.
pub async fn outage(
    installation: &Installation,
    fault: Fault,
    master: &str,
    server: &Server,
    until: Until,
) -> Result<Measured> {
    let witness = installation.masters().into_iter().find(|other| other != master);
    let witness = witness.context("nobody is left to watch the outage of the only master")?;
    installation.masters_ready().await?;
    let observer = Observer::start(installation.kubernetes(&witness).await?).await?;
    let attempts = start_attempts(installation, server)?;
    sleep(WARM_UP).await;

    say(format!("{master}: {} ({witness} is the witness)", fault.story()));
    let name = master.to_owned();
    let begun = Timestamp::now();
    installation
        .disturb(move |cluster| fault.inject(cluster, &name))
        .await?;
    let onset = Onset {
        begun,
        complete: Timestamp::now(),
    };
    let lasted = last(installation, &observer, until).await;

    // Taken back whatever was seen: the next scenario needs the master.
    let history = observer.finish();
    let records = finish_attempts(attempts).await;
    let name = master.to_owned();
    installation
        .disturb(move |cluster| fault.undo(cluster, &name))
        .await?;
    lasted?;
    measured::judge(fault, &onset, &history, &records?)
}

/// The master with most of the workers' connections; of several, the one that a worker's kubelet uses.
pub async fn busiest_master(installation: &Installation) -> Result<String> {
    let workers = installation.workers();
    let mut kubelets = Vec::new();
    for worker in &workers {
        kubelets.extend(audit::serves_kubelet_of(
            &worker.name().to_string(),
            &installation.cluster().masters(),
        )?);
    }
    let mut load = std::collections::BTreeMap::<String, u64>::new();
    for worker in &workers {
        for (member, connections) in metrics(worker).await?.connections() {
            *load.entry(member).or_default() += connections;
        }
    }
    let weight = |member: &String| kubelets.iter().filter(|master| *master == member).count();
    let busiest = load
        .iter()
        .max_by_key(|(member, connections)| (**connections, weight(member)));
    let (busiest, connections) = busiest.context("the workers' proxies know no member")?;
    ensure!(*connections > 0, "the workers' proxies carry no connection");
    say(format!(
        "the workers' connections: {load:?}; their kubelets use {}",
        kubelets.join(" and ")
    ));
    Ok(busiest.clone())
}

/// With Trivet every second worker uses IPv6: the proxy listens on both.
fn start_attempts(installation: &Installation, server: &Server) -> Result<Vec<(Host, Attempts)>> {
    let client = installation.client()?;
    let of_worker = |(index, worker): (usize, Host)| {
        let to = match server {
            Server::Loopback => *LOOPBACKS
                .get(index % LOOPBACKS.len())
                .context("no loopback address")?,
            Server::Master(master) => (installation.cluster().host(master)?.ipv4(), 6443).into(),
        };
        Ok((worker.clone(), Attempts::start(&worker, &client, to, RATE)))
    };
    installation
        .workers()
        .into_iter()
        .enumerate()
        .map(of_worker)
        .collect()
}

async fn finish_attempts(attempts: Vec<(Host, Attempts)>) -> Result<Vec<(String, Record)>> {
    let mut records = Vec::new();
    for (worker, attempts) in attempts {
        records.push((worker.name().to_string(), attempts.finish().await?));
    }
    Ok(records)
}

async fn last(installation: &Installation, observer: &Observer, until: Until) -> Result<()> {
    let (Until::Passed(limit) | Until::WorkersNotReady(limit)) = until;
    let workers: Vec<_> = installation
        .workers()
        .iter()
        .map(|worker| worker.name().to_string())
        .collect();
    let start = Instant::now();
    let mut told = Duration::ZERO;
    while start.elapsed() < limit {
        sleep(Duration::from_secs(1).min(limit.saturating_sub(start.elapsed()))).await;
        let seen = observer.so_far();
        let all_left = workers.iter().all(|worker| seen.left_ready(worker).is_some());
        if matches!(until, Until::WorkersNotReady(_)) && all_left {
            return Ok(());
        }
        if start.elapsed() >= told + SIGN_OF_LIFE {
            told = start.elapsed();
            say(format!(
                "{:>4} s: {}",
                told.as_secs(),
                workers
                    .iter()
                    .map(|worker| state(&seen, worker))
                    .collect::<Vec<_>>()
                    .join(", ")
            ));
        }
    }
    Ok(())
}

fn state(seen: &History, worker: &str) -> String {
    let ready = if seen.left_ready(worker).is_some() {
        "has left Ready"
    } else {
        "Ready"
    };
    format!(
        "{worker} {ready}, worst Lease gap {:.1} s",
        seen.worst_lease_gap(worker).as_secs_f32()
    )
}
