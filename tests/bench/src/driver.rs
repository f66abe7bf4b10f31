//! One run: prepares the machine, starts the peers, goes through workloads and repetitions, reports.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use trivet_testbed::{Progress, Stopwatch, images, setup};

use crate::authority::Authority;
use crate::cli::{Options, Output};
use crate::machine::{self, Machine};
use crate::measure;
use crate::metric::Metric;
use crate::network;
use crate::peers::{self, Peer, Running, SERVER, Setting};
use crate::process::Process;
use crate::report::{Report, page, terminal};
use crate::samples::Samples;
use crate::workload::{CLIENT_CPU, Clients, Size, Workload};

/// What the peers come from; the files are looked for, the packages installed.
const PACKAGES: [(&str, &str); 4] = [
    ("haproxy", "haproxy"),
    ("nginx", "nginx"),
    (
        "/usr/lib/nginx/modules/ngx_stream_module.so",
        "libnginx-mod-stream",
    ),
    ("python3", "python3-pip"),
];

/// Measures and reports.
pub(crate) fn run(options: &Options) -> Result<()> {
    let progress = Progress::new();
    let watch = Stopwatch::start();
    let plan = Plan::new(options);
    let directory = tempfile::tempdir().context("failed to make a directory for this run")?;
    let setting = prepare(&progress, options, &plan, directory.path())?;
    network::enter()?;
    let before = (machine::load(), machine::stolen());
    let mut server = start_server(&setting)?;
    server.wait_until(|| TcpStream::connect(SERVER).is_ok())?;
    measure::pin(&server.family()?, CLIENT_CPU)?;
    let mut bench = Bench {
        clients: Clients {
            program: std::env::current_exe().context("failed to find this program")?,
            authority: setting.authority.bundle.clone(),
            size: plan.size,
            files: setting.files,
        },
        setting: &setting,
        progress: &progress,
        samples: Samples::default(),
    };
    bench.run(&plan)?;
    let samples = bench.samples;
    let report = Report {
        samples,
        machine: Machine::look(),
        load: (before.0, machine::load()),
        stolen: before
            .1
            .zip(machine::stolen())
            .map(|(before, after)| after - before),
        versions: versions(&plan.peers, &setting)?,
        configurations: configurations(&plan.peers, &setting),
        files: setting.files,
        size: plan.size,
        quick: options.quick,
        taken: watch.elapsed(),
    };
    publish(&progress, options, &plan, &report)
}

/// What is run.
struct Plan {
    workloads: Vec<Workload>,
    peers: Vec<Peer>,
    size: Size,
    whole: bool,
}

impl Plan {
    fn new(options: &Options) -> Self {
        use clap::ValueEnum as _;
        let chosen = |all: &[Workload]| {
            if options.rows.is_empty() {
                all.to_vec()
            } else {
                options.rows.clone()
            }
        };
        let workloads = chosen(Workload::value_variants());
        // Ours is what all are compared with, and latency is what is added to direct.
        let needed = [Peer::Direct, Peer::Trivet];
        let wanted =
            |peer: &Peer| options.peers.is_empty() || options.peers.contains(peer) || needed.contains(peer);
        Self {
            workloads,
            peers: Peer::ALL.into_iter().filter(wanted).collect(),
            size: Size::of(options.quick),
            whole: options.is_whole(),
        }
    }
}

fn prepare(progress: &Progress, options: &Options, plan: &Plan, directory: &Path) -> Result<Setting> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    ensure!(
        cpus >= 2,
        "two CPUs are needed, one for the proxy and one for its client and server"
    );
    setup::tools(progress, &PACKAGES)?;
    let trivet = if let Some(path) = &options.proxy {
        path.clone()
    } else {
        setup::packages(progress)?;
        images::program(progress, "trivet-proxy")?
    };
    let fetched = peers::fetch(progress, &plan.peers)?;
    let files = raise_files()?;
    Ok(Setting {
        directory: directory.to_owned(),
        trivet,
        fetched,
        authority: Authority::create(directory)?,
        files,
    })
}

/// Raises our limit of open files, which our children inherit, and says what it is.
fn raise_files() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("failed to raise the limit of open files")?;
    Ok(hard.min(1 << 20))
}

