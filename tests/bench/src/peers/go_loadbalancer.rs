//! siderolabs/go-loadbalancer, the library in Talos' KubePrism, in a program of ours that is built once and cached.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use trivet_testbed::Progress;
use trivet_testbed::binaries;

use super::{SERVER, Setting};

/// The program, which is its configuration too: a library is told what to do by who calls it.
pub(super) const PROGRAM: &str = include_str!("../../peers/go-loadbalancer/main.go");

/// The program in the cache, built if it is not there.
pub(super) fn ensure(progress: &Progress) -> Result<PathBuf> {
    binaries::for_bench(progress)
        .context("go-loadbalancer cannot be built from its Go modules here; `--peers` can leave it out")
}

pub(super) fn command(setting: &Setting, listen: SocketAddr) -> Command {
    let mut command = Command::new(&setting.fetched.go_loadbalancer);
    command.args([listen.to_string(), SERVER.to_string()]);
    command
}
