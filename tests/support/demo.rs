//! `make demo`: the promises shown to a person, in a few minutes, on a real cluster.
//!
//! It measures with the same code as the tests, and prints more.

mod edit;
mod reboot;

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use crate::attempts::{self, LOOPBACKS};
use crate::fault::Fault;
use crate::installation::{CHART, EMPTY_POOL, Installation, NAMESPACE, POOL, RELEASE, Server};
use crate::outage::{Clients, Measured, Until, busiest_master, outage};
use crate::say::{chapter, output, say, shell};
use crate::table::{Row, Table};

/// Long enough to see that nothing recovers by itself.
const SHORT: Duration = Duration::from_secs(30);

/// For one outage: long enough for the cluster to mark its workers NotReady.
const UNTIL_NOT_READY: Duration = Duration::from_secs(150);

/// Several Lease periods.
const WITH_TRIVET: Duration = Duration::from_secs(45);

/// Runs the demo. The cluster stays, with Trivet on it.
pub async fn demo() -> Result<()> {
    let start = Instant::now();
    chapter("A real cluster: three masters, two workers");
    say(
        "Real etcds, apiservers, kubelets and container runtimes, each host a set of namespaces on this machine.",
    );
    let installation = Installation::bare().await?;
    output(&installation.tools().kubectl("get nodes --output wide").await?);

    let without = without_trivet(&installation).await?;
    install(&installation).await?;
    let with = with_trivet(&installation).await?;
    edit::members(&installation).await?;
    reboot::all(&installation).await?;

    chapter(format!(
        "What the faults did (the demo took {} min)",
        start.elapsed().as_secs().div_ceil(60)
    ));
    let rows = without.into_iter().zip(with).map(|((fault, without), with)| Row {
        fault,
        without: Some(without),
        with: Some(with),
    });
    output(&Table(rows.collect()).to_string());
    say(
        "A gap is the longest time in which a worker got no answer at all; a node renews its Lease to show that it is alive.",
    );
    farewell();
    Ok(())
}

async fn without_trivet(installation: &Installation) -> Result<Vec<(Fault, Measured)>> {
    let master = "cp1";
    chapter("Without Trivet");
    say(format!(
        "The kubelets of both workers are given one apiserver, {master}'s, as kubeadm does. We let three things"
    ));
    say(
        "happen to it, one after the other. Each worker opens 20 new connections a second; every one is counted.",
    );
    let mut measured = Vec::new();
    for fault in Fault::USUAL {
        installation.nodes_ready().await?;
        let until = if fault == Fault::Stop {
            Until::NotReady {
                then: Duration::ZERO,
                limit: UNTIL_NOT_READY,
            }
        } else {
            Until::Passed(SHORT)
        };
        if fault == Fault::Stop {
            say(
                "This time we wait until the cluster marks its workers NotReady, about 55 s: it will evict their pods.",
            );
        }
        let clients = Clients::of_all(installation, &Server::Master(master.to_owned()));
        let outcome = outage(installation, fault, master, clients, until)
            .await?
            .without_trivet()?;
        say(format!("→ {outcome}"));
        measured.push((fault, outcome));
    }
    installation.nodes_ready().await?;
    Ok(measured)
}

async fn install(installation: &Installation) -> Result<()> {
    let tools = installation.tools();
    chapter("Install Trivet: one chart, one object");
    let install = format!("install {RELEASE} {CHART} --namespace {NAMESPACE} --create-namespace");
    shell("helm install trivet charts/trivet --namespace trivet-system --create-namespace");
    tools.helm(&install).await?;
    shell("kubectl apply -f examples/pool-default.yaml    # spec: {}");
    output(&tools.apply(EMPTY_POOL).await?);
    shell("kubectl wait --for=condition=Ready asp/default");
    installation.pool_ready().await?;
    shell("kubectl get asp");
    output(&tools.kubectl(&format!("get asp {POOL}")).await?);
    installation.proxies_settled().await?;

    say("On every node 127.0.0.1:7443 and [::1]:7443 now lead to whichever apiservers are ready:");
    let client = installation.client()?;
    for host in installation.hosts() {
        for loopback in LOOPBACKS {
            let attempts = attempts::start(&host, &client, loopback, 20);
            tokio::time::sleep(Duration::from_millis(500)).await;
            let record = attempts.finish().await?;
            let servers: Vec<_> = record.servers().into_iter().collect();
            let answers = record.attempts().len() - record.failed().len();
            say(format!(
                "  {:<4} {:<15} {answers} answers by {}",
                host.name(),
                loopback.to_string(),
                servers.join(", ")
            ));
        }
    }
    say("Now the workers' kubelets and kube-proxies get `server: https://127.0.0.1:7443`.");
    installation.point_workers(&Server::Loopback).await?;
    installation.nodes_ready().await
}

async fn with_trivet(installation: &Installation) -> Result<Vec<Measured>> {
    chapter("The same faults, with Trivet");
    say(
        "Each hits the master that carries most of the workers' connections. New connections must succeed at once;",
    );
    say(
        "established ones to a silent master are cut within three seconds, so that kubelets reconnect and stay Ready.",
    );
    let mut measured = Vec::new();
    for fault in Fault::USUAL {
        installation.nodes_ready().await?;
        installation.proxies_settled().await?;
        let master = busiest_master(installation, &installation.workers()).await?;
        let (clients, until) = (
            Clients::of_all(installation, &Server::Loopback),
            Until::Passed(WITH_TRIVET),
        );
        let outcome = outage(installation, fault, &master, clients, until)
            .await?
            .with_trivet()?;
        say(format!("→ {outcome}"));
        measured.push(outcome);
    }
    installation.proxies_settled().await?;
    Ok(measured)
}

fn farewell() {
    chapter("The cluster is yours");
    for (command, what) in [
        (
            "eval \"$(cargo xtask testbed env)\"",
            "KUBECONFIG, kubectl and helm of this cluster",
        ),
        ("kubectl get asp -o wide", "the pool"),
        ("kubectl edit asp default", "add, drain or remove masters"),
        (
            "cargo xtask testbed stop cp2 kube-apiserver",
            "hang an apiserver; `cont` resumes it",
        ),
        (
            "cargo xtask testbed blackhole cp3",
            "cut a master off from the network; `heal` undoes it",
        ),
        (
            "cargo xtask testbed exec w1 -- curl -s 127.0.0.1:7444/metrics",
            "what a proxy sees",
        ),
        ("cargo xtask testbed --help", "every verb"),
        ("make down", "remove all of it"),
    ] {
        say(format!("{command:<63} # {what}"));
    }
}
