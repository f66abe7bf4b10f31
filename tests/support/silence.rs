//! A master becomes silent for some nodes, by any fault, while clients of every worker use it: the states that each worker's
//! proxy reported, and what happened to its clients.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use jiff::Timestamp;
use tokio::time::sleep;
use trivet_testbed::{Cluster, Fault, Host};

use crate::attempts::{self, LOOPBACKS};
use crate::health::{Health, Seen};
use crate::held::{Connection, Held};
use crate::installation::Installation;
use crate::proxies::metrics;
use crate::say::say;
use trivet_instruments::eventually;
use trivet_instruments::{Attempt, Attempts, Record};

/// From each worker, so that every master has some of them.
const HELD: usize = 12;

/// New connections a second from each worker.
const RATE: u32 = 20;

/// Attempts before the fault: they show that what fails later fails because of it.
const WARM_UP: Duration = Duration::from_secs(2);

/// Added to a bound for a busy machine: two programs read the clock, and a client must notice.
const READING: Duration = Duration::from_millis(250);

/// Two good probes take two seconds, but a member that failed repeatedly is in hold-down for up to two minutes.
const BACK: Duration = Duration::from_secs(150);

/// After the return: new connections reach it again.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// The states of a master at one worker's proxy, and what happened to its clients.
#[derive(Debug)]
pub struct Witness {
    /// The worker.
    pub worker: String,
    master: String,
    held: Vec<Connection>,
    attempts: Record,
    health: Seen,
    span: Span,
}

/// When the fault was there.
#[derive(Debug, Clone, Copy)]
struct Span {
    /// From here on connections may end.
    begun: Timestamp,
    /// From here on times of the promises run.
    complete: Timestamp,
    /// Here it was about to be taken back.
    undone: Timestamp,
}

/// A worker's clients at work.
struct Clients {
    worker: String,
    held: Held,
    attempts: Attempts,
    health: Health,
}

/// Puts each fault on its host's wire while clients of every worker are at work, goes on until `meanwhile` ends, heals
/// the hosts, and waits until every worker's proxy finds `master` Up again.
pub async fn silence(
    installation: &Installation,
    master: &str,
    faults: Vec<(String, Fault)>,
    meanwhile: impl Future<Output = Result<()>>,
) -> Result<Vec<Witness>> {
    let mut clients = Vec::new();
    for (worker, to) in installation.workers().into_iter().zip(LOOPBACKS) {
        clients.push(Clients::start(installation, &worker, to).await?);
    }
    sleep(WARM_UP).await;

    let hosts: Vec<_> = faults.iter().map(|(host, _)| host.clone()).collect();
    let begun = Timestamp::now();
    let injected = installation
        .disturb(move |cluster| inject(cluster, &faults))
        .await;
    let complete = Timestamp::now();
    let lasted = match injected {
        Ok(()) => meanwhile.await,
        Err(error) => Err(error),
    };
    let undone = Timestamp::now();
    // Also after a failure, because the next scenario needs the hosts.
    let heal = move |cluster: &Cluster| hosts.iter().try_for_each(|host| cluster.heal(host));
    let healed = installation.disturb(heal).await;
    let back = match lasted.and(healed) {
        Ok(()) => all_come_back(installation, master).await,
        Err(error) => Err(error),
    };
    sleep(AFTERWARDS).await;
    let span = Span {
        begun,
        complete,
        undone,
    };
    let mut witnesses = Vec::new();
    // All of them end, also after a failure: they must not run during the next scenario.
    for witness in join_all(clients.into_iter().map(|clients| clients.finish(master, span))).await {
        witnesses.push(witness?);
    }
    back?;
    Ok(witnesses)
}

/// Fails unless a worker's proxy gives `master` new connections. These stay open until the last of them is there: of
/// connections that end at once, the same member gets each one, whichever has the fewest others.
pub async fn gives_connections_to(installation: &Installation, worker: &Host, master: &str) -> Result<()> {
    let client = installation.client()?;
    let fresh = Held::open(worker, &client, LOOPBACKS[0], HELD).await?;
    let fresh = fresh.finish().await?;
    ensure!(
        fresh.iter().any(|connection| connection.server == master),
        "{} gave {master} none of {HELD} new connections: {fresh:?}",
        worker.name()
    );
    Ok(())
}

