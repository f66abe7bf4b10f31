//! The operator: keeps each ApiserverPool's wire document and proxies in step with its spec and the nodes.

use std::process::ExitCode;

use clap::Parser;
use trivet_operator::app;
use trivet_operator::cli::{Cli, Command};
use trivet_operator::{logging, retire};

/// `EX_USAGE` of sysexits: the command line is wrong, so a restart does not help.
const BAD_USAGE: u8 = 64;

fn main() -> ExitCode {
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
    let outcome = match cli.command {
        Command::Run(run) => {
            logging::start(run.log_level, run.log_format);
            app::run(run)
        }
        Command::Retire(retire) => {
            logging::start(retire.log_level, retire.log_format);
            retire::command::run(&retire)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "operator ends");
            ExitCode::FAILURE
        }
    }
}
