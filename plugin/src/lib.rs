//! `kubectl trivet`: what a pool's status means, what is wrong and what to do, and what an edit would do.
//!
//! `read` reads the cluster; findings, differences and tables are pure. Only `drain` and `retire` write, and only
//! `spec.members` of a pool. The plugin imports the operator for its plan, and no part of a running operator.

pub mod access;
pub mod cli;
pub mod doctor;
pub mod drain;
#[cfg(test)]
mod krew;
mod output;
pub mod plan;
pub mod read;
pub mod report;
pub mod status;

use std::process::ExitCode;

use clap::Parser;

use crate::access::Cluster;
use crate::cli::{Cli, Command};
use crate::output::Screen;

/// `EX_USAGE` of sysexits: the command line is wrong, or names what is not there.
const BAD_USAGE: u8 = 64;

/// Something is wrong with the cluster, or the spec is refused.
const WRONG: u8 = 2;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Fine,
    /// The command has done its work and found something wrong.
    Wrong,
}

/// A flag, name or file that the command cannot use.
#[derive(Debug)]
pub struct BadUsage(pub String);

impl std::fmt::Display for BadUsage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadUsage {}

/// Runs the command line.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // There is nowhere to report that stdout is closed.
            error.print().ok();
            return if error.use_stderr() {
                ExitCode::from(BAD_USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match execute(cli) {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Wrong) => ExitCode::from(WRONG),
        Err(error) => {
            eprintln!("error: {}", output::chain(&error));
            if error.chain().any(<dyn std::error::Error>::is::<BadUsage>) {
                ExitCode::from(BAD_USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn execute(cli: Cli) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let screen = Screen::of(&cli.access);
        let cluster = Cluster::find(&cli.access).await?;
        // Each command is a large future; only one of them runs.
        match cli.command {
            Command::Status(flags) => Box::pin(status::run(&cluster, &screen, flags)).await,
            Command::Doctor(flags) => Box::pin(doctor::run(&cluster, &screen, flags)).await,
            Command::Plan(flags) => Box::pin(plan::run(&cluster, &screen, flags)).await,
            Command::Drain(flags) => Box::pin(drain::run_drain(&cluster, &screen, flags)).await,
            Command::Retire(flags) => Box::pin(drain::run_retire(&cluster, &screen, flags)).await,
            Command::Report(flags) => Box::pin(report::run(&cluster, &screen, flags)).await,
        }
    });
    // A DNS lookup that is still under way may be dropped.
    runtime.shutdown_background();
    outcome
}
