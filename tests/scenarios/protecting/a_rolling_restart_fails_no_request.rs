//! Every apiserver is restarted, one after the other, as an upgrade does: SIGTERM, five seconds in which it says that it
//! ends, the end, and a new one. Not one request fails, of strangers nor of client-go.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::sleep;
use trivet_instruments::eventually;
use trivet_testbed::Component;
use trivet_tests::attempts::{self, LOOPBACKS};
use trivet_tests::installation::Installation;
use trivet_tests::proxies::metrics;
use trivet_tests::real_client::RealClient;
use trivet_tests::say::say;

const NAMESPACE: &str = "rolling-restart";

/// New connections a second from each worker.
const RATE: u32 = 20;

/// Two good probes, one a second, and some slack for a busy machine.
const BACK: Duration = Duration::from_secs(30);

/// Before the first restart, and after the last.
const QUIET: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_all_apiservers_fails_no_request() -> Result<()> {
    let installation = Installation::protecting().await?;
    installation.masters_ready().await?;
    installation.fresh_namespace(NAMESPACE).await?;
    let workers = installation.workers();
    let client = installation.client()?.asking("/version");
    let attempts: Vec<_> = workers
        .iter()
        .zip(LOOPBACKS)
        .map(|(worker, loopback)| attempts::start(worker, &client, loopback, RATE))
        .collect();
    let real = match workers.first() {
        Some(worker) => RealClient::start(&installation, worker, NAMESPACE).await?,
        None => anyhow::bail!("there is no worker"),
    };

    sleep(QUIET).await;
    let restarted = restart_all(&installation).await;
    sleep(QUIET).await;

    let told = real.finish().await?;
    for (worker, attempts) in workers.iter().zip(attempts) {
        let record = attempts.finish().await?;
        let name = worker.name().to_string();
        say(format!(
            "{name}: {} of {} connections failed, {} slower than 1 s, longest gap {:.2} s",
            record.failed().len(),
            record.attempts().len(),
            record.slow().len(),
            record.longest_gap().as_secs_f32()
        ));
        record.all_succeeded(&name)?;
        ensure!(
            record.servers().len() == installation.masters().len(),
            "{name}: only {:?} answered",
            record.servers()
        );
    }
    restarted?;
    let summary = told.summary()?;
    say(format!("client-go: {:?}", summary.writes));
    for failure in &told.failures {
        say(format!(
            "  {} {}: {} ({})",
            failure.at, failure.who, failure.what, failure.error
        ));
    }
    ensure!(
        told.failures.is_empty(),
        "{} requests of client-go failed",
        told.failures.len()
    );
    for (index, informer) in summary.informers.iter().enumerate() {
        say(format!("informer {index}: {informer:?}"));
        ensure!(
            informer.missed == 0 && informer.relists == 0,
            "informer {index} lost something: {informer:?}"
        );
    }
    installation
        .tools()
        .kubectl(&format!("delete namespace {NAMESPACE} --wait=false"))
        .await?;
    Ok(())
}

async fn restart_all(installation: &Installation) -> Result<()> {
    for master in installation.masters() {
        let name = master.clone();
        let start = tokio::time::Instant::now();
        installation
            .disturb(move |cluster| cluster.restart(&name, Component::KubeApiserver, &[]))
            .await?;
        say(format!(
            "{master}: restarted in {:.1} s",
            start.elapsed().as_secs_f32()
        ));
        for worker in installation.workers() {
            eventually(BACK, &format!("{master} Up on {}", worker.name()), async || {
                let states = metrics(&worker).await?.states();
                ensure!(
                    states.get(&master).is_some_and(|state| state == "Up"),
                    "{states:?}"
                );
                Ok(())
            })
            .await?;
        }
    }
    Ok(())
}
