//! The commands behind `make`: generation, the test suite, the testbed and the demo, in plain Rust.

mod bench;
#[cfg(test)]
mod promises;
mod scenarios;
mod suite;
mod test_run;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use trivet_testbed::{Progress, images, setup};

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
    /// Run all checks and tests; those on the real cluster need root and install what is missing.
    Test {
        /// Run only these scenarios of tests/scenarios, by name or part of it; the cluster stays.
        #[arg(value_name = "SCENARIO", conflicts_with_all = ["tier", "keep"])]
        scenarios: Vec<String>,
        /// The parts to run.
        #[arg(long, value_enum, default_value = "all")]
        tier: suite::Tier,
        /// Leave the cluster running afterwards.
        #[arg(long)]
        keep: bool,
    },
    /// Run what is too long for every day: outages of minutes, thousands of seeds, and a day of churn (root).
    Soak {
        /// For how long connections come and go.
        #[arg(long, default_value_t = 24)]
        hours: u32,
    },
    /// Build the operator's and the proxy's images as tars, for `ctr images import` or `docker load`.
    Images {
        /// The tag to give them.
        #[arg(long, default_value = trivet_testbed::images::VERSION)]
        tag: String,
    },
    /// Build `kubectl trivet` as one static program, and print its path.
    Plugin,
    /// Show a real cluster losing masters, without Trivet and with it; the cluster stays (root).
    Demo,
    /// Measure the proxy beside HAProxy, nginx, Envoy and go-loadbalancer, and the operator at 5,000 nodes, and write
    /// docs/benchmarks.md and docs/scale.md (root; a quarter of an hour).
    #[command(disable_help_flag = true)]
    Bench {
        /// See `cargo xtask bench --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        arguments: Vec<OsString>,
    },
    /// The testbed: a real multi-master cluster on this machine.
    Testbed(trivet_testbed::cli::Testbed),
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
        Command::Gen { check } => suite::generate(root, check),
        Command::Test {
            scenarios,
            tier,
            keep,
        } if scenarios.is_empty() => suite::run(root, tier, keep),
        Command::Test { scenarios, .. } => suite::alone(root, &scenarios),
        Command::Soak { hours } => suite::soak(root, hours),
        Command::Images { tag } => print_images(&tag),
        Command::Plugin => print_plugin(),
        Command::Demo => demo(root),
        Command::Bench { arguments } => bench::run(root, &arguments),
        Command::Testbed(testbed) => testbed.run(),
    }
}

fn print_images(tag: &str) -> anyhow::Result<()> {
    let progress = Progress::new();
    setup::packages(&progress)?;
    for image in images::build_tagged(&progress, tag)? {
        println!("{}", image.display());
    }
    Ok(())
}

fn print_plugin() -> anyhow::Result<()> {
    let progress = Progress::new();
    setup::packages(&progress)?;
    println!("{}", images::program(&progress, "kubectl-trivet")?.display());
    Ok(())
}

/// The demo shares its parts with the scenarios, whose crate is large: it is built only when it is asked for.
fn demo(root: &Path) -> anyhow::Result<()> {
    setup::packages(&Progress::new())?;
    let mut cargo = setup::cargo();
    cargo.args([
        "run",
        "--quiet",
        "--package",
        "trivet-tests",
        "--bin",
        "trivet-demo",
    ]);
    let status = cargo.current_dir(root).status()?;
    anyhow::ensure!(status.success(), "the demo ended with {status}");
    Ok(())
}
