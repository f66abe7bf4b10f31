//! How long a container took to end once it was told to, as the log of its host's containerd says.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use trivet_testbed::Component;

use crate::installation::Installation;

impl Installation {
    /// The time from SIGTERM to the end of a container of `host`, by its id.
    pub fn time_to_end(&self, host: &str, container: &str) -> Result<Duration> {
        let log = self.cluster().log(host, Component::Containerd)?;
        let text = fs::read(&log).with_context(|| format!("failed to read {}", log.display()))?;
        let took = time_to_end(&String::from_utf8_lossy(&text), container);
        took.with_context(|| format!("{host}'s containerd did not end container {container}"))
    }
}

/// From `Stop container "ID" with signal` to `StopContainer for "ID" returns` (cri/server of containerd 1.6).
fn time_to_end(log: &str, container: &str) -> Option<Duration> {
    let at = |what: &str, then: &str| {
        let mut lines = log.lines();
        let line = lines.rfind(|line| {
            let (before, after) = line.split_once(container).unwrap_or_default();
            before.contains(what) && after.contains(then)
        });
        let (time, _) = line?.strip_prefix("time=\"")?.split_once('"')?;
        time.parse::<Timestamp>().ok()
    };
    let told = at("msg=\"Stop container ", "with signal")?;
    let ended = at("msg=\"StopContainer for ", "returns successfully")?;
    Some(ended.duration_since(told).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_ends_when_its_stop_returns() {
        let log = r#"time="2026-11-29T10:00:00.100000000Z" level=info msg="StopContainer for \"abc\" with timeout 100 (s)"
time="2026-11-29T10:00:00.250000000Z" level=info msg="Stop container \"abc\" with signal terminated"
time="2026-11-29T10:00:00.300000000Z" level=info msg="Stop container \"def\" with signal terminated"
time="2026-11-29T10:00:01.750000000Z" level=info msg="StopContainer for \"abc\" returns successfully"
"#;
        assert_eq!(time_to_end(log, "abc"), Some(Duration::from_millis(1500)));
        assert_eq!(time_to_end(log, "def"), None);
        assert_eq!(time_to_end(log, "ghi"), None);
    }
}
