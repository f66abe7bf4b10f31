//! The operator as shipped, and what it does meanwhile.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::audit::{self, Write};
use super::objects::NAMESPACE;
use crate::authority::NAME;
use crate::measure;
use crate::process::Process;

/// Where it serves its metrics.
const METRICS: &str = "127.0.0.1:8080";

/// How long it may take until it leads.
const LIMIT: Duration = Duration::from_secs(60);

/// How often its metrics are read. There is at most one pass in this time, so each one's duration is known.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A running operator.
#[derive(Debug)]
pub(crate) struct Operator {
    process: Process,
}

/// What it has done for a while.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Observed {
    /// The part of one CPU that it took.
    pub(crate) cpu: f64,
    /// The durations of its passes, in seconds.
    pub(crate) passes: Vec<f64>,
    /// What it wrote besides its Lease.
    pub(crate) writes: Vec<Write>,
}

/// The passes since its start: their number, and their duration in sum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Passes {
    count: f64,
    seconds: f64,
}

impl Operator {
    /// Starts it, as its Deployment does.
    pub(crate) fn start(program: &Path, directory: &Path, kubeconfig: &Path) -> Result<Self> {
        let mut command = Command::new("env");
        command
            .arg(format!("KUBECONFIG={}", kubeconfig.display()))
            .arg(program);
        command.args(["run", "--namespace", NAMESPACE, "--address", METRICS]);
        command.args(["--proxy-image", "registry.example.com/trivet/trivet-proxy:0.1.0"]);
        command.args(["--tls-server-name", NAME, "--log-level", "warn"]);
        Ok(Self {
            process: Process::start("trivet-operator", &command, directory)?,
        })
    }

    /// Waits until it leads.
    pub(crate) async fn wait_until_it_leads(&mut self) -> Result<()> {
        let end = Instant::now() + LIMIT;
        loop {
            self.process.check()?;
            let leads = metrics()
                .await
                .is_ok_and(|text| value(&text, "trivet_operator_leader") == Some(1.0));
            if leads {
                return Ok(());
            }
            if Instant::now() >= end {
                bail!("the operator does not lead after {LIMIT:?}");
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// What it does while `work` is under way.
    pub(crate) async fn observe(
        &mut self,
        log: &Path,
        work: impl Future<Output = Result<()>>,
    ) -> Result<Observed> {
        let mark = audit::mark(log)?;
        let mut seen = Passes::now().await?;
        let (began, cpu) = (Instant::now(), self.cpu()?);
        let mut passes = Vec::new();
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => {
                    done?;
                    break;
                }
                _ = looks.tick() => {
                    let now = Passes::now().await?;
                    passes.extend(now.since(seen));
                    seen = now;
                }
            }
        }
        self.process.check()?;
        let used = self.cpu()?.saturating_sub(cpu);
        Ok(Observed {
            cpu: used.as_secs_f64() / began.elapsed().as_secs_f64(),
            passes,
            writes: audit::writes_since(log, mark)?,
        })
    }

    /// Its memory: the most that was ever resident, and what is now, shared pages in proportion.
    pub(crate) fn memory(&self) -> Result<(u64, u64)> {
        let processes = self.process.family()?;
        Ok((measure::peak(&processes)?, measure::memory(&processes)?))
    }

    fn cpu(&self) -> Result<Duration> {
        measure::cpu(&self.process.family()?)
    }
}

impl Passes {
    async fn now() -> Result<Self> {
        let text = metrics().await?;
        let read =
            |name: &str| value(&text, name).with_context(|| format!("the operator has no metric {name}"));
        Ok(Self {
            count: read("trivet_operator_reconcile_duration_seconds_count")?,
            seconds: read("trivet_operator_reconcile_duration_seconds_sum")?,
        })
    }

    /// The mean duration of the passes since `before`, if there was one.
    fn since(self, before: Self) -> Option<f64> {
        let count = self.count - before.count;
        (count > 0.0).then(|| (self.seconds - before.seconds) / count)
    }
}

/// HTTP/1.0, because the answer then ends with its connection.
async fn metrics() -> Result<String> {
    let mut stream = TcpStream::connect(METRICS)
        .await
        .context("failed to connect to the operator")?;
    stream
        .write_all(b"GET /metrics HTTP/1.0\r\nHost: bench\r\n\r\n")
        .await?;
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .await
        .context("failed to read the operator's metrics")?;
    Ok(text)
}

/// The value of a metric without labels.
fn value(text: &str, name: &str) -> Option<f64> {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_the_one_of_that_name() {
        let text = "# TYPE a counter\na_total 3\na 1.5\na{pool=\"x\"} 2\n";
        assert_eq!(
            (value(text, "a"), value(text, "a_total"), value(text, "b")),
            (Some(1.5), Some(3.0), None)
        );
    }

    #[test]
    fn the_duration_of_a_pass_is_what_the_sum_has_grown_by() {
        let passes = |count, seconds| Passes { count, seconds };
        assert_eq!(passes(4.0, 1.0).since(passes(3.0, 0.75)), Some(0.25));
        assert_eq!(passes(3.0, 1.0).since(passes(3.0, 1.0)), None);
    }
}
