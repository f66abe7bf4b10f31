//! The faults of a run: each waits for its line in the log of any process, and is done at once then.

use std::{
    collections::VecDeque,
    fs,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use tokio::time::Instant;

use crate::plan::{Boundary, Fault, Harm};

/// The share of the time without files after which a process that is on a CPU tries again without a pause.
const BUSY: f64 = 0.6;

/// A fault that was done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) process: &'static str,
    pub(crate) harm: Harm,
    /// Just before it.
    pub(crate) from: Instant,
    /// From when on it was in effect for all threads of the process.
    pub(crate) effective: Instant,
    /// Just after its end; none for a process that is dead.
    pub(crate) until: Option<Instant>,
}

/// The faults of a run.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    armed: Mutex<VecDeque<(Fault, u64)>>,
    running: AtomicUsize,
    done: Mutex<Vec<Done>>,
    spinning: Mutex<Option<String>>,
}

impl Faults {
    /// These faults wait for their lines from now on, one after the other.
    pub(crate) fn arm(&self, faults: impl IntoIterator<Item = Fault>) {
        self.armed
            .lock()
            .unwrap()
            .extend(faults.into_iter().map(|fault| (fault, 0)));
    }

    /// No fault waits any more.
    pub(crate) fn disarm(&self) {
        self.armed.lock().unwrap().clear();
    }

    /// A process has logged a message.
    pub(crate) fn logged(self: &Arc<Self>, process: &'static str, pid: Pid, line: Boundary) {
        let mut armed = self.armed.lock().unwrap();
        let Some((fault, seen)) = armed.front_mut() else {
            return;
        };
        if fault.at != line {
            return;
        }
        *seen += 1;
        if *seen < fault.occurrence {
            return;
        }
        let fault = *fault;
        armed.pop_front();
        drop(armed);
        self.start(process, pid, fault.harm, fault.delay);
    }

    /// Does harm to a process after a delay.
    pub(crate) fn start(self: &Arc<Self>, process: &'static str, pid: Pid, harm: Harm, delay: Duration) {
        self.running.fetch_add(1, Ordering::SeqCst);
        let faults = Arc::clone(self);
        thread::spawn(move || {
            thread::sleep(delay);
            faults.harm(process, pid, harm);
            faults.running.fetch_sub(1, Ordering::SeqCst);
        });
    }

    fn harm(&self, process: &'static str, pid: Pid, harm: Harm) {
        let from = Instant::now();
        let done = |effective| Done {
            process,
            harm,
            from,
            effective,
            until: None,
        };
        match harm {
            Harm::Kill => {
                kill(pid, Signal::SIGKILL).unwrap();
                // The kernel closes its files before it can be waited for.
                waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
                self.record(done(Instant::now()));
            }
            Harm::Stop(time) => {
                kill(pid, Signal::SIGSTOP).unwrap();
                let is_stopped = || matches!(state(pid), 'T' | 'Z');
                while !is_stopped() {
                    thread::sleep(Duration::from_micros(100));
                }
                let index = self.record(done(Instant::now()));
                thread::sleep(time);
                kill(pid, Signal::SIGCONT).unwrap();
                self.end(index);
            }
            Harm::NoFiles(time) => {
                let before = limit_of_files(pid);
                limit_files(pid, &lowest_free_file(pid).to_string());
                let index = self.record(done(Instant::now()));
                let cpu = cpu(pid);
                thread::sleep(time);
                let spent = self::cpu(pid).saturating_sub(cpu);
                if spent > time.mul_f64(BUSY) {
                    let spun = format!("{process} was busy for {spent:?} of {time:?} without files");
                    *self.spinning.lock().unwrap() = Some(spun);
                }
                limit_files(pid, &before);
                self.end(index);
            }
        }
    }

    fn record(&self, done: Done) -> usize {
        let mut all = self.done.lock().unwrap();
        all.push(done);
        all.len() - 1
    }

    fn end(&self, index: usize) {
        self.done.lock().unwrap()[index].until = Some(Instant::now());
    }

    /// Whether a fault is under way.
    pub(crate) fn are_running(&self) -> bool {
        self.running.load(Ordering::SeqCst) > 0
    }

    /// Those that were done.
    pub(crate) fn done(&self) -> Vec<Done> {
        self.done.lock().unwrap().clone()
    }

    /// A process that used the CPU for nothing.
    pub(crate) fn spinning(&self) -> Option<String> {
        self.spinning.lock().unwrap().clone()
    }

    /// Whether a process was killed.
    pub(crate) fn has_killed(&self, process: &str) -> bool {
        let mut done = self.done().into_iter();
        done.any(|done| done.process == process && done.harm == Harm::Kill)
    }
}

/// The first descriptor that the process could open.
fn lowest_free_file(pid: Pid) -> u64 {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return 0;
    };
    let open: Vec<u64> = open
        .filter_map(|file| file.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let count = u64::try_from(open.len()).unwrap();
    (0..=count).find(|file| !open.contains(file)).unwrap()
}

/// Sets the soft limit. The hard limit stays, so that the soft one can be raised again. A process that has ended meanwhile
/// has none.
fn limit_files(pid: Pid, limit: &str) {
    let limit = format!("--nofile={limit}:");
    let set = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &limit])
        .status();
    assert!(set.unwrap().success() || state(pid) == 'Z');
}

/// The soft limit.
fn limit_of_files(pid: Pid) -> String {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let mut lines = limits.lines();
    let line = lines.find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().to_owned()
}

/// What the kernel says that it does: `T` is stopped, `Z` has ended.
pub(crate) fn state(pid: Pid) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.chars().next().unwrap()
}

/// The time on a CPU that it has had; nothing once it has ended.
fn cpu(pid: Pid) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|ticks| ticks.parse::<u64>().ok());
    // Hundredths of a second on every Linux.
    Duration::from_millis((ticks(11).unwrap_or(0) + ticks(12).unwrap_or(0)) * 10)
}
