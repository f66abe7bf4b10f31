//! An apiserver without etcd is alive, but of little use: new connections leave it soon, old ones later and one after
//! the other. If no apiserver has etcd, no other one is better, and nothing is cut.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use tokio::time::sleep;
use trivet_instruments::Record;
use trivet_testbed::Fault;
use trivet_tests::attempts::{self, LOOPBACKS};
use trivet_tests::health::{Health, Seen};
use trivet_tests::held::{Connection, Held};
use trivet_tests::installation::Installation;
use trivet_tests::say::say;

/// Eight to each master, so that a move of all at once can be told from one after the other.
const HELD: usize = 24;

/// New connections a second.
const RATE: u32 = 10;

/// docs/testbed.md, F6: by then new connections go elsewhere.
const NEW_LEAVE: Duration = Duration::from_secs(10);

/// docs/testbed.md, F6: from here on old connections are moved.
const OLD_STAY: Duration = Duration::from_secs(30);

/// docs/testbed.md, F6: by then all old connections are moved.
const OLD_LEAVE: Duration = Duration::from_secs(45);

/// Reading a clock in two programs, and a client that is told a moment later.
const SLACK: Duration = Duration::from_secs(1);

/// Longer than after which a single member would be left.
const QUORUM_LOST: Duration = Duration::from_secs(36);

