//! The program: reads the command line and runs one command.

mod cli;
mod inquiry;
mod printing;
mod retirement;
mod standby;
mod stop;

use std::{io, panic, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use clap::{Parser, error::ErrorKind};
use tokio::runtime::{Builder, Runtime};
use tracing::{error, info};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use self::{
    cli::{Check, Cli, Command, Probe, RunArguments},
    stop::Stop,
};
use crate::{
    admin::{self, BindError},
    api::Credentials,
    app::{self, ExposedMetrics},
    balance::place::Place,
    clock,
    document::{self, seed::Seed},
    handover::driver,
    log::{self, LogFormat},
    metrics::Metrics,
    systemd::Service,
};

/// `EX_USAGE` of sysexits: an invalid flag or file.
const USAGE: u8 = 64;

/// Below kubelet's shortest probe timeout of 1 s, so that kubelet shows the reason.
const PROBE_LIMIT: Duration = Duration::from_millis(900);

/// How many polls run between two looks at the kernel's events. A relay's turn may take 100 µs, and with the default of
/// 61 new connections could wait for milliseconds. A smaller number costs more system calls per small message.
const POLLS_BETWEEN_IO: u32 = 16;

/// Runs the command that the command line names, and says how this process ends.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let done = match cli.command {
        Command::Run(run) => forward(*run),
        Command::Probe(probe) => ask(probe),
        Command::Check(check) => verify(&check),
        Command::Status(status) => runtime().and_then(|runtime| inquiry::status(&runtime, status)),
        Command::Manifest(manifest) => printing::manifest(*manifest),
        Command::WriteManifest(write) => standby::write(*write),
        Command::RemoveManifest(remove) => standby::remove(&remove),
        Command::RemoveStandby(remove) => retirement::remove_standby(&remove),
        Command::RemoveState(remove) => retirement::remove_state(&remove),
        Command::Hold => hold(),
        Command::Explain(explain) => runtime().and_then(|runtime| inquiry::explain(&runtime, explain)),
    };
    done.unwrap_or_else(|error| {
        eprintln!("trivet-proxy: {error:#}");
        ExitCode::FAILURE
    })
}

fn usage(error: &clap::Error) -> ExitCode {
    let helped = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if let Err(failed) = error.print() {
        eprintln!("trivet-proxy: {failed}");
    }
    if helped {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(USAGE)
    }
}

fn forward(run: RunArguments) -> Result<ExitCode> {
    let filter = match run.log_level.parse::<Targets>() {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!(
                "trivet-proxy: --log-level {:?} must be a level or a list of directives: {error}",
                run.log_level
            );
            return Ok(ExitCode::from(USAGE));
        }
    };
    if run.config.is_none() && run.cache_dir.is_none() && run.seed.is_none() {
        eprintln!(
            "trivet-proxy: --config, --cache-dir or --seed must be given: nothing else says where the apiservers are"
        );
        return Ok(ExitCode::from(USAGE));
    }
    // Before the log has a thread and the runtime a file.
    let service = match Service::take(|name| std::env::var_os(name), std::process::id()) {
        Ok(service) => service,
        Err(error) => {
            eprintln!("trivet-proxy: {:#}", anyhow::Error::from(error));
            return Ok(ExitCode::from(USAGE));
        }
    };
    let stop = Stop::listen()?;
    let metrics = Arc::new(Metrics::default());
    let _log = start_log(filter, run.log_format, Arc::clone(&metrics))?;
    let node = match run.node_name {
        Some(name) => name,
        None => nix::unistd::gethostname()
            .context("failed to read the host's name")?
            .to_string_lossy()
            .into_owned(),
    };
    let credentials = Credentials {
        token_file: run.token_file.clone(),
        authority_file: run.ca_file.clone(),
    };
    let exposed = run.metrics_node_addresses.map(|addresses| ExposedMetrics {
        addresses,
        credentials,
    });
    let config = app::Config {
        file: run.config,
        seed: run.seed.map(Seed::new),
        cache: run.cache_dir,
        watch: run.watch.map(|target| document::watch::ConfigMapTarget {
            namespace: target.namespace,
            name: target.name,
            token_file: run.token_file.clone(),
            authority_file: run.ca_file,
        }),
        token_file: Some(run.token_file),
        place: Place { node, zone: run.zone },
        socket: run.socket,
        metrics: run.metrics_address,
        exposed,
        service,
        handover: run.handover_dir.map(|directory| driver::Config {
            directory,
            pool: run.pool,
            class: run.class.into(),
            template: run.template,
            generation: run.template_generation,
        }),
    };
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        info!(version = env!("CARGO_PKG_VERSION"), ?config, "starting");
        let bound = match app::bind(config, metrics).await {
            Err(app::Error::Socket(error @ BindError::NotASocket(_))) => {
                eprintln!("trivet-proxy: {error}");
                return Ok(ExitCode::from(USAGE));
            }
            bound => bound?,
        };
        bound.run(stop.requested()).await;
        Ok(ExitCode::SUCCESS)
    });
    // Not dropped: a drop would wait for a write to a disk that hangs.
    runtime.shutdown_background();
    done
}

fn ask(probe: Probe) -> Result<ExitCode> {
    let answer = admin::probe(probe.socket, probe.question, PROBE_LIMIT);
    let (agrees, words) = runtime()?.block_on(answer)?;
    println!("{words}");
    Ok(if agrees {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn hold() -> Result<ExitCode> {
    let stop = Stop::listen()?;
    runtime()?.block_on(stop.requested());
    Ok(ExitCode::SUCCESS)
}

fn verify(check: &Check) -> Result<ExitCode> {
    let text = std::fs::read_to_string(&check.file)
        .with_context(|| format!("failed to read {}", check.file.display()))?;
    match document::read(&text, clock::unix_seconds()) {
        Ok(settings) => {
            let document = &settings.document;
            let members = document.members.len();
            println!(
                "ok: pool {:?}, revision {}, {members} members",
                document.pool, document.revision
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(rejection) => {
            eprintln!(
                "{}: {}: {}",
                check.file.display(),
                rejection.reason,
                rejection.message
            );
            Ok(ExitCode::from(USAGE))
        }
    }
}

/// A runtime of one thread.
fn runtime() -> Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .event_interval(POLLS_BETWEEN_IO)
        .build()
        .context("failed to start the runtime")
}

fn start_log(filter: Targets, format: LogFormat, metrics: Arc<Metrics>) -> Result<log::LogGuard> {
    let (writer, guard) = log::start(io::stderr(), metrics).context("failed to start the log")?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        // They would go to standard error directly.
        .log_internal_errors(false);
    match format {
        LogFormat::Text => registry.with(lines.with_ansi(false)).init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
    }
    // The default hook writes to standard error directly and would block on its reader.
    panic::set_hook(Box::new(|panic| error!(panic = panic.to_string(), "panicked")));
    Ok(guard)
}