fn inject(cluster: &Cluster, faults: &[(String, Fault)]) -> Result<()> {
    faults
        .iter()
        .try_for_each(|(host, fault)| cluster.inject(host, *fault))
}

async fn all_come_back(installation: &Installation, master: &str) -> Result<()> {
    for worker in installation.workers() {
        let what = format!("{master} Up again on {}", worker.name());
        eventually(BACK, &what, async || {
            let states = metrics(&worker).await?.states();
            let back = states.get(master).is_some_and(|state| state == "Up");
            ensure!(back, "{states:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

impl Clients {
    async fn start(installation: &Installation, worker: &Host, to: SocketAddr) -> Result<Self> {
        let client = installation.client()?;
        Ok(Self {
            worker: worker.name().to_string(),
            held: Held::open(worker, &client, to, HELD).await?,
            attempts: attempts::start(worker, &client, to, RATE),
            health: Health::watch(worker),
        })
    }

    async fn finish(self, master: &str, span: Span) -> Result<Witness> {
        Ok(Witness {
            worker: self.worker,
            master: master.to_owned(),
            held: self.held.finish().await?,
            attempts: self.attempts.finish().await?,
            health: self.health.finish().await?,
            span,
        })
    }
}

impl Witness {
    /// Its proxy found the master Down within this time, cut the master's connections by then, and gave it no new one.
    pub fn was_cut_within(&self, limit: Duration) -> Result<()> {
        let Self { worker, master, .. } = self;
        let limit = limit + READING;
        let down = self.down()?;
        ensure!(
            self.after(down) <= limit,
            "{worker} found {master} Down only after {:?}",
            self.after(down)
        );
        self.held_ones_ended_within(limit)?;
        let late = self.given_between(down, self.span.undone);
        ensure!(
            late.is_empty(),
            "{worker} gave {master} {} new connections though it was Down: {:?}",
            late.len(),
            late.first()
        );
        Ok(())
    }

    /// One address of the master was silent, and another answered: the connections over the silent one were cut within
    /// this time, the master was Up all the while, and new connections reached it by its other address.
    pub fn lost_one_address_within(&self, limit: Duration) -> Result<()> {
        let Self {
            worker, master, span, ..
        } = self;
        let states = self.health.states_between(master, span.begun, span.undone);
        ensure!(states == ["Up"].into(), "{worker}: {master} was {states:?}");
        self.held_ones_ended_within(limit + READING)?;
        let settled = span.complete.checked_add(limit)?;
        let given = self.given_between(settled, span.undone);
        ensure!(
            given.iter().any(|attempt| attempt.succeeded()),
            "{worker} gave {master} no new connection by its other address"
        );
        Ok(())
    }

    /// Every connection that began when the fault was there, or later, was served.
    pub fn lost_no_new_connection(&self) -> Result<()> {
        let failed = self.attempts.failed_since(self.span.complete);
        ensure!(
            failed.is_empty(),
            "{}: {} new connections failed, the first: {:?}",
            self.worker,
            failed.len(),
            failed.first()
        );
        Ok(())
    }

    /// The clients that were cut were served again within this time.
    pub fn was_served_again_within(&self, limit: Duration) -> Result<()> {
        for connection in self.held_by(|server| server == self.master) {
            let (ended, _) = connection.ended.as_ref().context("a connection was not cut")?;
            let again = self.attempts.attempts().iter().find(|next| next.at >= *ended);
            let again = again.context("nothing was tried after a connection was cut")?;
            ensure!(
                self.after(again.end()) <= limit,
                "{}: served again only after {:?}",
                self.worker,
                self.after(again.end())
            );
        }
        Ok(())
    }

    /// No connection to another master ended, and no other master was Down.
    pub fn spared_the_others(&self) -> Result<()> {
        for connection in self.held_by(|server| server != self.master) {
            ensure!(
                connection.ended.is_none(),
                "{}: a connection to another ended: {connection:?}",
                self.worker
            );
            self.never_found_down(&connection.server)?;
        }
        Ok(())
    }

    /// After the fault it found the master Up and gave it connections again.
    pub fn took_it_back(&self) -> Result<()> {
        let up = self.health.first(&self.master, "Up", self.span.undone);
        let up = up.with_context(|| format!("{} did not see {} Up again", self.worker, self.master))?;
        ensure!(
            !self.given_between(up, Timestamp::MAX).is_empty(),
            "{} gave {} no new connection again",
            self.worker,
            self.master
        );
        Ok(())
    }

    /// The master was never Down at this proxy, no connection of its clients ended, and no new one failed.
    pub fn noticed_nothing(&self) -> Result<()> {
        let Self { worker, master, .. } = self;
        self.never_found_down(master)?;
        let ended: Vec<_> = self.held.iter().filter(|held| held.ended.is_some()).collect();
        ensure!(ended.is_empty(), "{worker}: connections ended: {ended:?}");
        self.attempts.all_succeeded(worker)
    }

    fn never_found_down(&self, server: &str) -> Result<()> {
        let states = self.health.states_of(server);
        ensure!(
            !states.contains("Down"),
            "{}: {server} was {states:?}",
            self.worker
        );
        Ok(())
    }

    fn held_ones_ended_within(&self, limit: Duration) -> Result<()> {
        let Self { worker, master, .. } = self;
        let had = self.held_by(|server| server == master);
        ensure!(
            had.len() >= 2,
            "{worker} held {} connections to {master}",
            had.len()
        );
        for connection in had {
            let (at, why) = connection.ended.as_ref().context("a connection was not cut")?;
            let after = self.after(*at);
            ensure!(
                *at >= self.span.begun && after <= limit,
                "{worker}'s connection to {master} ended after {after:?}: {why}"
            );
        }
        Ok(())
    }

    fn down(&self) -> Result<Timestamp> {
        let down = self.health.first(&self.master, "Down", self.span.begun);
        down.with_context(|| format!("{} never found {} Down", self.worker, self.master))
    }

    fn held_by(&self, server: impl Fn(&str) -> bool) -> Vec<&Connection> {
        let held = self.held.iter();
        held.filter(|connection| server(&connection.server)).collect()
    }

    /// The new connections that the master was given from one moment to another.
    fn given_between(&self, from: Timestamp, to: Timestamp) -> Vec<&Attempt> {
        let given = |attempt: &&Attempt| {
            attempt.server.as_ref() == Some(&self.master) && attempt.at >= from && attempt.at < to
        };
        self.attempts.attempts().iter().filter(given).collect()
    }

    /// How long after the fault was there; nothing if before.
    fn after(&self, at: Timestamp) -> Duration {
        at.duration_since(self.span.complete)
            .try_into()
            .unwrap_or_default()
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worker, master, .. } = self;
        let down = self.down().map(|at| self.after(at).as_secs_f32());
        let had = self.held_by(|server| server == master);
        let cut: Vec<_> = had.iter().filter_map(|held| held.ended.as_ref()).collect();
        let last = cut.iter().map(|(at, _)| self.after(*at)).max();
        let up = self.health.first(master, "Up", self.span.undone);
        match down {
            Ok(down) => write!(f, "{worker}: {master} Down after {down:.2} s")?,
            Err(_) => write!(f, "{worker}: {master} never Down")?,
        }
        write!(
            f,
            ", {} of its {} held connections cut, the last after {:.2} s; {} of {} new ones failed, {} of them begun \
             later, {} slower than 1 s; {} given to {master} during the fault; Up {:.1} s after it",
            cut.len(),
            had.len(),
            last.unwrap_or_default().as_secs_f32(),
            self.attempts.failed().len(),
            self.attempts.attempts().len(),
            self.attempts.failed_since(self.span.complete).len(),
            self.attempts.slow().len(),
            self.given_between(self.span.complete, self.span.undone).len(),
            up.map_or(f64::NAN, |at| at.duration_since(self.span.undone).as_secs_f64()),
        )
    }
}

/// Prints the result of every worker.
pub fn publish(witnesses: &[Witness]) {
    witnesses.iter().for_each(say);
}
