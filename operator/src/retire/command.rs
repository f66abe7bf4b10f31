//! `trivet-operator retire`: finishes what `helm uninstall` leaves, where no operator runs any more.
//!
//! It refuses while a pool exists, and while a node uses its proxy: the administrator may have forgotten a node.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use kube::Client;
use tokio::time::{Instant, sleep};
use trivet_crds::data_plane_name;

use super::act::Actor;
use super::decision::{Busy, Stay, Step, Why, decide};
use super::facts::{Fleet, Owner};
use super::read::{self, Nodes};
use super::words::{progress, reason};
use super::{owned, take};
use crate::api::client::Access;
use crate::cli::Retire;
use crate::logging::chain;

/// The pause between two looks.
const LOOK: Duration = Duration::from_secs(2);

/// How much longer than `--retire-after-seconds` the reports of idle nodes may take: they come every five minutes, and later in
/// a cluster of more than 7,500 nodes.
const REPORTS_WAIT: Duration = Duration::from_secs(600);

/// How long the API server may be absent, or refuse, before the command gives up.
const FAILING: Duration = Duration::from_secs(300);

/// What follows from a look at one fleet.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Its step is taken.
    Go,
    /// It waits, because its idle time is not known to be long enough yet.
    Wait,
    /// There is nothing to retire.
    Done,
    /// It stays in use.
    Refuse(String),
}

/// Retires all proxies of the namespace, and returns when nothing is left.
pub fn run(retire: &Retire) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start")?;
    runtime.block_on(async {
        let client = Access::infer(retire.tls_server_name.clone()).await?.unfenced()?;
        retire_all(&client, retire).await
    })
}

async fn retire_all(client: &Client, retire: &Retire) -> anyhow::Result<()> {
    let begun = Instant::now();
    let wait = Duration::from_secs(retire.retire_after_seconds.into()) + REPORTS_WAIT;
    let mut told = BTreeMap::new();
    let mut good = begun;
    loop {
        match Box::pin(look(client, retire, begun.elapsed() >= wait, &mut told)).await {
            Ok(true) => {
                tracing::info!("no proxies are left");
                return Ok(());
            }
            Ok(false) => good = Instant::now(),
            Err(Failure::Refused(why)) => bail!("{why}"),
            Err(Failure::Retried(error)) if good.elapsed() >= FAILING => bail!("{error}"),
            Err(Failure::Retried(error)) => tracing::warn!(error, "a step failed and is tried again"),
        }
        sleep(LOOK).await;
    }
}

/// Why a look did not end well.
enum Failure {
    /// The proxies must stay.
    Refused(String),
    /// The API server was absent, or refused.
    Retried(String),
}

impl Failure {
    fn retried(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Retried(chain(error))
    }
}

/// Takes the next step of each fleet. Returns whether nothing is left to do.
async fn look(
    client: &Client,
    retire: &Retire,
    is_late: bool,
    told: &mut BTreeMap<String, String>,
) -> Result<bool, Failure> {
    let namespace = retire.namespace.as_str();
    let (fleets, pools) = read::all(client, namespace)
        .await
        .map_err(|error| Failure::retried(&error))?;
    if let Some(pool) = owned(&fleets, pools.as_ref()).first() {
        return Err(Failure::Refused(format!(
            "the pool {pool} exists, so its proxies stay: run kubectl delete asp {pool} first"
        )));
    }
    let nodes = Nodes::listed(client)
        .await
        .map_err(|error| Failure::retried(&error))?;
    let mut is_done = true;
    for fleet in fleets.into_values() {
        // An administrator who runs this command wants the retirement, also where the CRD is gone.
        let of_fleet = (fleet, Owner::Absent);
        let after = retire.retire_after_seconds;
        let facts = Box::pin(read::facts(client, namespace, of_fleet, &nodes, after)).await;
        let facts = facts.map_err(|error| Failure::retried(&error))?;
        let (fleet, step) = (&facts.fleet, decide(&facts));
        tell(told, fleet, &step);
        let actor = Actor { client, namespace };
        match take(&actor, fleet, &step, &nodes).await {
            Err(error) if !error.is_conflict() => return Err(Failure::retried(&error)),
            Ok(()) | Err(_) => {}
        }
        match verdict(namespace, fleet, &step, is_late) {
            Verdict::Done => {}
            Verdict::Go | Verdict::Wait => is_done = false,
            Verdict::Refuse(why) => return Err(Failure::Refused(why)),
        }
    }
    Ok(is_done)
}

fn verdict(namespace: &str, fleet: &Fleet, step: &Step, is_late: bool) -> Verdict {
    let (Step::Stay(stay) | Step::Undo(stay)) = step else {
        return Verdict::Go;
    };
    match stay {
        Stay::NoProxies => Verdict::Done,
        Stay::InUse(busy) if !is_late && !busy.iter().any(has_clients) => Verdict::Wait,
        Stay::InUse(_) | Stay::Owned | Stay::KindAbsent => Verdict::Refuse(format!(
            "the proxies of pool {} stay: {}; point the clients of these nodes at an apiserver, or, to retire the proxies all the \
             same, run kubectl -n {namespace} annotate daemonset {} trivet.dev/retire=now, and then this again",
            fleet.pool,
            reason(stay),
            data_plane_name(&fleet.pool),
        )),
    }
}

fn has_clients(busy: &Busy) -> bool {
    matches!(busy.why, Why::Clients(_))
}

fn tell(told: &mut BTreeMap<String, String>, fleet: &Fleet, step: &Step) {
    let Some(words) = progress(step) else {
        return;
    };
    let before = told.insert(fleet.pool.clone(), words.clone());
    if before.as_ref() != Some(&words) {
        tracing::info!(pool = fleet.pool, "{words}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_use(why: Why) -> Step {
        Step::Stay(Stay::InUse(vec![Busy {
            node: "w1".to_owned(),
            why,
        }]))
    }

    #[test]
    fn a_node_with_clients_is_refused_at_once_and_one_that_is_idle_is_waited_for() {
        let fleet = Fleet {
            pool: "default".to_owned(),
            ..Fleet::default()
        };
        let verdict = |step: &Step, is_late| verdict("trivet-system", &fleet, step, is_late);
        let Verdict::Refuse(why) = verdict(&in_use(Why::Clients(2)), false) else {
            panic!("it is not refused");
        };
        let command = "kubectl -n trivet-system annotate daemonset trivet-default trivet.dev/retire=now";
        assert!(
            why.contains("w1 (2 connections)") && why.contains(command),
            "{why}"
        );
        for why in [Why::IdleFor(3), Why::Unreported] {
            assert_eq!(verdict(&in_use(why), false), Verdict::Wait);
            assert!(matches!(verdict(&in_use(why), true), Verdict::Refuse(_)));
        }
        assert_eq!(verdict(&Step::Stay(Stay::NoProxies), true), Verdict::Done);
        assert_eq!(verdict(&Step::DeleteProxies, true), Verdict::Go);
    }
}
