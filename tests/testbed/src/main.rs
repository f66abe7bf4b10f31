//! The testbed's commands as a separate program, for work on the testbed itself.

use std::process::ExitCode;

use clap::Parser as _;
use trivet_testbed::cli::Testbed;

fn main() -> ExitCode {
    match Testbed::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
