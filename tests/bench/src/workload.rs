//! The workloads: what is run through one peer, and what is read from it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::load::Outcome;
use crate::measure;
use crate::metric::Metric;
use crate::peers::{Peer, Running};

/// The proxy's CPU where throughput and CPU are measured.
const PROXY_CPU: usize = 0;

/// The CPU of client and server, and of all three where latency is measured: to wake another CPU costs more on a virtual
/// machine than all that we want to compare.
pub(crate) const CLIENT_CPU: usize = 1;

/// Until the last FIN has been answered and its CPU is counted.
const SETTLE: Duration = Duration::from_millis(50);

/// Until a proxy has given back what it gives back by a timer.
const SETTLE_MEMORY: Duration = Duration::from_secs(2);

const MIB: f64 = 1024.0 * 1024.0;

/// One thing that a peer is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// One plain stream as fast as it goes: CPU and throughput.
    Bulk,
    /// Lists of 20 MiB over HTTP/2 and TLS: CPU.
    Lists,
    /// A round trip of 64 bytes: latency.
    Echo,
    /// Small HTTP/2 requests on ten connections: CPU.
    Requests,
    /// Connect, say a byte, close: CPU.
    Churn,
    /// Small requests while others list at 4 Gb/s: latency.
    Noisy,
    /// Thousands of idle connections: memory and files.
    Idle,
}

/// How much is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) repetitions: usize,
    /// Of [`Workload::Idle`], which starts a fresh proxy each time.
    pub(crate) idle_repetitions: usize,
    bulk_bytes: u64,
    lists: u64,
    rounds: u64,
    requests: u64,
    churn: u64,
    seconds: u64,
}

impl Size {
    pub(crate) fn of(quick: bool) -> Self {
        let full = Self {
            repetitions: 7,
            idle_repetitions: 3,
            bulk_bytes: 2_000_000_000,
            lists: 16,
            rounds: 10_000,
            requests: 800,
            churn: 2_000,
            seconds: 3,
        };
        if !quick {
            return full;
        }
        Self {
            repetitions: 3,
            idle_repetitions: 1,
            bulk_bytes: 1_000_000_000,
            seconds: 2,
            ..full
        }
    }
}

/// What every client is told.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) program: PathBuf,
    pub(crate) authority: PathBuf,
    pub(crate) size: Size,
    /// The limit of open files of every process.
    pub(crate) files: u64,
}

impl Workload {
    /// Whether it says anything about this peer.
    pub(crate) fn concerns(self, peer: Peer) -> bool {
        match peer {
            Peer::Direct => matches!(self, Self::Bulk | Self::Lists | Self::Echo | Self::Noisy),
            // It is about the cost of a byte, a message and a connection.
            Peer::Bare => !matches!(self, Self::Noisy | Self::Idle),
            // Splicing is about bulk only.
            Peer::HaproxySplice => matches!(self, Self::Bulk | Self::Lists),
            Peer::Trivet | Peer::Haproxy | Peer::Nginx | Peer::Envoy | Peer::GoLoadbalancer => true,
        }
    }

    /// Whether each repetition needs a proxy that has just started.
    pub(crate) fn needs_fresh(self) -> bool {
        self == Self::Idle
    }

    /// Runs it through a peer.
    pub(crate) fn run(self, clients: &Clients, peer: &Running) -> Result<Vec<(Metric, f64)>> {
        let size = clients.size;
        peer.pin(if self == Self::Echo { CLIENT_CPU } else { PROXY_CPU })?;
        match self {
            Self::Bulk => clients.counted(peer, &["bulk", &size.bulk_bytes.to_string()], |run| {
                vec![
                    (Metric::BulkRate, run.outcome.amount / run.outcome.seconds / 1e9),
                    (Metric::BulkCpu, run.cpu_each() * 1e9),
                ]
            }),
            Self::Lists => clients.counted(peer, &["lists", &size.lists.to_string()], |run| {
                vec![
                    (Metric::ListRate, run.outcome.amount / run.outcome.seconds / 1e9),
                    (Metric::ListCpu, run.cpu_each() * 1e9),
                ]
            }),
            Self::Echo => clients.counted(peer, &["echo", &size.rounds.to_string()], |run| {
                vec![(Metric::EchoMedian, run.outcome.p50 * 1e6)]
            }),
            Self::Requests => clients.counted(peer, &["requests", &size.requests.to_string()], |run| {
                vec![(Metric::RequestCpu, run.cpu_each() * 1e6)]
            }),
            Self::Churn => clients.counted(peer, &["churn", &size.churn.to_string()], |run| {
                vec![(Metric::ChurnCpu, run.cpu_each() * 1e6)]
            }),
            Self::Noisy => clients.noisy(peer),
            Self::Idle => clients.idle(peer),
        }
    }
}

