//! `anonymous-auth=false`: an apiserver that tells strangers nothing, not even whether it is ready, is alive and is given
//! connections, be it alone among others or as all of them. To the proxy's token it tells its readiness: without etcd, or
//! while it ends, it gets no new connection, as any other.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::{join_all, try_join_all};
use jiff::Timestamp;
use tokio::time::sleep;
use trivet_instruments::eventually;
use trivet_instruments::{Attempt, Attempts, Outcome, Record};
use trivet_testbed::{Component, Fault, Host};
use trivet_tests::attempts::{self, LOOPBACKS};
use trivet_tests::health::{Health, Seen};
use trivet_tests::held::{Connection, Held};
use trivet_tests::installation::Installation;
use trivet_tests::proxies::metrics;
use trivet_tests::say::say;

/// What a hardened cluster has.
const HIDDEN: &str = "anonymous-auth=false";

/// New connections a second from each worker.
const RATE: u32 = 20;

/// From each worker, so that every master has some of them.
const HELD: usize = 12;

/// From each worker to the masters that were restarted, so that their ends have something to cut; few, so that it stays
/// their turn.
const FRESH: usize = 4;

/// Five good probes, one a second, and some slack for a busy machine; one that fell lately is held down for some seconds.
const BACK: Duration = Duration::from_secs(150);

/// Long enough for more than two probes of every node, and for eighty connections.
const LOOK_ON: Duration = Duration::from_secs(4);

/// Until every proxy has probed an apiserver that is ready again: two probes, one a second.
const PROBED: Duration = Duration::from_secs(2);

/// docs/testbed.md, F24 as F6: by then a master without etcd gets no new connection.
const WITHOUT_ETCD: Duration = Duration::from_secs(10);

/// An apiserver that is told to end says so, and goes on accepting, for five seconds (`--shutdown-delay-duration`): until
/// then only its own word tells that it is not ready. A second is for reading two clocks on a busy machine.
const ENDING: Duration = Duration::from_secs(4);

/// Past the time for which it accepts.
const ENDED: Duration = Duration::from_secs(7);

/// What it takes a busy machine to read a clock in two programs.
const READING: Duration = Duration::from_millis(250);

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

/// A time in which a master that hid its readiness was not ready.
struct Ailing {
    master: String,
    what: &'static str,
    from: Timestamp,
    to: Timestamp,
    /// How soon the proxies must know.
    known: Duration,
}

/// What happened, and when.
#[derive(Default)]
struct Events {
    hidings: Vec<Hiding>,
    restarts: Vec<Restart>,
    ailings: Vec<Ailing>,
    /// Connections of each worker that were opened when all masters hid.
    fresh: Vec<Vec<Connection>>,
}

/// A worker's clients at work, and its proxy under observation.
struct Watched {
    held: Held,
    attempts: Attempts,
    health: Health,
}

/// What one worker went through.
struct Ordeal {
    worker: String,
    held: Vec<Connection>,
    record: Record,
    health: Seen,
}

#[tokio::test(flavor = "multi_thread")]
async fn masters_that_hide_their_readiness_are_never_down_and_are_given_connections() -> Result<()> {
    let installation = Installation::protecting().await?;
    let one = installation.masters().pop().context("there is no master")?;
    // Before anything is measured, so that it may die: to end gracefully takes a quarter of a minute.
    replace(&installation, &one, &[HIDDEN]).await?;
    let (workers, mut watched) = (installation.workers(), Vec::new());
    for worker in &workers {
        all_up(worker).await?;
    }
    for (worker, [to, and]) in workers.iter().zip([LOOPBACKS, [LOOPBACKS[1], LOOPBACKS[0]]]) {
        let client = installation.client()?.asking("/version");
        watched.push(Watched {
            held: Held::open(worker, &client, and, HELD).await?,
            attempts: attempts::start(worker, &client, to, RATE),
            health: Health::watch(worker),
        });
    }

    let events = ail_and_hide(&installation, &one).await;

    // All of them end, also when something went wrong, and before anything is judged.
    let mut ordeals = Vec::new();
    for (worker, watched) in workers.iter().zip(watched) {
        ordeals.push(Ordeal {
            worker: worker.name().to_string(),
            held: watched.held.finish().await?,
            record: watched.attempts.finish().await?,
            health: watched.health.finish().await?,
        });
    }
    // Whatever was seen: the next scenario needs masters that tell.
    let shown = show_all(&installation).await;
    let mut events = events?;
    for (ordeal, fresh) in ordeals.iter_mut().zip(std::mem::take(&mut events.fresh)) {
        ordeal.held.extend(fresh);
    }
    for ordeal in &ordeals {
        ordeal.publish(&events);
    }
    for ordeal in &ordeals {
        ordeal.was_served()?;
        ordeal.never_down(&events.restarts)?;
        for hiding in &events.hidings {
            ordeal.saw_all_up(hiding, &installation.masters())?;
            ordeal.used(hiding)?;
        }
        for ailing in &events.ailings {
            ordeal.left(ailing)?;
        }
    }
    shown?;
    installation.nodes_ready().await
}

