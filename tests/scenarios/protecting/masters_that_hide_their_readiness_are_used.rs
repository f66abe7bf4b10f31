//! `anonymous-auth=false`: an apiserver that tells strangers nothing, not even whether it is ready, is alive and is given
//! connections, be it alone among others or as all of them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::{join_all, try_join_all};
use jiff::Timestamp;
use tokio::time::sleep;
use trivet_instruments::eventually;
use trivet_instruments::{Attempt, Outcome, Record};
use trivet_testbed::{Component, Host};
use trivet_tests::attempts::{self, LOOPBACKS};
use trivet_tests::health::{Health, Seen};
use trivet_tests::installation::Installation;
use trivet_tests::proxies::metrics;
use trivet_tests::say::say;

/// What a hardened cluster has.
const HIDDEN: &str = "anonymous-auth=false";

/// New connections a second from each worker.
const RATE: u32 = 20;

/// Five good probes, one a second, and some slack for a busy machine; an apiserver that hides its readiness cannot say
/// that it ends, so it may be held down for some seconds after a restart.
const BACK: Duration = Duration::from_secs(150);

/// Long enough for more than two probes of every node, and for eighty connections.
const LOOK_ON: Duration = Duration::from_secs(4);

/// Until every proxy has probed an apiserver that is ready again: two probes, one a second.
const PROBED: Duration = Duration::from_secs(2);

/// A time in which a master was restarted. An apiserver that starts accepts connections for a second or two before it
/// answers any, which is silence as any other.
struct Restart {
    master: String,
    from: Timestamp,
    to: Timestamp,
}

/// A time in which these masters hid their readiness, and every worker's proxy found all masters Up.
struct Hiding {
    masters: Vec<String>,
    /// Those that hid last. Just restarted, they have the fewest connections: it is their turn.
    last: Vec<String>,
    from: Timestamp,
    to: Timestamp,
}

#[tokio::test(flavor = "multi_thread")]
async fn masters_that_hide_their_readiness_are_never_down_and_are_given_connections() -> Result<()> {
    let installation = Installation::protecting().await?;
    let client = installation.client()?.asking("/version");
    let workers = installation.workers();
    let watched: Vec<_> = workers
        .iter()
        .zip(LOOPBACKS)
        .map(|(worker, to)| (attempts::start(worker, &client, to, RATE), Health::watch(worker)))
        .collect();

    let hidings = hide_one_and_then_all(&installation).await;

    // All of them end, also when something went wrong, and before anything is judged.
    let mut seen = Vec::new();
    for (worker, (attempts, health)) in workers.iter().zip(watched) {
        seen.push((worker, attempts.finish().await, health.finish().await));
    }
    // Whatever was seen: the next scenario needs masters that tell.
    let shown = show_all(&installation).await;
    let (hidings, restarts) = hidings?;
    for (worker, record, health) in seen {
        let (record, health) = (record?, health?);
        publish(worker, &record, &health, &hidings);
        was_served(worker, &record)?;
        never_down(worker, &health, &restarts)?;
        for hiding in &hidings {
            hiding.was_seen_up(worker, &health, &installation.masters())?;
            hiding.was_used(worker, &record)?;
        }
    }
    shown?;
    installation.nodes_ready().await
}

async fn hide_one_and_then_all(installation: &Installation) -> Result<(Vec<Hiding>, Vec<Restart>)> {
    let mut others = installation.masters();
    let one = others.pop().context("there is no master")?;
    let mut restarts = vec![restart(installation, &one, &[HIDDEN]).await?];
    let alone = vec![one];
    let alone = look_on(installation, alone.clone(), alone).await?;
    // At once: meanwhile the one that hides is all that is left.
    let further = others
        .iter()
        .map(|master| restart(installation, master, &[HIDDEN]));
    restarts.extend(try_join_all(further).await?);
    let all = look_on(installation, installation.masters(), others).await?;
    Ok((vec![alone, all], restarts))
}

/// Waits until every worker finds all masters Up, and looks on.
async fn look_on(installation: &Installation, masters: Vec<String>, last: Vec<String>) -> Result<Hiding> {
    for worker in installation.workers() {
        all_up(&worker).await?;
    }
    let from = Timestamp::now();
    sleep(LOOK_ON).await;
    Ok(Hiding {
        masters,
        last,
        from,
        to: Timestamp::now(),
    })
}

async fn all_up(worker: &Host) -> Result<()> {
    eventually(
        BACK,
        &format!("all masters Up on {}", worker.name()),
        async || {
            let states = metrics(worker).await?.states();
            ensure!(states.values().all(|state| state == "Up"), "{states:?}");
            Ok(())
        },
    )
    .await
}

