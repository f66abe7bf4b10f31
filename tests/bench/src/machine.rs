//! The machine that was measured on, as far as it matters to whoever reads the numbers.

use std::fs;
use std::process::Command;

use serde::Serialize;

/// Facts of one run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory: String,
    pub(crate) kernel: String,
    pub(crate) congestion_control: String,
    pub(crate) revision: String,
}

impl Machine {
    /// Looks.
    pub(crate) fn look() -> Self {
        Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            memory: field("/proc/meminfo", "MemTotal").map_or_else(String::new, |text| in_gib(&text)),
            kernel: read("/proc/sys/kernel/osrelease"),
            congestion_control: crate::network::congestion_control(),
            revision: revision(),
        }
    }
}

/// The load averages: what else the machine was doing.
pub(crate) fn load() -> String {
    let text = read("/proc/loadavg");
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// Seconds of CPU that the hypervisor gave to others since the start, all CPUs together.
pub(crate) fn stolen() -> Option<f64> {
    stolen_ticks(&read("/proc/stat")).map(|ticks| ticks / 100.0)
}

fn stolen_ticks(stat: &str) -> Option<f64> {
    stat.lines().next()?.split_whitespace().nth(8)?.parse().ok()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = read(path);
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

fn in_gib(kilobytes: &str) -> String {
    let number = kilobytes
        .split_whitespace()
        .next()
        .and_then(|text| text.parse::<u64>().ok());
    number.map_or_else(
        || kilobytes.to_owned(),
        |number| format!("{} GiB", number / 1024 / 1024),
    )
}

fn revision() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(env!("CARGO_MANIFEST_DIR"))
            .args(arguments)
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else {
        return "unknown".to_owned();
    };
    // What is measured, and what it is built of.
    let touched = git(&[
        "status",
        "--porcelain",
        "--",
        "../../proxy/src",
        "../../operator/src",
        "../../crds/src",
        "../../trust/src",
    ]);
    match touched {
        Some(files) if !files.is_empty() => format!("{commit} with changes"),
        Some(_) | None => commit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_the_eighth_number_of_the_first_line() {
        assert_eq!(stolen_ticks("cpu  1 2 3 4 5 6 7 80 9 10\ncpu0 1\n"), Some(80.0));
        assert_eq!(stolen_ticks(""), None);
    }

    #[test]
    fn memory_is_told_in_gib() {
        assert_eq!(in_gib("24684160 kB"), "23 GiB");
    }
}
