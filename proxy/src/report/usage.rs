//! The open files and the memory of this process, and when more of them makes a report worth writing.

use std::fs;

use tokio::task::spawn_blocking;
use trivet_crds::report::{ReportContent, usage};

use crate::net::spare;

/// What this process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) open_files: u32,
    pub(super) memory_mebibytes: u32,
}

impl Usage {
    /// Now.
    ///
    /// The memory is the resident set and not the proportional one: what the kernel holds against the pod's limit and
    /// `kubectl top` shows grows with the former, and the kernel knows it without a walk through the address space.
    pub(super) async fn now() -> Self {
        Self {
            open_files: open_files().await,
            memory_mebibytes: spare::with(|| fs::read_to_string("/proc/self/status"))
                .map_or(0, |status| resident_mebibytes(&status)),
        }
    }
}

/// How often both would have to be halved to come to what the connections explain, at most so far. They never fall: a use
/// that goes up and down at a mark is written once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    files: u32,
    memory: u32,
}

impl Marks {
    /// Takes a report in.
    pub(super) fn raise(&mut self, report: &ReportContent) {
        let files = usage::doublings(report.open_files, usage::files(report.connections));
        let memory = usage::doublings(report.memory_mebibytes, usage::mebibytes(report.connections));
        self.files = self.files.max(files);
        self.memory = self.memory.max(memory);
    }
}

/// The files that this process has open. Since Linux 6.2 the kernel says it without counting, which takes milliseconds where
/// there are thousands.
async fn open_files() -> u32 {
    let known = fs::metadata("/proc/self/fd").map_or(0, |directory| directory.len());
    if known > 0 {
        return u32::try_from(known).unwrap_or(u32::MAX);
    }
    let counted = spawn_blocking(|| spare::with(|| fs::read_dir("/proc/self/fd")).map(Iterator::count)).await;
    let counted = counted.ok().and_then(Result::ok).unwrap_or_default();
    u32::try_from(counted).unwrap_or(u32::MAX)
}

/// The resident set in `/proc/PID/status`, rounded up.
fn resident_mebibytes(status: &str) -> u32 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    let mebibytes = kibibytes.unwrap_or_default().div_ceil(1024);
    u32::try_from(mebibytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn report(open_files: u32, memory_mebibytes: u32, connections: u32) -> ReportContent {
        serde_json::from_value(json!({
            "poolName": "default", "nodeName": "w1", "observedTime": "",
            "openFiles": open_files, "memoryMebibytes": memory_mebibytes, "connections": connections,
        }))
        .unwrap()
    }

    /// How many of these reports are worth writing for what they use.
    fn rises(reports: impl IntoIterator<Item = ReportContent>) -> usize {
        let mut marks = Marks::default();
        let mut rises = 0;
        for report in reports {
            let before = marks;
            marks.raise(&report);
            rises += usize::from(marks != before);
        }
        rises
    }

    proptest! {
        #[test]
        fn what_clients_do_to_a_proxy_without_a_leak_makes_no_report(
            loads in prop::collection::vec((0..20_000_u32, 0..200_u32, 0..64_u32), 1..100),
        ) {
            // Two files a connection, four while it is handed over; 3 KiB each, and the tails of slow readers.
            let of_load = |(connections, files, tails): (u32, u32, u32)| {
                report(4 * connections + files, 8 + connections * 3 / 1024 + tails, connections)
            };
            prop_assert_eq!(rises(loads.into_iter().map(of_load)), 0);
        }

        #[test]
        fn a_leak_makes_a_handful_of_reports_however_the_load_goes_up_and_down(
            a_look in 1..5_000_u32,
            connections in prop::collection::vec(0..500_u32, 200),
        ) {
            let leaked = (0_u32..).map(|looks| (looks * a_look).min(1_000_000));
            let reports = leaked.zip(connections).map(|(leaked, connections)| {
                report(leaked + 2 * connections, leaked / 100, connections)
            });
            prop_assert!(rises(reports) <= 17);
        }
    }

    #[test]
    fn a_leak_until_the_usual_limit_makes_five_reports() {
        assert_eq!(rises((0..25).map(|look| report(100 + 800 * look, 10, 20))), 5);
        assert_eq!(rises((0..25).map(|look| report(100, 10 + 40 * look, 20))), 3);
    }

    #[tokio::test]
    async fn this_process_has_files_and_memory() {
        let usage = Usage::now().await;
        assert!((3..10_000).contains(&usage.open_files), "{usage:?}");
        assert!((1..10_000).contains(&usage.memory_mebibytes), "{usage:?}");
    }

    #[test]
    fn the_resident_set_is_rounded_up() {
        assert_eq!(resident_mebibytes("VmHWM:\t 9000 kB\nVmRSS:\t    6145 kB\n"), 7);
        assert_eq!(resident_mebibytes("Name:\ttrivet-proxy\n"), 0);
    }
}
