//! Measures the proxy as shipped beside its peers, on this machine, in one interleaved run, and writes what it found.
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
mod server;
mod statistics;
mod targets;
mod workload;

use std::process::ExitCode;

use clap::Parser;

use self::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        None => driver::run(&cli.options),
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
