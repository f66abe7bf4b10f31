//! Measures the proxy as shipped beside its peers, on this machine, in one interleaved run, and the operator in a large cluster,
//! and writes what it found.
//!
//! The driver starts a server, the peers and, for each run, a client: all processes of their own, so that each can be
//! pinned and its CPU read from the kernel. They live in a network namespace that ends with them.

mod authority;
mod bare;
mod cli;
mod driver;
mod load;
mod machine;
mod measure;
mod metric;
mod network;
mod peers;
mod process;
mod report;
mod samples;
mod scale;
mod server;
mod statistics;
mod targets;
mod workload;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use self::cli::{Cli, Command, Options, Scale};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        None => everything(&cli.options),
        Some(Command::Scale(scale)) => scale::run(&scale),
        Some(Command::Serve(serve)) => server::run(&serve),
        Some(Command::Bare(bare)) => bare::run(&bare),
        Some(Command::Load(load)) => load::run(&load),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The data path, and after a whole run of it the control path.
fn everything(options: &Options) -> Result<()> {
    driver::run(options)?;
    if options.is_whole() {
        scale::run(&Scale::default())?;
    }
    Ok(())
}
