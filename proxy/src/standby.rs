//! `trivet-proxy write-manifest` and `trivet-proxy remove-manifest`: the standby's manifest in kubelet's directory.

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};
use trivet_proxy::{
    handover::inquiry,
    manifest::{
        self, Output, Platform, Standby,
        arrival::Arrival,
        directory::{self, ManifestDirectory},
        file::ManifestName,
        names::PoolName,
    },
};

use crate::{
    cli::{RemoveArguments, WriteArguments},
    runtime,
    stop::Stop,
};

/// How long the process that serves may take for its answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// The pause between two questions.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// The pause between two lines that say what is waited for.
const TELL_AGAIN: Duration = Duration::from_secs(5);

/// Writes the manifest, waits for its standby, and removes the manifests before it.
pub(crate) fn write(arguments: WriteArguments) -> Result<ExitCode> {
    let stop = Stop::listen()?;
    let RemoveArguments {
        directory: path,
        pool,
    } = arguments.place;
    let directory = ManifestDirectory::open(&path)?;
    let manifest = manifest::render(&Standby {
        pool: pool.clone(),
        image: arguments.image,
        namespace: arguments.namespace,
        seed: None,
        zone: arguments.zone.0,
        output: Output {
            metrics_address: arguments.metrics_address,
            log_level: Some(arguments.log_level),
            log_format: Some(arguments.log_format),
        },
        drain_timeout_seconds: arguments.drain_timeout_seconds,
        platform: Platform::Kubelet,
    })
    .context("failed to make the manifest")?;
    let name = manifest.name.file();
    let is_new = directory.write(&manifest)?;
    println!("{} {name}", if is_new { "wrote" } else { "unchanged:" });
    let older = older(&directory, &pool, &manifest.name)?;
    if is_new || !older.is_empty() {
        let within = Duration::from_secs(arguments.wait_seconds);
        let arrival = runtime()?.block_on(async {
            tokio::select! {
                arrival = arrival(&arguments.handover_dir, &manifest.name, within) => Some(arrival),
                () = stop.requested() => None,
            }
        });
        let Some(arrival) = arrival else {
            println!("interrupted: all manifests stay");
            return Ok(ExitCode::FAILURE);
        };
        if arrival != Arrival::Warm {
            println!("{}", overdue(&name, &arrival, within, &older));
            return Ok(ExitCode::SUCCESS);
        }
        println!("the standby of {name} is warm");
    }
    take_away(&directory, &older)?;
    directory.remove_temporaries(&pool)?;
    Ok(ExitCode::SUCCESS)
}

/// Removes all manifests of the pool.
pub(crate) fn remove(arguments: &RemoveArguments) -> Result<ExitCode> {
    let RemoveArguments {
        directory: path,
        pool,
    } = arguments;
    let directory = ManifestDirectory::open(path)?;
    let manifests = directory.manifests(pool)?;
    if manifests.is_empty() {
        println!("no manifest of pool {pool} is in {}", path.display());
    }
    take_away(&directory, &manifests)?;
    directory.remove_temporaries(pool)?;
    Ok(ExitCode::SUCCESS)
}

/// The manifests of the pool but this one.
fn older(
    directory: &ManifestDirectory,
    pool: &PoolName,
    name: &ManifestName,
) -> Result<Vec<ManifestName>, directory::Error> {
    let mut manifests = directory.manifests(pool)?;
    manifests.retain(|found| found != name);
    Ok(manifests)
}

fn take_away(directory: &ManifestDirectory, manifests: &[ManifestName]) -> Result<(), directory::Error> {
    for name in manifests {
        if directory.remove(name)? {
            println!("removed {}", name.file());
        }
    }
    Ok(())
}

/// Waits until the standby is warm, and no longer than this. Returns what was seen last.
async fn arrival(handover_dir: &Path, name: &ManifestName, within: Duration) -> Arrival {
    let started = Instant::now();
    let mut told = started;
    loop {
        let answer = inquiry::ask(handover_dir, ANSWER_LIMIT).await;
        let arrival = Arrival::of(answer.as_ref(), name.template());
        let waited = started.elapsed();
        if arrival == Arrival::Warm || waited >= within {
            return arrival;
        }
        if told.elapsed() >= TELL_AGAIN {
            told = Instant::now();
            println!(
                "waiting for the standby of {}, which {} ({} s of {} s)",
                name.file(),
                arrival.words(),
                waited.as_secs(),
                within.as_secs()
            );
        }
        sleep(ASK_AGAIN.min(within.saturating_sub(waited))).await;
    }
}

/// No failure: an older standby serves as well, and the writer must not be started again and again.
fn overdue(name: &str, arrival: &Arrival, within: Duration, older: &[ManifestName]) -> String {
    let kept = match older {
        [] => String::new(),
        older => {
            let older: Vec<_> = older.iter().map(ManifestName::file).collect();
            format!("; the older manifests stay: {}", older.join(", "))
        }
    };
    format!(
        "after {} s the standby of {name} {}{kept}; {}",
        within.as_secs(),
        arrival.words(),
        arrival.remedy()
    )
}