/// What a worker's clients went through, and what its proxy thought of it.
struct Ordeal {
    held: Vec<Connection>,
    attempts: Record,
    health: Seen,
    begun: Timestamp,
    complete: Timestamp,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_cut_off_from_etcd_is_left_gently() -> Result<()> {
    let installation = Installation::protecting().await?;
    installation.masters_ready().await?;
    let master = installation.masters().pop().context("no master")?;
    let (cut, healed) = (master.clone(), master.clone());
    let seen = go_through(
        &installation,
        OLD_LEAVE + SLACK,
        move |cluster| cluster.inject(&cut, Fault::Isolate),
        move |cluster| cluster.heal(&healed),
    )
    .await?;

    let unready = seen.health.first(&master, "Unready", seen.begun);
    let unready = unready.with_context(|| format!("{master} was never Unready"))?;
    let after = |at: Timestamp| at.duration_since(seen.complete).as_secs_f32();
    let (on_it, elsewhere): (Vec<_>, Vec<_>) = seen
        .held
        .iter()
        .partition(|connection| connection.server == master);
    let mut ends: Vec<_> = on_it
        .iter()
        .filter_map(|connection| connection.ended.as_ref())
        .collect();
    ends.sort();
    let last_new = seen.attempts.attempts().iter().rev();
    let last_new = last_new
        .clone()
        .find(|attempt| attempt.server.as_ref() == Some(&master));
    say(format!(
        "{master} without etcd: Unready after {:.1} s; the last new connection to it after {:.1} s; of {} held ones {} \
         moved, after {:.1} to {:.1} s ({})",
        after(unready),
        last_new.map_or(0.0, |attempt| after(attempt.at)),
        on_it.len(),
        ends.len(),
        ends.first().map_or(0.0, |(at, _)| after(*at)),
        ends.last().map_or(0.0, |(at, _)| after(*at)),
        ends.first().map_or("", |(_, why)| why),
    ));

    seen.nobody_was_cut_short()?;
    ensure!(
        unready <= seen.complete.checked_add(NEW_LEAVE)?,
        "{master} was found Unready late"
    );
    let settled = seen.complete.checked_add(NEW_LEAVE)?;
    let late = |at: &Timestamp| *at >= settled;
    ensure!(
        last_new.is_none_or(|attempt| !late(&attempt.at)),
        "a new connection went to {master}: {last_new:?}"
    );
    let failed = seen.attempts.failed_since(settled);
    ensure!(
        failed.is_empty(),
        "{} failed, the first: {:?}",
        failed.len(),
        failed.first()
    );
    let strays: Vec<_> = elsewhere.iter().filter(|held| held.ended.is_some()).collect();
    ensure!(strays.is_empty(), "connections to others ended: {strays:?}");

    ensure!(on_it.len() >= 4, "{master} had {} connections", on_it.len());
    let stay = seen.begun.checked_add(OLD_STAY)?;
    let leave = seen.complete.checked_add(OLD_LEAVE + SLACK)?;
    for (at, why) in &ends {
        ensure!(
            *at >= stay,
            "a connection was cut {:.1} s after the fault: {why}",
            after(*at)
        );
        ensure!(
            *at <= leave,
            "a connection was moved {:.1} s after the fault",
            after(*at)
        );
    }
    ensure!(
        ends.len() == on_it.len(),
        "{} of {} were moved",
        ends.len(),
        on_it.len()
    );
    let together = |(at, _): &&&(Timestamp, String)| {
        let near = ends
            .iter()
            .filter(|(other, _)| other.duration_since(*at).unsigned_abs() < Duration::from_secs(1));
        near.count() > ends.len().div_ceil(2) + 1
    };
    ensure!(
        !ends.iter().any(|end| together(&end)),
        "most were moved at once: {ends:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_quorum_cuts_no_connection() -> Result<()> {
    let installation = Installation::protecting().await?;
    installation.masters_ready().await?;
    let seen = go_through(
        &installation,
        QUORUM_LOST,
        |cluster| {
            let stop = |master| cluster.stop(master, "etcd");
            ["cp2", "cp3"].into_iter().try_for_each(stop)
        },
        |cluster| {
            let cont = |master| cluster.cont(master, "etcd");
            ["cp2", "cp3"].into_iter().try_for_each(cont)
        },
    )
    .await?;

    let ended: Vec<_> = seen.held.iter().filter(|held| held.ended.is_some()).collect();
    say(format!(
        "no quorum for {} s: {} of {} held connections ended; {} of {} new ones got an answer",
        QUORUM_LOST.as_secs(),
        ended.len(),
        seen.held.len(),
        seen.attempts.attempts().len() - seen.attempts.unanswered().len(),
        seen.attempts.attempts().len()
    ));
    seen.nobody_was_cut_short()?;
    ensure!(ended.is_empty(), "connections ended: {ended:?}");
    let unready = |master: &String| seen.health.first(master, "Unready", seen.begun).is_some();
    ensure!(
        installation.masters().iter().all(unready),
        "the quorum was not lost for every master"
    );
    installation.masters_ready().await?;
    installation.nodes_ready().await
}

impl Ordeal {
    /// Neither the proxy thinks that anybody is silent, nor did a connection end before its answer.
    fn nobody_was_cut_short(&self) -> Result<()> {
        for master in ["cp1", "cp2", "cp3"] {
            let states = self.health.states_of(master);
            ensure!(!states.contains("Down"), "{master} was Down: {states:?}");
        }
        let cut = self.attempts.unanswered();
        ensure!(
            cut.is_empty(),
            "{} got no answer, the first: {:?}",
            cut.len(),
            cut.first()
        );
        Ok(())
    }
}

/// Lets a fault last while clients of the first worker hold connections and open new ones.
async fn go_through(
    installation: &Installation,
    lasts: Duration,
    inject: impl FnOnce(&trivet_testbed::Cluster) -> Result<()> + Send + 'static,
    undo: impl FnOnce(&trivet_testbed::Cluster) -> Result<()> + Send + 'static,
) -> Result<Ordeal> {
    let host = installation.workers().into_iter().next().context("no worker")?;
    let client = installation.client()?;
    let [v4, v6] = LOOPBACKS;
    let held = Held::open(&host, &client, v6, HELD).await?;
    let attempts = attempts::start(&host, &client, v4, RATE);
    let health = Health::watch(&host);
    let begun = Timestamp::now();
    let injected = installation.disturb(inject).await;
    let complete = Timestamp::now();
    if injected.is_ok() {
        sleep(lasts).await;
    }
    let held = held.finish().await;
    let (attempts, health) = (attempts.finish().await, health.finish().await);
    installation.disturb(undo).await?;
    injected?;
    Ok(Ordeal {
        held: held?,
        attempts: attempts?,
        health: health?,
        begun,
        complete,
    })
}
