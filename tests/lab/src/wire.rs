//! Bare places on a wire, without proxy and apiservers: for what one thread does with the network of a node.

use std::{fs::File, panic, path::Path, thread};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};

use crate::{
    network::{self, Network, Place},
    process,
};

/// Places, each with its own network. Dropping it removes them.
#[derive(Debug)]
pub struct Wire {
    network: Network,
}

impl Wire {
    /// Lays cables to these places.
    pub fn lay(places: &[Place]) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "a wire joins network namespaces and must be laid by root: try again with sudo"
        );
        let network = Network::lay(places)?;
        Ok(Self { network })
    }

    /// Does this at a place. Sockets that it makes belong to that place for ever, so it may return them.
    pub fn at<T: Send>(&self, place: Place, work: impl FnOnce() -> T + Send) -> Result<T> {
        enter(&self.network.path(place), work)
    }

    /// Pulls the cable of a place, or plugs it in again.
    pub fn plug(&self, place: Place, plugged: bool) -> Result<()> {
        let state = if plugged { "up" } else { "down" };
        let arguments = ["link", "set", "dev", &place.name(), state];
        let work = move || process::output("ip", &arguments);
        enter(&network::path(&self.network.wire()), work)?.map(drop)
    }

    /// Runs a program at a place, and returns what it prints.
    pub fn run(&self, place: Place, program: &str, arguments: &[&str]) -> Result<String> {
        self.at(place, || process::output(program, arguments))?
    }
}

/// Does this in a network namespace, on a thread of its own.
fn enter<T: Send>(namespace: &Path, work: impl FnOnce() -> T + Send) -> Result<T> {
    let open = File::open(namespace).with_context(|| format!("failed to open {}", namespace.display()))?;
    let inside = || {
        setns(open, CloneFlags::CLONE_NEWNET).context("failed to enter a network namespace")?;
        Ok(work())
    };
    thread::scope(|scope| {
        scope
            .spawn(inside)
            .join()
            .unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    })
}
