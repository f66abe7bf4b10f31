//! A master that hears but cannot be heard, or the other way round, is as one without network; and one that a single node
//! cannot reach is silent for that node alone, whatever the operator sees.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::Api;
use kube::api::ListParams;
use tokio::time::sleep;
use trivet_crds::report::{ProxyReport, ReportedHealth};
use trivet_instruments::eventually;
use trivet_testbed::{Direction, Fault};
use trivet_tests::installation::{Installation, POOL, condition};
use trivet_tests::say::say;
use trivet_tests::silence::{gives_connections_to, publish, silence};

/// docs/testbed.md, F10 as F2: its connections are cut by then.
const DETECTED: Duration = Duration::from_millis(2800);

/// docs/testbed.md, F10 as F2: clients that were cut are served again by then.
const RECOVERED: Duration = Duration::from_secs(4);

/// Past the moment by which every client must be served again.
const LASTS: Duration = Duration::from_secs(6);

/// docs/testbed.md, F10: the report of the node shows it by then.
const SHOWN: Duration = Duration::from_secs(5);

/// The operator's own probes, and its way to the API if that was through the master; no promise, only the
/// limit of this test.
const OPERATOR_SEES: Duration = Duration::from_secs(60);

/// From the report of a node to the pool's status: the operator notices a dead apiserver within ten seconds, lists the
/// reports anew through another one, and makes a pass.
const TOLD: Duration = Duration::from_secs(15);