/// One hides, loses etcd and has it back; all hide; another one ends.
async fn ail_and_hide(installation: &Installation, one: &str) -> Result<Events> {
    let mut others = installation.masters();
    others.retain(|master| master != one);
    let mut events = Events::default();
    let alone = vec![one.to_owned()];
    let alone = look_on(installation, alone.clone(), alone).await?;
    events.hidings.push(alone);
    events.ailings.push(lose_etcd(installation, one).await?);
    // At once: meanwhile the one that hides is all that is left.
    let further = others
        .iter()
        .map(|master| restart(installation, master, &[HIDDEN]));
    events.restarts.extend(try_join_all(further).await?);
    let all = look_on(installation, installation.masters(), others.clone()).await?;
    events.hidings.push(all);
    let mut fresh = Vec::new();
    for (worker, to) in installation.workers().iter().zip(LOOPBACKS) {
        fresh.push(Held::open(worker, &installation.client()?, to, FRESH).await?);
    }
    // One whose turn it is: only its readiness keeps new connections away.
    let ended = others.last().context("there is only one master")?;
    events.ailings.push(end(installation, ended).await?);
    for held in fresh {
        events.fresh.push(held.finish().await?);
    }
    Ok(events)
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

/// Cuts a master's etcd off from the others for as long as it takes to see that it is left, and heals it.
async fn lose_etcd(installation: &Installation, master: &str) -> Result<Ailing> {
    let (cut, healed) = (master.to_owned(), master.to_owned());
    let isolate = installation.disturb(move |cluster| cluster.inject(&cut, Fault::Isolate));
    isolate.await?;
    let from = Timestamp::now();
    sleep(WITHOUT_ETCD + LOOK_ON).await;
    let to = Timestamp::now();
    installation.disturb(move |cluster| cluster.heal(&healed)).await?;
    for worker in installation.workers() {
        all_up(&worker).await?;
    }
    Ok(Ailing {
        master: master.to_owned(),
        what: "without etcd",
        from,
        to,
        known: WITHOUT_ETCD,
    })
}

/// Ends a master's apiserver, which is dead afterwards.
async fn end(installation: &Installation, master: &str) -> Result<Ailing> {
    let (ended, from) = (master.to_owned(), Timestamp::now());
    installation
        .disturb(move |cluster| cluster.end(&ended, Component::KubeApiserver, ENDED))
        .await?;
    Ok(Ailing {
        master: master.to_owned(),
        what: "told to end",
        from,
        to: from.checked_add(ENDING)?,
        known: ENDING,
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

/// Takes the flag back, two masters first and then the one. They are killed: nothing is measured any more.
async fn show_all(installation: &Installation) -> Result<()> {
    let mut others = installation.masters();
    let one: Vec<_> = others.pop().into_iter().collect();
    let mut outcomes = Vec::new();
    // One of the two is dead already if all went well.
    for some in [others, one] {
        outcomes.extend(join_all(some.iter().map(|master| replace(installation, master, &[]))).await);
    }
    // All were tried, also when one failed.
    outcomes.into_iter().collect()
}

/// Kills an apiserver and starts it with these flags.
async fn replace(installation: &Installation, master: &str, flags: &[&str]) -> Result<()> {
    let name = master.to_owned();
    installation
        .disturb(move |cluster| cluster.kill(&name, Component::KubeApiserver.program()))
        .await?;
    restart(installation, master, flags).await.map(drop)
}

impl Ordeal {
    /// A master that hides its readiness is as good as one that tells it.
    fn saw_all_up(&self, hiding: &Hiding, masters: &[String]) -> Result<()> {
        for master in masters {
            let states = self.health.states_between(master, hiding.from, hiding.to);
            ensure!(
                states == ["Up"].into(),
                "{}: while {} hid, {master} was {states:?}",
                self.worker,
                hiding.masters.join(", ")
            );
        }
        Ok(())
    }

    fn used(&self, hiding: &Hiding) -> Result<()> {
        let name = &self.worker;
        for master in &hiding.masters {
            let given = self.given_to(master, hiding.from, hiding.to);
            let turn = hiding.last.contains(master);
            ensure!(!given.is_empty() || !turn, "{name} gave {master} no connection");
            let answer = given.iter().find(|attempt| attempt.succeeded());
            ensure!(answer.is_none(), "{master} hides nothing: {answer:?}");
        }
        Ok(())
    }

    /// A master that is not ready is found Unready, gets no new connection from then on, and keeps those that it has.
    fn left(&self, ailing: &Ailing) -> Result<()> {
        let (
            Ailing {
                master,
                what,
                from,
                to,
                ..
            },
            worker,
        ) = (ailing, &self.worker);
        let unready = self.unready(ailing);
        let unready = unready.with_context(|| format!("{worker} never found {master}, {what}, Unready"))?;
        ensure!(
            unready <= from.checked_add(ailing.known)?,
            "{worker} found {master}, {what}, Unready late"
        );
        let states = self.health.states_between(master, unready, *to);
        ensure!(
            states == ["Unready"].into(),
            "{worker}: {master}, {what}, was {states:?}"
        );
        let late = self.given_to(master, unready.checked_add(READING)?, *to);
        ensure!(
            late.is_empty(),
            "{worker} gave {master}, {what}, {} new connections though it was Unready: {:?}",
            late.len(),
            late.first()
        );
        let held = self.held.iter().filter(|held| held.server == *master);
        let (mut had, mut cut) = (0, Vec::new());
        for held in held {
            match &held.ended {
                Some((at, _)) if *at < *from => {}
                Some((at, why)) if *at < *to => cut.push(why),
                Some(_) | None => had += 1,
            }
        }
        ensure!(
            cut.is_empty(),
            "{worker}: connections to {master}, {what}, ended: {cut:?}"
        );
        ensure!(had > 0, "{worker} held no connection to {master}");
        Ok(())
    }

    fn unready(&self, ailing: &Ailing) -> Option<Timestamp> {
        let unready = self.health.first(&ailing.master, "Unready", ailing.from);
        unready.filter(|unready| *unready < ailing.to)
    }

    /// The connections that a master was given and that were over, all of it from one moment to another.
    fn given_to(&self, master: &str, from: Timestamp, to: Timestamp) -> Vec<&Attempt> {
        let given = |attempt: &&Attempt| {
            attempt.server.as_deref() == Some(master) && attempt.at >= from && attempt.end() < to
        };
        self.record.attempts().iter().filter(given).collect()
    }

    /// No member was Down but while its own apiserver was restarted, hidden or not.
    fn never_down(&self, restarts: &[Restart]) -> Result<()> {
        for Restart { master, from, to } in restarts {
            let mut states = self.health.states_between(master, Timestamp::MIN, *from);
            states.extend(self.health.states_between(master, *to, Timestamp::MAX));
            ensure!(
                states.contains("Up") && !states.contains("Down"),
                "{}: {master} was {states:?}",
                self.worker
            );
        }
        Ok(())
    }

    /// Every connection got a whole answer, and none other than that or a refusal to talk to strangers.
    fn was_served(&self) -> Result<()> {
        let name = &self.worker;
        let cut = self.record.unanswered();
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
        let failed = self.record.failed();
        let other = failed.iter().find(stranger);
        ensure!(other.is_none(), "{name}: another answer: {other:?}");
        Ok(())
    }

    fn publish(&self, events: &Events) {
        let (worker, record) = (&self.worker, &self.record);
        say(format!(
            "{worker}: {} of {} connections got no answer, {} were told that strangers are told nothing",
            record.unanswered().len(),
            record.attempts().len(),
            record.failed().len() - record.unanswered().len(),
        ));
        for hiding in &events.hidings {
            let given = hiding.masters.iter().map(|master| {
                let given = self.given_to(master, hiding.from, hiding.to);
                let states = self.health.states_of(master);
                format!("{master} {} (all the time {states:?})", given.len())
            });
            let given: Vec<_> = given.collect();
            say(format!(
                "  while {} hid: {}",
                hiding.masters.join(", "),
                given.join(", ")
            ));
        }
        for ailing in &events.ailings {
            let Ailing {
                master,
                what,
                from,
                to,
                ..
            } = ailing;
            let unready = self.unready(ailing);
            say(format!(
                "  {master}, {what}: Unready after {:.1} s; {} new connections until then, {} later",
                unready.map_or(f32::NAN, |at| at.duration_since(*from).as_secs_f32()),
                self.given_to(master, *from, unready.unwrap_or(*to)).len(),
                self.given_to(master, unready.unwrap_or(*to), *to).len(),
            ));
        }
    }
}
