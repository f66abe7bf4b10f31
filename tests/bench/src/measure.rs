//! What the kernel says about processes: CPU, memory, files.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// A process and all its descendants: some proxies fork.
pub(crate) fn family(root: u32) -> Result<Vec<u32>> {
    let mut family = vec![root];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        for task in numbered(&format!("/proc/{parent}/task"))? {
            family.extend(children(parent, task)?);
        }
        next += 1;
    }
    Ok(family)
}

/// What a thread has forked; nothing if it has ended since it was listed, for then its children are another's.
fn children(process: u32, task: u32) -> Result<Vec<u32>> {
    let directory = format!("/proc/{process}/task/{task}");
    let text = match fs::read_to_string(format!("{directory}/children")) {
        Ok(text) => text,
        Err(_) if !Path::new(&directory).exists() => return Ok(Vec::new()),
        Err(error) => {
            return Err(error)
                .context("failed to read a task's children: the kernel needs CONFIG_PROC_CHILDREN");
        }
    };
    let numbers = text.split_whitespace();
    Ok(numbers.filter_map(|pid| pid.parse().ok()).collect())
}

/// The CPU that the processes have used: to the nanosecond, not to the tick.
pub(crate) fn cpu(processes: &[u32]) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for process in processes {
        for task in numbered(&format!("/proc/{process}/task"))? {
            let path = format!("/proc/{process}/task/{task}/schedstat");
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                // A thread that ended between the two looks.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).with_context(|| format!("failed to read {path}")),
            };
            total += time_on_cpu(&text).with_context(|| format!("{path} holds {text:?}"))?;
        }
    }
    if total.is_zero() {
        bail!("the kernel counts no CPU in schedstat: it needs CONFIG_SCHED_INFO");
    }
    Ok(total)
}

/// Memory of the processes in bytes, shared pages in proportion.
pub(crate) fn memory(processes: &[u32]) -> Result<u64> {
    let mut total = 0;
    for process in processes {
        let path = format!("/proc/{process}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
        total += kilobytes(&text, "Pss:").with_context(|| format!("{path} has no Pss"))?;
    }
    Ok(total)
}

/// The most memory in bytes that each of the processes ever had resident, in sum.
pub(crate) fn peak(processes: &[u32]) -> Result<u64> {
    let mut total = 0;
    for process in processes {
        let path = format!("/proc/{process}/status");
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
        total += kilobytes(&text, "VmHWM:").with_context(|| format!("{path} has no VmHWM"))?;
    }
    Ok(total)
}

/// Open files of the processes.
pub(crate) fn files(processes: &[u32]) -> Result<u64> {
    let mut total = 0;
    for process in processes {
        total += u64::try_from(numbered(&format!("/proc/{process}/fd"))?.len())?;
    }
    Ok(total)
}

/// Lets all threads of the processes run on one CPU only; threads that they start later stay there too.
pub(crate) fn pin(processes: &[u32], cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    for process in processes {
        for task in numbered(&format!("/proc/{process}/task"))? {
            let task = Pid::from_raw(i32::try_from(task)?);
            sched_setaffinity(task, &set)
                .with_context(|| format!("failed to pin process {process} to CPU {cpu}"))?;
        }
    }
    Ok(())
}

fn numbered(directory: &str) -> Result<Vec<u32>> {
    let entries =
        fs::read_dir(Path::new(directory)).with_context(|| format!("failed to list {directory}"))?;
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry
            .with_context(|| format!("failed to list {directory}"))?
            .file_name();
        numbers.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(numbers)
}

/// The first of the three numbers.
fn time_on_cpu(schedstat: &str) -> Option<Duration> {
    let nanoseconds = schedstat.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

/// The line that begins with `name`, in bytes: `Pss:`, and neither `Pss_Dirty:` nor `SwapPss:`.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedstat_begins_with_the_time_on_cpu() {
        let expected = Some(Duration::from_nanos(123_456));
        assert_eq!(time_on_cpu("123456 789 42\n"), expected);
        assert_eq!(time_on_cpu(""), None);
    }

    #[test]
    fn proportional_memory_is_the_one_line_of_that_name() {
        let text = "558 7ffe ---p 00000000 00:00 0    [rollup]\nRss:  2000 kB\nPss_Dirty: 1 kB\nPss:    1033 kB\nSwapPss: 7 kB\n";
        assert_eq!(kilobytes(text, "Pss:"), Some(1033 * 1024));
        assert_eq!(kilobytes("Rss: 1 kB\n", "Pss:"), None);
    }

    #[test]
    fn this_process_has_cpu_memory_and_files() {
        let own = [std::process::id()];
        assert!(cpu(&own).unwrap() > Duration::ZERO);
        assert!(memory(&own).unwrap() > 100_000);
        assert!(peak(&own).unwrap() >= 100_000);
        assert!(files(&own).unwrap() >= 3);
    }

    #[test]
    fn a_family_holds_the_child_of_a_process() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let family = family(std::process::id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(family.contains(&child.id()));
    }

    #[test]
    fn a_thread_that_ended_after_it_was_listed_has_no_children() {
        // No thread of this process can have the number of process 1.
        assert_eq!(children(std::process::id(), 1).unwrap(), Vec::<u32>::new());
    }
}
