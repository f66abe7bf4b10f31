//! The client-go program of the tests inside a host: informers and a writer that talk through the node's proxy.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use trivet_testbed::{Host, Progress, binaries};

use crate::attempts::LOOPBACKS;
use crate::installation::Installation;

/// Writes a second: often enough that a gap shows, seldom enough that etcd on a busy disk keeps up.
const RATE: &str = "10";

/// How many informers run: two connections to each of three masters.
const INFORMERS: &str = "6";

/// It waits five seconds for the last events, and a request under way may take ten.
const ENDS: Duration = Duration::from_secs(20);

/// A client under way.
#[derive(Debug)]
pub struct RealClient {
    program: Child,
    lines: JoinHandle<Result<Told>>,
}

/// All that a client has reported.
#[derive(Debug, Default)]
pub struct Told {
    /// Every event, by every informer.
    pub events: Vec<Event>,
    /// Every request that failed.
    pub failures: Vec<Failure>,
    /// The last line, if there was one.
    summary: Option<Summary>,
}

/// One informer saw one write.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When it was seen.
    pub at: Timestamp,
    /// Who saw it.
    pub informer: u32,
    /// The number that was written.
    pub sequence: u64,
    /// How long ago it had been written.
    pub delay_milliseconds: u64,
}

/// A request that failed.
#[derive(Debug, Clone, Deserialize)]
pub struct Failure {
    /// When it was known.
    pub at: Timestamp,
    /// The writer or an informer.
    pub who: String,
    /// The verb.
    pub what: String,
    /// The client's words.
    pub error: String,
}

/// The client's summary.
#[derive(Debug, Clone, Deserialize)]
pub struct Summary {
    /// The writer's part.
    pub writes: Writes,
    /// One for each informer.
    pub informers: Vec<Informer>,
}

/// What was written.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Writes {
    /// Numbers that an apiserver confirmed.
    pub ok: u64,
    /// Requests that ended in an error.
    pub failed: u64,
    /// Numbers that took more than one request.
    pub retried: u64,
    /// The longest time from one confirmation to the next.
    pub longest_without_milliseconds: u64,
}

/// The summary of an informer.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Informer {
    /// Numbers that it saw.
    pub events: u64,
    /// Confirmed numbers that it never saw.
    pub missed: u64,
    /// Lists after its first.
    pub relists: u64,
    /// Watches that it began.
    pub watches: u64,
    /// The longest time from a write to its event.
    pub longest_delay_milliseconds: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Event(Event),
    Failure(Failure),
    Summary(Summary),
}

impl RealClient {
    /// Starts it on `host`, in `namespace`, as the cluster's admin through the host's proxy.
    pub async fn start(installation: &Installation, host: &Host, namespace: &str) -> Result<Self> {
        let programs = installation
            .disturb(|_| binaries::for_tests(&Progress::new()))
            .await?;
        let kubeconfig = installation.cluster().kubeconfig()?;
        let mut command = Command::from(host.command(&programs.client)?);
        command.arg("--kubeconfig").arg(kubeconfig);
        command.args(["--server", &format!("https://{}", LOOPBACKS[0])]);
        command.args(["--tls-server-name", "kubernetes", "--namespace", namespace]);
        command.args(["--rate", RATE, "--informers", INFORMERS]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut program = command.spawn().context("failed to start the real client")?;
        let stdout = program.stdout.take().context("the real client has no output")?;
        let mut lines = BufReader::new(stdout).lines();
        let lines = tokio::spawn(async move {
            let mut told = Told::default();
            while let Some(line) = lines.next_line().await? {
                told.add(serde_json::from_str(&line).with_context(|| format!("the client said {line:?}"))?);
            }
            Ok(told)
        });
        Ok(Self { program, lines })
    }

    /// Ends the client, and returns what it has reported.
    pub async fn finish(mut self) -> Result<Told> {
        // The client ends at the end of its input. A signal would reach only the shell that entered the host.
        drop(self.program.stdin.take());
        let status = timeout(ENDS, self.program.wait())
            .await
            .context("the real client does not end")??;
        ensure!(status.success(), "the real client failed: {status}");
        self.lines.await.context("the client's words were lost")?
    }
}

impl Told {
    fn add(&mut self, line: Line) {
        match line {
            Line::Event(event) => self.events.push(event),
            Line::Failure(failure) => self.failures.push(failure),
            Line::Summary(summary) => self.summary = Some(summary),
        }
    }

    /// The summary, its last line. A client without it was killed.
    pub fn summary(&self) -> Result<&Summary> {
        self.summary
            .as_ref()
            .context("the real client ended without a summary")
    }

    /// The longest time from a write to its event, of the events seen in a span of time.
    pub fn longest_delay(&self, from: Timestamp, to: Timestamp) -> Duration {
        let within = |event: &&Event| (from..to).contains(&event.at);
        let delays = self
            .events
            .iter()
            .filter(within)
            .map(|event| event.delay_milliseconds);
        Duration::from_millis(delays.max().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line_is_understood() {
        let lines = [
            r#"{"event":{"at":"2026-01-01T00:00:01.5Z","informer":2,"sequence":7,"delayMilliseconds":12}}"#,
            r#"{"event":{"at":"2026-01-01T00:00:09Z","informer":2,"sequence":8,"delayMilliseconds":900}}"#,
            r#"{"failure":{"at":"2026-01-01T00:00:02Z","who":"writer","what":"update","error":"EOF"}}"#,
            r#"{"summary":{"writes":{"ok":7,"failed":1,"retried":1,"longestWithoutMilliseconds":300},"informers":[{"events":7,"missed":0,"relists":0,"watches":2,"longestDelayMilliseconds":12}]}}"#,
        ];
        let mut told = Told::default();
        for line in lines {
            told.add(serde_json::from_str(line).unwrap());
        }
        assert_eq!((told.events.len(), told.failures.len()), (2, 1));
        assert_eq!(told.summary().unwrap().informers[0].watches, 2);
        let second = |second: i64| Timestamp::from_second(1_767_225_600 + second).unwrap();
        assert_eq!(
            told.longest_delay(second(0), second(5)),
            Duration::from_millis(12)
        );
        assert_eq!(
            told.longest_delay(second(5), second(10)),
            Duration::from_millis(900)
        );
    }
}