/// What a client did and what that cost the proxy.
struct Counted {
    outcome: Outcome,
    /// None without a proxy.
    cpu: Option<Duration>,
}

impl Counted {
    /// Seconds of CPU for each unit of the client's amount; not a number without a proxy.
    fn cpu_each(&self) -> f64 {
        self.cpu
            .map_or(f64::NAN, |cpu| cpu.as_secs_f64() / self.outcome.amount)
    }
}

impl Clients {
    /// Runs one client and counts the proxy's CPU meanwhile. Measures that are not a number are left out.
    fn counted(
        &self,
        peer: &Running,
        what: &[&str],
        read: impl FnOnce(&Counted) -> Vec<(Metric, f64)>,
    ) -> Result<Vec<(Metric, f64)>> {
        let family = peer.family()?;
        let used = || family.as_deref().map(measure::cpu).transpose();
        let before = used()?;
        let outcome = finish(self.start(peer.address, what)?)?;
        sleep(SETTLE);
        let cpu = before
            .zip(used()?)
            .map(|(before, after)| after.saturating_sub(before));
        let mut metrics = read(&Counted { outcome, cpu });
        metrics.retain(|(_, value)| value.is_finite());
        Ok(metrics)
    }

    fn noisy(&self, peer: &Running) -> Result<Vec<(Metric, f64)>> {
        let seconds = self.size.seconds;
        let others = self.start(peer.address, &["bursts", &(seconds + 1).to_string()])?;
        // The first bursts open the windows.
        sleep(Duration::from_millis(500));
        let outcome = finish(self.start(peer.address, &["paced", &seconds.to_string()])?)?;
        finish(others)?;
        Ok(vec![(Metric::NoisyTail, outcome.p99 * 1e3)])
    }

    #[expect(clippy::cast_precision_loss, reason = "megabytes and some thousand files")]
    fn idle(&self, peer: &Running) -> Result<Vec<(Metric, f64)>> {
        let Some(family) = peer.family()? else {
            return Ok(Vec::new());
        };
        sleep(SETTLE_MEMORY);
        let look =
            || Ok::<_, anyhow::Error>((measure::memory(&family)? as f64, measure::files(&family)? as f64));
        let (base_memory, base_files) = look()?;
        let connections = peer.peer.capacity(self.files);
        let mut client = self.start(peer.address, &["idle", &connections.to_string()])?;
        wait_until_open(&mut client)?;
        sleep(SETTLE);
        let (full_memory, full_files) = look()?;
        drop(client.stdin.take());
        let outcome = finish(client)?;
        sleep(SETTLE_MEMORY);
        let (left_memory, _) = look()?;
        let mut metrics = vec![
            (Metric::BaseMemory, base_memory / MIB),
            (
                Metric::IdleMemory,
                (full_memory - base_memory) / outcome.amount / 1e3,
            ),
            (Metric::IdleFiles, (full_files - base_files) / outcome.amount),
        ];
        // What is left of fewer connections says nothing beside what is left of all.
        if connections == Peer::Trivet.capacity(self.files) {
            metrics.extend([
                (Metric::LeftMemory, left_memory / MIB),
                (Metric::KeptMemory, (left_memory - base_memory) / MIB),
            ]);
        }
        Ok(metrics)
    }

    fn start(&self, address: SocketAddr, what: &[&str]) -> Result<Child> {
        client(&self.program, address, &self.authority)
            .args(what)
            .spawn()
            .context("failed to start a client")
    }
}

fn client(program: &Path, address: SocketAddr, authority: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["load", "--address", &address.to_string()]);
    command.args(["--cpu", &CLIENT_CPU.to_string(), "--authority"]);
    command.arg(authority);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Byte by byte, so that nothing of what follows is taken.
fn wait_until_open(client: &mut Child) -> Result<()> {
    let output = client.stdout.as_mut().context("a client without output")?;
    let mut line = String::new();
    BufReader::with_capacity(1, output).read_line(&mut line)?;
    // A client that failed has said why; it is told when it is finished.
    if line.trim() != "open" && !line.is_empty() {
        bail!("a client said {line:?}");
    }
    Ok(())
}

fn finish(client: Child) -> Result<Outcome> {
    let output = client.wait_with_output().context("lost a client")?;
    ensure!(
        output.status.success(),
        "a client ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(said.trim()).with_context(|| format!("a client said {said:?}"))
}
