//! One outage of one master, measured: by the same code for workers with Trivet and for workers without, at one time.

mod measured;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use trivet_testbed::Host;

use crate::attempts::{self, LOOPBACKS};
use crate::audit;
use crate::fault::Fault;
use crate::installation::{APISERVER, Installation, Server};
use crate::observe::{History, Observer};
use crate::proxies::metrics;
use crate::say::say;
use trivet_instruments::eventually;
use trivet_instruments::{Attempts, Client, Record};

pub use self::measured::Measured;
use self::measured::Onset;

/// New connections a second from each worker, through its proxy by both of its loopback addresses.
const RATE: u32 = 20;

/// Attempts before the fault: they show that what fails later fails because of it.
const WARM_UP: Duration = Duration::from_secs(3);

/// How long a kubelet that was just restarted may take to connect: it first reads its disk.
const CONNECTED: Duration = Duration::from_secs(30);

/// The pause between two lines of progress.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);

/// When an outage is over.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After this long.
    Passed(Duration),
    /// This long after every worker without Trivet has left Ready.
    NotReady {
        /// How much longer the outage lasts after that.
        then: Duration,
        /// By then they must have left.
        limit: Duration,
    },
}

/// A worker's clients, which use the same server as its kubelet.
#[derive(Debug, Clone)]
pub struct Clients {
    /// Where they are.
    pub worker: Host,
    /// Its own proxy, or one master without a balancer.
    pub server: Server,
}

/// An outage that is over.
#[derive(Debug)]
pub struct Outage {
    fault: Fault,
    onset: Onset,
    history: History,
    records: Vec<(Clients, Record)>,
}

/// Injects `fault` at `master` while `clients` are at work, and undoes it.
pub async fn outage(
    installation: &Installation,
    fault: Fault,
    master: &str,
    clients: Vec<Clients>,
    until: Until,
) -> Result<Outage> {
    let witness = installation.masters().into_iter().find(|other| other != master);
    let witness = witness.context("no master is left to watch the outage of the only one")?;
    installation.masters_ready().await?;
    let observer = Observer::start(installation.kubernetes(&witness).await?).await?;
    let attempts = start_attempts(installation, &clients)?;
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
    last(&clients, &observer, until).await;

    // Undone also after a failure, because the next scenario needs the master.
    let history = observer.finish();
    let records = finish_attempts(attempts).await;
    let name = master.to_owned();
    installation
        .disturb(move |cluster| fault.undo(cluster, &name))
        .await?;
    Ok(Outage {
        fault,
        onset,
        history,
        records: records?,
    })
}

impl Clients {
    /// Those of every worker, all with the same server.
    pub fn of_all(installation: &Installation, server: &Server) -> Vec<Self> {
        let workers = installation.workers().into_iter();
        let of = |worker| Self {
            worker,
            server: server.clone(),
        };
        workers.map(of).collect()
    }

    fn have_trivet(&self) -> bool {
        self.server == Server::Loopback
    }

    fn addresses(&self, installation: &Installation) -> Result<Vec<SocketAddr>> {
        Ok(match &self.server {
            Server::Loopback => LOOPBACKS.to_vec(),
            Server::Master(master) => vec![(installation.cluster().host(master)?.ipv4(), APISERVER).into()],
        })
    }

    fn start(&self, installation: &Installation, client: &Client) -> Result<Vec<Attempts>> {
        let addresses = self.addresses(installation)?;
        let rate = RATE / u32::try_from(addresses.len())?;
        let start = |to| attempts::start(&self.worker, client, to, rate);
        Ok(addresses.into_iter().map(start).collect())
    }
}

impl Outage {
    /// The effect on the workers that use their node's proxy.
    pub fn with_trivet(&self) -> Result<Measured> {
        self.measured(Clients::have_trivet)
    }

    /// The effect on the workers that use only the master.
    pub fn without_trivet(&self) -> Result<Measured> {
        self.measured(|clients| !clients.have_trivet())
    }

    fn measured(&self, of: impl Fn(&Clients) -> bool) -> Result<Measured> {
        let chosen = self.records.iter().filter(|(clients, _)| of(clients));
        let records = chosen.map(|(clients, record)| (clients.worker.name().to_string(), record));
        measured::judge(self.fault, &self.onset, &self.history, records)
    }
}

/// The master with most of the connections of these workers' proxies; of several, the one that a kubelet uses.
pub async fn busiest_master(installation: &Installation, workers: &[Host]) -> Result<String> {
    eventually(CONNECTED, "the workers use their proxies", async || {
        busiest_now(installation, workers).await
    })
    .await
}

async fn busiest_now(installation: &Installation, workers: &[Host]) -> Result<String> {
    let mut kubelets = Vec::new();
    for worker in workers {
        kubelets.extend(audit::serves_kubelet_of(
            &worker.name().to_string(),
            &installation.cluster().masters(),
        )?);
    }
    let mut load = std::collections::BTreeMap::<String, u64>::new();
    for worker in workers {
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
        "the connections of the workers' proxies: {load:?}; their kubelets use {}",
        kubelets.join(" and ")
    ));
    Ok(busiest.clone())
}

fn start_attempts(installation: &Installation, clients: &[Clients]) -> Result<Vec<(Clients, Attempts)>> {
    let client = installation.client()?;
    let mut all = Vec::new();
    for of_worker in clients {
        let started = of_worker.start(installation, &client)?;
        all.extend(started.into_iter().map(|attempts| (of_worker.clone(), attempts)));
    }
    Ok(all)
}

async fn finish_attempts(attempts: Vec<(Clients, Attempts)>) -> Result<Vec<(Clients, Record)>> {
    let mut records = Vec::new();
    for (clients, attempts) in attempts {
        records.push((clients, attempts.finish().await?));
    }
    Ok(records)
}

async fn last(clients: &[Clients], observer: &Observer, until: Until) {
    let (Until::Passed(limit) | Until::NotReady { limit, .. }) = until;
    let name = |clients: &Clients| clients.worker.name().to_string();
    let start = Instant::now();
    let mut told = Duration::ZERO;
    while start.elapsed() < limit {
        sleep(Duration::from_secs(1).min(limit.saturating_sub(start.elapsed()))).await;
        let seen = observer.so_far();
        let mut without = clients.iter().filter(|clients| !clients.have_trivet());
        if let Until::NotReady { then, .. } = until
            && without.all(|clients| seen.left_ready(&name(clients)).is_some())
        {
            return sleep(then).await;
        }
        if start.elapsed() >= told + SIGN_OF_LIFE {
            told = start.elapsed();
            let states: Vec<_> = clients
                .iter()
                .map(|clients| state(&seen, &name(clients)))
                .collect();
            say(format!("{:>4} s: {}", told.as_secs(), states.join(", ")));
        }
    }
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