fn start_server(setting: &Setting) -> Result<Process> {
    let program = std::env::current_exe().context("failed to find this program")?;
    let mut command = Command::new(program);
    command.args(["serve", "--address", &SERVER.to_string(), "--certificate"]);
    command.arg(&setting.authority.certificate);
    command.arg("--key").arg(&setting.authority.key);
    Process::start("server", &command, &setting.directory)
}

struct Bench<'run> {
    clients: Clients,
    setting: &'run Setting,
    progress: &'run Progress,
    samples: Samples,
}

impl Bench<'_> {
    fn run(&mut self, plan: &Plan) -> Result<()> {
        let (fresh, kept): (Vec<_>, Vec<_>) = plan
            .workloads
            .iter()
            .copied()
            .partition(|workload| workload.needs_fresh());
        if !kept.is_empty() {
            let peers = plan
                .peers
                .iter()
                .map(|peer| Running::start(*peer, self.setting))
                .collect::<Result<Vec<_>>>()?;
            for repetition in 0..plan.size.repetitions {
                for workload in &kept {
                    self.repetition(*workload, repetition, &peers)?;
                }
            }
        }
        for workload in fresh {
            for repetition in 0..plan.size.idle_repetitions {
                for peer in in_turn(&plan.peers, repetition).filter(|peer| workload.concerns(**peer)) {
                    let running = Running::start(*peer, self.setting)?;
                    self.sample(workload, repetition, &running)?;
                }
            }
        }
        Ok(())
    }

    fn repetition(&mut self, workload: Workload, repetition: usize, peers: &[Running]) -> Result<()> {
        let watch = Stopwatch::start();
        for peer in in_turn(peers, repetition).filter(|running| workload.concerns(running.peer)) {
            self.sample(workload, repetition, peer)?;
        }
        self.progress.done(
            format_args!("repetition {} of {workload:?}", repetition + 1),
            &watch,
        );
        Ok(())
    }

    fn sample(&mut self, workload: Workload, repetition: usize, peer: &Running) -> Result<()> {
        let name = peer.peer.name();
        let metrics: Vec<(Metric, f64)> = workload
            .run(&self.clients, peer)
            .with_context(|| format!("failed to measure {workload:?} of {name}"))?;
        for metric in metrics {
            self.samples.add(peer.peer, repetition, metric);
        }
        Ok(())
    }
}

/// In reverse on odd repetitions: what comes first, or last, is not always the same.
fn in_turn<T>(peers: &[T], repetition: usize) -> Box<dyn Iterator<Item = &T> + '_> {
    if repetition.is_multiple_of(2) {
        Box::new(peers.iter())
    } else {
        Box::new(peers.iter().rev())
    }
}

fn versions(peers: &[Peer], setting: &Setting) -> Result<Vec<(Peer, String)>> {
    let mut versions = Vec::new();
    for peer in peers {
        versions.extend(peer.version(setting)?.map(|version| (*peer, version)));
    }
    Ok(versions)
}

/// As they were, but for the directory, which nobody else has.
fn configurations(peers: &[Peer], setting: &Setting) -> Vec<(Peer, String)> {
    let directory = setting.directory.display().to_string();
    let shown = peers.iter().filter(|peer| **peer != Peer::HaproxySplice);
    shown
        .filter_map(|peer| {
            Some((
                *peer,
                peer.configuration(setting)?.replace(&directory, "DIRECTORY"),
            ))
        })
        .collect()
}

fn publish(progress: &Progress, options: &Options, plan: &Plan, report: &Report) -> Result<()> {
    match options.output {
        Output::Text => print!("{}", terminal(report)?),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report.to_json())?),
    }
    let path = match &options.page {
        Some(path) => path.clone(),
        None if plan.whole => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/benchmarks.md"),
        None => return Ok(()),
    };
    fs::write(&path, page(report)?).with_context(|| format!("failed to write {}", path.display()))?;
    progress.done(format_args!("wrote {}", path.display()), &Stopwatch::start());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_repetitions_go_the_other_way() {
        let order = |repetition| in_turn(&[1, 2, 3], repetition).copied().collect::<Vec<_>>();
        assert_eq!(order(0), [1, 2, 3]);
        assert_eq!(order(1), [3, 2, 1]);
    }
}
