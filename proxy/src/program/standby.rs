//! `trivet-proxy write-manifest` and `trivet-proxy remove-manifest`: the standby's manifest in kubelet's directory.

pub(super) mod wait;

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};

use self::wait::{Wait, Waited};
use super::{
    cli::{RemoveArguments, WriteArguments},
    runtime,
    stop::Stop,
};
use crate::{
    clock,
    document::seed::Seed,
    manifest::{
        self, Author, Output, Platform, Standby,
        arrival::Arrival,
        confinement::Confinement,
        directory::{self, ManifestDirectory},
        file::ManifestName,
        names::PoolName,
        retirement, seed,
    },
};

/// How long another proxy must serve in a row before the last manifest of a node is removed: one that is about to end, or
/// that crashes at its start, must not be taken for one that stays.
const STEADY: Duration = Duration::from_secs(3);

/// Writes the manifest, waits for its standby, and removes the manifests before it.
pub(crate) fn write(arguments: WriteArguments) -> Result<ExitCode> {
    let stop = Stop::listen()?;
    let place = arguments.place;
    let directory = ManifestDirectory::open(&place.directory)?;
    let manifest = manifest::render(&Standby {
        pool: place.pool.clone(),
        image: arguments.image,
        namespace: arguments.namespace,
        seed: seed(&arguments.document, &place.pool),
        author: Author::Writer,
        zone: arguments.zone.0,
        output: Output {
            metrics_address: arguments.metrics_address,
            log_level: Some(arguments.log_level),
            log_format: Some(arguments.log_format),
        },
        drain_timeout_seconds: arguments.drain_timeout_seconds,
        confinement: Confinement {
            app_armor: arguments.app_armor_profile,
            se_linux_type: arguments.se_linux_type.0,
            se_linux_level: arguments.se_linux_level.0,
        },
        platform: Platform::Kubelet,
    })
    .context("failed to make the manifest")?;
    let name = manifest.name.file();
    let is_new = directory.write(&manifest)?;
    println!("{} {name}", if is_new { "wrote" } else { "unchanged:" });
    let older = older(&directory, &place.pool, &manifest.name)?;
    if is_new || !older.is_empty() {
        let wait = Wait {
            handover_dir: &place.handover_dir,
            within: Duration::from_secs(place.wait_seconds),
            steady: Duration::ZERO,
        };
        let template = manifest.name.template();
        let progress = |arrival: &Arrival| format!("the standby of {name} {}", arrival.words());
        let waited = wait.until(|answer| Arrival::of(answer, template).unless_warm(), progress);
        match runtime()?.block_on(stopped(waited, stop)) {
            None => return Ok(interrupted()),
            Some(Waited::Overdue(arrival)) => {
                tell(
                    &place.termination_log,
                    &overdue(&name, &arrival, wait.within, &older),
                );
                // The older standby serves as well. With a failure kubelet runs the writer again, and the rollout of the
                // manifests stops. Without an older one a failure would tell nothing more: nothing is left to remove.
                return Ok(if older.is_empty() {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                });
            }
            Some(Waited::Done) => println!("the standby of {name} is warm"),
        }
    }
    take_away(&directory, &older)?;
    directory.remove_temporaries(&place.pool)?;
    Ok(ExitCode::SUCCESS)
}

/// The pool's document in this file as a seed. Without one the standby finds its document on the node's disk, so nothing that is
/// wrong with the file keeps the manifest away.
fn seed(file: &Path, pool: &PoolName) -> Option<Seed> {
    let place = file.display();
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            println!("the standby has no seed: failed to read --document {place}: {error}");
            return None;
        }
    };
    match seed::check(text, clock::unix_seconds()) {
        Ok(checked) if checked.pool == *pool => Some(checked.seed),
        Ok(checked) => {
            println!(
                "the standby has no seed: --document {place} is of pool {}, and --pool is {pool}",
                checked.pool
            );
            None
        }
        Err(error) => {
            println!("the standby has no seed: --document {place}: {error}");
            None
        }
    }
}

/// Removes all manifests of the pool, once the node has a proxy that stays.
pub(crate) fn remove(place: &RemoveArguments) -> Result<ExitCode> {
    let stop = Stop::listen()?;
    let directory = ManifestDirectory::open(&place.directory)?;
    let manifests = directory.manifests(&place.pool)?;
    if manifests.is_empty() {
        println!(
            "no manifest of pool {} is in {}",
            place.pool,
            place.directory.display()
        );
    } else {
        let wait = Wait {
            handover_dir: &place.handover_dir,
            within: Duration::from_secs(place.wait_seconds),
            steady: STEADY,
        };
        let waited = wait.until(retirement::obstacle, ToString::to_string);
        match runtime()?.block_on(stopped(waited, stop)) {
            None => return Ok(interrupted()),
            Some(Waited::Overdue(obstacle)) => {
                let kept: Vec<_> = manifests.iter().map(ManifestName::file).collect();
                let told = format!(
                    "after {} s {obstacle}; the manifests stay, because this node may have no other proxy: {}; {}",
                    place.wait_seconds,
                    kept.join(", "),
                    obstacle.remedy()
                );
                tell(&place.termination_log, &told);
                return Ok(ExitCode::FAILURE);
            }
            Some(Waited::Done) => {}
        }
    }
    take_away(&directory, &manifests)?;
    directory.remove_temporaries(&place.pool)?;
    Ok(ExitCode::SUCCESS)
}

/// The outcome, or none where SIGTERM comes first.
pub(super) async fn stopped<T>(waited: impl Future<Output = T>, stop: Stop) -> Option<T> {
    tokio::select! {
        waited = waited => Some(waited),
        () = stop.requested() => None,
    }
}

fn interrupted() -> ExitCode {
    println!("interrupted: all manifests stay");
    ExitCode::FAILURE
}

/// Says it in the log and in the status of the pod, where the operator reads it.
pub(super) fn tell(termination_log: &Path, sentence: &str) {
    println!("{sentence}");
    let written = OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(termination_log)
        .and_then(|mut file| file.write_all(sentence.as_bytes()));
    // Outside of a pod there is no such file.
    drop(written);
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

pub(super) fn take_away(
    directory: &ManifestDirectory,
    manifests: &[ManifestName],
) -> Result<(), directory::Error> {
    for name in manifests {
        if directory.remove(name)? {
            println!("removed {}", name.file());
        }
    }
    Ok(())
}

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