async fn restart(installation: &Installation, master: &str, flags: &[&str]) -> Result<Restart> {
    let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let name = master.to_owned();
    let (from, start) = (Timestamp::now(), tokio::time::Instant::now());
    installation
        .disturb(move |cluster| cluster.restart(&name, Component::KubeApiserver, &flags))
        .await?;
    say(format!(
        "{master}: restarted in {:.1} s",
        start.elapsed().as_secs_f32()
    ));
    Ok(Restart {
        master: master.to_owned(),
        from,
        to: Timestamp::now() + PROBED,
    })
}

/// Takes the flag back, two masters first and then the one. They are killed: nothing is measured any more, and to end
/// gracefully takes each of them a quarter of a minute.
async fn show_all(installation: &Installation) -> Result<()> {
    let mut others = installation.masters();
    let one: Vec<_> = others.pop().into_iter().collect();
    let mut outcomes = Vec::new();
    for some in [others, one] {
        outcomes.extend(join_all(some.iter().map(|master| show(installation, master))).await);
    }
    // All were tried, also when one failed.
    outcomes.into_iter().collect()
}

async fn show(installation: &Installation, master: &str) -> Result<()> {
    let name = master.to_owned();
    installation
        .disturb(move |cluster| cluster.kill(&name, Component::KubeApiserver.program()))
        .await?;
    restart(installation, master, &[]).await.map(drop)
}

impl Hiding {
    /// A master that hides its readiness is as good as one that tells it.
    fn was_seen_up(&self, worker: &Host, health: &Seen, masters: &[String]) -> Result<()> {
        for master in masters {
            let states = health.states_between(master, self.from, self.to);
            ensure!(
                states == ["Up"].into(),
                "{}: while {} hid, {master} was {states:?}",
                worker.name(),
                self.masters.join(", ")
            );
        }
        Ok(())
    }

    fn was_used(&self, worker: &Host, record: &Record) -> Result<()> {
        let name = worker.name();
        for master in &self.masters {
            let given = self.given_to(master, record);
            let turn = self.last.contains(master);
            ensure!(!given.is_empty() || !turn, "{name} gave {master} no connection");
            let answer = given.iter().find(|attempt| attempt.succeeded());
            ensure!(answer.is_none(), "{master} hides nothing: {answer:?}");
        }
        Ok(())
    }

    fn given_to<'a>(&self, master: &str, record: &'a Record) -> Vec<&'a Attempt> {
        let given = |attempt: &&Attempt| {
            attempt.server.as_deref() == Some(master) && attempt.at >= self.from && attempt.end() < self.to
        };
        record.attempts().iter().filter(given).collect()
    }
}

/// No member was Down but while its own apiserver was restarted, hidden or not.
fn never_down(worker: &Host, health: &Seen, restarts: &[Restart]) -> Result<()> {
    for Restart { master, from, to } in restarts {
        let mut states = health.states_between(master, Timestamp::MIN, *from);
        states.extend(health.states_between(master, *to, Timestamp::MAX));
        ensure!(
            states.contains("Up") && !states.contains("Down"),
            "{}: {master} was {states:?}",
            worker.name()
        );
    }
    Ok(())
}

/// Every connection got a whole answer, and none other than that or a refusal to talk to strangers.
fn was_served(worker: &Host, record: &Record) -> Result<()> {
    let name = worker.name();
    let cut = record.unanswered();
    ensure!(
        cut.is_empty(),
        "{name}: {} got no answer, the first: {:?}",
        cut.len(),
        cut.first()
    );
    let stranger = |attempt: &&&Attempt| {
        let said = attempt.error.as_deref().unwrap_or_default();
        attempt.outcome == Outcome::NotOk && !said.starts_with("401") && !said.starts_with("403")
    };
    let failed = record.failed();
    let other = failed.iter().find(stranger);
    ensure!(other.is_none(), "{name}: another answer: {other:?}");
    Ok(())
}

fn publish(worker: &Host, record: &Record, health: &Seen, hidings: &[Hiding]) {
    say(format!(
        "{}: {} of {} connections got no answer, {} were told that strangers are told nothing",
        worker.name(),
        record.unanswered().len(),
        record.attempts().len(),
        record.failed().len() - record.unanswered().len(),
    ));
    for hiding in hidings {
        let given = hiding.masters.iter().map(|master| {
            let given = hiding.given_to(master, record);
            let states = health.states_of(master);
            format!("{master} {} (all the time {states:?})", given.len())
        });
        let given: Vec<_> = given.collect();
        say(format!(
            "  while {} hid: {}",
            hiding.masters.join(", "),
            given.join(", ")
        ));
    }
}
