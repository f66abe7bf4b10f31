//! The commands behind `make`: generation, the test suite, the testbed and the demo, in plain Rust.

mod generate;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Everything that is done with Trivet's sources. `make help` shows the usual entries.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the files that follow from the code: the CRD in crds/ and in the chart.
    Gen {
        /// Write nothing; fail if a file is not what would be written.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."));
    match arguments.command {
        Command::Gen { check } => generate::run(root, check),
    }
}
