//! The proxy under test: the real program, as it runs on a node without Kubernetes.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use tokio::time::Instant;
use trivet_instruments::promptly;
use trivet_proxy::admin;

use crate::process::{self, Program, Usage};

/// A limit that only a broken promise exceeds.
const LIMIT: Duration = Duration::from_secs(30);

/// The file of the proxy's token, which most labs leave out.
pub(crate) const TOKEN: &str = "token";

/// A proxy process and its files.
#[derive(Debug)]
pub struct Proxy {
    program: Program,
    disk: PathBuf,
}

impl Proxy {
    /// Starts it in a namespace with the files of this directory: document, cache, socket and log.
    pub(crate) fn start(program: &Path, namespace: &str, disk: &Path) -> Result<Self> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(log_path(disk))
            .context("failed to open the proxy's log")?;
        let mut command = process::command(namespace, program);
        command
            .args(["run", "--node-name", "w1"])
            .arg("--config")
            .arg(disk.join("pool.json"))
            .arg("--cache-dir")
            .arg(disk.join("cache"))
            .arg("--socket")
            .arg(disk.join("proxy.sock"))
            .arg("--token-file")
            .arg(disk.join(TOKEN))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Ok(Self {
            program: Program::start(&mut command)?,
            disk: disk.to_owned(),
        })
    }

    /// Ends it as SIGTERM does, and waits for its end.
    pub async fn stop(mut self) -> Result<()> {
        self.program.signal(Signal::SIGTERM)?;
        self.program.ended().await.map(drop)
    }

    /// Ends it as a power cut does.
    pub async fn kill(mut self) -> Result<()> {
        self.program.kill().await
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        self.program.has_ended()
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.program.pid()
    }

    /// Its resource usage so far.
    pub fn usage(&self) -> Result<Usage> {
        self.program.usage()
    }

    /// The value of one line of its metrics.
    pub async fn metric(&self, line: &str) -> Option<u64> {
        let (_, metrics) = admin::ask(self.disk.join("proxy.sock"), "/metrics", LIMIT)
            .await
            .ok()?;
        let found = metrics
            .lines()
            .find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        found?.parse().ok()
    }

    /// Whether it sees a member in this state.
    pub async fn sees(&self, member: &str, state: &str) -> bool {
        let line = format!("trivet_proxy_upstream_state{{member=\"{member}\",state=\"{state}\"}}");
        self.metric(&line).await == Some(1)
    }

    /// Waits until it sees a member in this state, and says when it did.
    pub async fn comes_to_see(&self, member: &str, state: &str) -> Result<Instant> {
        promptly(LIMIT, &format!("{member} is {state}"), async || {
            self.sees(member, state).await
        })
        .await
    }

    /// Waits until it remembers this member for its next start: the proof that the member gave is on the disk, and so is the
    /// document that names it, which is written first.
    pub async fn comes_to_remember(&self, member: &str) -> Result<()> {
        let proven = self.disk.join("cache/proven.json");
        let name = format!("\"{member}\"");
        promptly(LIMIT, &format!("{member} is remembered"), async || {
            fs::read_to_string(&proven).is_ok_and(|text| text.contains(&name))
        })
        .await
        .map(drop)
    }

    /// Waits until it follows this revision.
    pub async fn follows(&self, revision: u64) -> Result<Instant> {
        let line = "trivet_proxy_document_revision";
        let what = format!("revision {revision} is in force");
        promptly(LIMIT, &what, async || self.metric(line).await == Some(revision)).await
    }

    /// Client connections that ended for this reason.
    pub async fn ended(&self, reason: &str) -> u64 {
        let line = format!("trivet_proxy_connections_ended_total{{reason=\"{reason}\"}}");
        self.metric(&line).await.unwrap_or_default()
    }
}

/// What a proxy with the files of this directory has logged.
pub(crate) fn log(disk: &Path) -> String {
    fs::read_to_string(log_path(disk)).unwrap_or_default()
}

fn log_path(disk: &Path) -> PathBuf {
    disk.join("proxy.log")
}