/// Twice what a proxy is allowed to take to follow a new document, if there were one.
const FOLLOWED: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn a_one_way_partition_is_a_partition() -> Result<()> {
    let installation = Installation::protecting().await?;
    let masters = installation.other_masters();
    // One for each way, so that none is held down for its second fall.
    ensure!(masters.len() >= 2, "two masters are needed beside the first");
    for (direction, master) in [Direction::In, Direction::Out].into_iter().zip(&masters) {
        say(format!("{master}: packets are lost one way ({direction:?})"));
        let faults = vec![(master.clone(), Fault::Cut(direction))];
        let witnesses = silence(&installation, master, faults, async {
            sleep(LASTS).await;
            Ok(())
        })
        .await?;

        publish(&witnesses);
        for witness in &witnesses {
            witness.was_cut_within(DETECTED)?;
            witness.lost_no_new_connection()?;
            witness.was_served_again_within(RECOVERED)?;
            witness.spared_the_others()?;
            witness.took_it_back()?;
        }
    }
    installation.nodes_ready().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_one_node_and_the_operator_see_is_nobody_elses() -> Result<()> {
    let installation = Installation::protecting().await?;
    let operators = installation.operators("cp1").await?;
    let operators: Vec<_> = operators.into_iter().map(|operator| operator.node).collect();
    let leader = operators.first().context("no operator leads")?.clone();
    let masters = installation.other_masters();
    let master = masters.iter().find(|master| **master != leader);
    let master = master.context("no master is left to be cut off from")?;
    let workers = installation.workers();
    // One host for both where the operator that leads runs on a worker.
    let struck = workers.iter().find(|worker| worker.name().to_string() == leader);
    let struck = struck.or(workers.first()).context("there is no worker")?;
    let struck = struck.name().to_string();
    // The other operators too, because one of them may lead before the end; but no second worker.
    let mut hosts = vec![struck.clone()];
    for host in operators {
        let is_worker = workers.iter().any(|worker| worker.name().to_string() == host);
        if host != *master && !is_worker {
            hosts.push(host);
        }
    }
    say(format!(
        "{} cannot reach {master}; the operator that leads runs on {leader}",
        hosts.join(" and ")
    ));

    let revision = installation.config_revision().await?;
    let from = installation.cluster().host(master)?.name();
    let faults = hosts.iter().map(|host| (host.clone(), Fault::Sever(from)));
    let witnesses = silence(&installation, master, faults.collect(), async {
        matrix_shows(&installation, master, &hosts).await?;
        operator_hears_nothing(&installation, master).await?;
        pool_names(&installation, master, &struck).await?;
        sleep(FOLLOWED).await;
        let spared = workers
            .iter()
            .filter(|worker| worker.name().to_string() != struck);
        for worker in spared {
            gives_connections_to(&installation, worker, master).await?;
        }
        Ok(())
    })
    .await?;

    publish(&witnesses);
    for witness in &witnesses {
        if witness.worker == struck {
            witness.was_cut_within(DETECTED)?;
            witness.lost_no_new_connection()?;
            witness.was_served_again_within(RECOVERED)?;
            witness.spared_the_others()?;
            witness.took_it_back()?;
        } else {
            witness.noticed_nothing()?;
        }
    }
    ensure!(
        witnesses.len() >= 2,
        "no worker was left that still reaches {master}"
    );
    let now = installation.config_revision().await?;
    ensure!(
        now == revision,
        "what the operator saw became revision {now} for everybody"
    );
    installation.nodes_ready().await
}

/// `kubectl get apr` shows the master Down on these hosts, and Up on all others.
async fn matrix_shows(installation: &Installation, master: &str, struck: &[String]) -> Result<()> {
    let reports: Api<ProxyReport> = Api::all(installation.kubernetes("cp1").await?);
    eventually(SHOWN, "the reports of the nodes show it", async || {
        let reports = reports.list(&ListParams::default()).await?.items;
        let of_pool = reports.iter().filter(|report| report.content.pool_name == POOL);
        let mut down = Vec::new();
        for report in of_pool {
            let mut members = report.content.members.iter();
            let member = members.find(|member| member.name == master);
            let health = member.context("a report lacks the master")?.health;
            if health != ReportedHealth::Up {
                down.push(report.content.node_name.clone());
            }
        }
        down.sort();
        let mut expected = struck.to_vec();
        expected.sort();
        ensure!(down == expected, "{master} is not Up on {down:?}");
        Ok(())
    })
    .await?;
    let table = installation.tools().kubectl("get apr").await?;
    say(&table);
    for host in struck {
        let row = table
            .lines()
            .find(|line| line.starts_with(&format!("{POOL}.{host} ")));
        let row = row.with_context(|| format!("no row of {host}"))?;
        ensure!(row.contains(&format!("{master} Down")), "{row}");
    }
    Ok(())
}

async fn operator_hears_nothing(installation: &Installation, master: &str) -> Result<()> {
    let pools = installation.pools("cp1").await?;
    eventually(
        OPERATOR_SEES,
        "the operator hears nothing of the master",
        async || {
            let status = pools.get(POOL).await?.status.unwrap_or_default();
            let member = status.members.iter().find(|member| member.name == master);
            let message = &member.context("it is no member any more")?.message;
            ensure!(message.contains("as seen from the operator"), "{message:?}");
            Ok(())
        },
    )
    .await
}

/// The pool says which node cannot reach the master, and how many can; soon, though the operator's own watch of the
/// reports may be among the connections that were severed.
async fn pool_names(installation: &Installation, master: &str, struck: &str) -> Result<()> {
    let words = format!("{master} is not Up on ");
    eventually(TOLD, "the pool names the node", async || {
        let status = installation.pool_status().await?;
        let available = condition(&status, "MembersAvailable")?;
        ensure!(
            available.status == "False"
                && available.reason == "NotUpOnSomeNodes"
                && available.message.contains(&words)
                && available.message.contains(&format!("{struck} (Down)")),
            "{available:?}"
        );
        let mut members = status.members.iter();
        let member = members.find(|member| member.name == master);
        let member = member.context("it is no member any more")?;
        ensure!(
            0 < member.reachable_nodes && member.reachable_nodes < member.reporting_nodes,
            "{member:?}"
        );
        Ok(())
    })
    .await
}
