//! `trivet-proxy remove-standby` and `trivet-proxy remove-state`: what is left of a retired pool on its nodes goes.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use tokio::time::sleep;

use super::{
    cli::{StandbyArguments, StateArguments},
    runtime,
    standby::{
        stopped, take_away, tell,
        wait::{Wait, Waited},
    },
    stop::Stop,
};
use crate::{
    cause,
    manifest::{
        directory::ManifestDirectory,
        leftovers::{self, Leftovers},
        retirement::{proxy_remains, standby_remains},
    },
};

/// How long nobody must serve before the files go. Kubelet starts a proxy that has ended by itself within a second or two, and it
/// would only have to learn anew what it has lost.
const STEADY: Duration = Duration::from_secs(5);

/// The longest wait for that between two lines that say what is waited for.
const PATIENCE: Duration = Duration::from_secs(600);

/// The pause after the files are gone: a proxy that was only restarted makes new ones.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Removes the manifests, and waits for the end of the standbys.
pub(super) fn remove_standby(arguments: &StandbyArguments) -> Result<ExitCode> {
    let stop = Stop::listen()?;
    let directory = ManifestDirectory::open(&arguments.directory)?;
    let manifests = directory.manifests(&arguments.pool)?;
    take_away(&directory, &manifests)?;
    directory.remove_temporaries(&arguments.pool)?;
    let wait = Wait {
        handover_dir: &arguments.handover_dir,
        within: Duration::from_secs(arguments.wait_seconds),
        steady: Duration::ZERO,
    };
    let waited = wait.until(standby_remains, ToString::to_string);
    match runtime()?.block_on(stopped(waited, stop)) {
        None => {
            println!("interrupted: standbys may be left");
            Ok(ExitCode::FAILURE)
        }
        Some(Waited::Done) => {
            println!("no standby of pool {} is left", arguments.pool);
            Ok(ExitCode::SUCCESS)
        }
        Some(Waited::Overdue(remains)) => {
            let told = format!("after {} s {remains}", arguments.wait_seconds);
            tell(&arguments.termination_log, &told);
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Removes what the proxies leave, once they have ended, until SIGTERM.
pub(super) fn remove_state(arguments: &StateArguments) -> Result<ExitCode> {
    let leftovers = Leftovers::of(&arguments.pool, &arguments.cache_root, &arguments.run_root);
    if arguments.check {
        return check(&leftovers);
    }
    let stop = Stop::listen()?;
    runtime()?.block_on(stopped(remove(&leftovers), stop));
    Ok(ExitCode::SUCCESS)
}

fn check(leftovers: &Leftovers) -> Result<ExitCode> {
    let left = leftovers.left().context("failed to look for what is left")?;
    if left.is_empty() {
        println!("nothing is left");
        return Ok(ExitCode::SUCCESS);
    }
    let left: Vec<_> = left.iter().map(|path| path.display().to_string()).collect();
    println!("left: {}", left.join(", "));
    Ok(ExitCode::FAILURE)
}

async fn remove(leftovers: &Leftovers) {
    let wait = Wait {
        handover_dir: leftovers.run(),
        within: PATIENCE,
        steady: STEADY,
    };
    loop {
        match wait.until(proxy_remains, ToString::to_string).await {
            Waited::Overdue(remains) => println!("still waiting: {remains}"),
            Waited::Done => {
                say(&leftovers.remove());
                sleep(LOOK_AGAIN).await;
            }
        }
    }
}

fn say(removed: &Result<Vec<&std::path::Path>, leftovers::Error>) {
    match removed {
        Ok(removed) => {
            for path in removed {
                println!("removed {}", path.display());
            }
        }
        // It is tried again, and kubelet shows that the pod is not ready.
        Err(error) => println!("{}", cause::chain(error)),
    }
}
