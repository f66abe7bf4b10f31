//! The machine's processes, and which of them belong to a host.
//!
//! A host's processes are those in its init's PID namespace and all of their descendants, containers included. Processes
//! outside never match, even with the same name. Signals are sent only to processes that this module returns.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// One process, as the machine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    parent: i32,
    /// The state as in `/proc/PID/stat`: `T` is stopped, `Z` a zombie.
    state: char,
    /// The inode of its PID namespace.
    namespace: u64,
    /// The file name in its first argument.
    pub(crate) program: String,
    /// Its arguments, the program first.
    pub(crate) command_line: Vec<String>,
}

impl Process {
    /// Whether a SIGSTOP holds it.
    pub(crate) fn is_stopped(&self) -> bool {
        self.state == 'T'
    }

    /// Sends a signal. A process that has just gone needs none.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        send(self.pid, signal).with_context(|| format!("failed to signal {} ({})", self.program, self.pid))
    }
}

/// Sends a signal to a pid; no error if the process has ended already.
pub(crate) fn send(pid: i32, signal: Signal) -> Result<()> {
    match signal::kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("failed to send {signal} to {pid}")),
    }
}

/// Every process of the machine at one moment.
#[derive(Debug, Default)]
pub(crate) struct Table(BTreeMap<i32, Process>);

impl Table {
    /// Reads /proc. Processes that end meanwhile are left out.
    pub(crate) fn read() -> Result<Self> {
        let entries = fs::read_dir("/proc").context("failed to list /proc")?;
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Ok(Self(
            pids.filter_map(read)
                .map(|process| (process.pid, process))
                .collect(),
        ))
    }

    /// The living processes of the host with this init, the init left out, oldest pid first.
    pub(crate) fn of_host(&self, init: i32) -> Vec<&Process> {
        let Some(namespace) = self.0.get(&init).map(|process| process.namespace) else {
            return Vec::new();
        };
        let mut inside: BTreeSet<i32> = self
            .0
            .values()
            .filter(|process| process.namespace == namespace)
            .map(|process| process.pid)
            .collect();
        // Containers have namespaces of their own, but their first process is a child of one of the host's.
        loop {
            let before = inside.len();
            let children = self.0.values().filter(|process| inside.contains(&process.parent));
            let children: Vec<i32> = children.map(|process| process.pid).collect();
            inside.extend(children);
            if inside.len() == before {
                break;
            }
        }
        inside
            .iter()
            .filter(|pid| **pid != init)
            .filter_map(|pid| self.0.get(pid))
            .filter(|process| process.state != 'Z')
            .collect()
    }
}

/// The pid of the init among the processes of a host's cgroup: the first of a PID namespace right below ours.
pub(crate) fn find_init(pids: &[i32]) -> Option<i32> {
    pids.iter()
        .copied()
        .find(|pid| fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| is_init(&status)))
}

/// A container's first process is pid 1 too, but of a namespace one level further down.
fn is_init(status: &str) -> bool {
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    pids.is_some_and(|pids| matches!(pids.split_whitespace().collect::<Vec<_>>().as_slice(), [_, "1"]))
        && !status.lines().any(|line| line.starts_with("State:\tZ"))
}

fn read(pid: i32) -> Option<Process> {
    let directory = Path::new("/proc").join(pid.to_string());
    let stat = fs::read_to_string(directory.join("stat")).ok()?;
    let (state, parent) = parse_stat(&stat)?;
    let namespace = fs::metadata(directory.join("ns/pid"))
        .ok()
        .map_or(0, |namespace| namespace.ino());
    let arguments = fs::read(directory.join("cmdline")).ok()?;
    Some(Process {
        pid,
        parent,
        state,
        namespace,
        program: program(&arguments)?,
        command_line: command_line(&arguments),
    })
}

/// The state and the parent: the fields after the name, which may itself hold spaces and brackets.
fn parse_stat(stat: &str) -> Option<(char, i32)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// The kernel ends every argument with a zero.
fn command_line(arguments: &[u8]) -> Vec<String> {
    let arguments = arguments.strip_suffix(&[0]).unwrap_or(arguments);
    arguments
        .split(|byte| *byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}

/// The last part of argv\[0\], because the kernel truncates its own name of a process to 15 characters. Kernel threads have
/// none.
///
/// A supervisor, `sh …/supervise.sh LOG PROGRAM …`, is named after what it supervises.
fn program(arguments: &[u8]) -> Option<String> {
    let mut names = arguments
        .split(|byte| *byte == 0)
        .map(|argument| argument.rsplit(|byte| *byte == b'/').next().unwrap_or_default())
        .map(String::from_utf8_lossy);
    let first = names.next()?;
    match (first.as_ref(), names.next().as_deref(), names.nth(1)) {
        ("sh", Some("supervise.sh"), Some(supervised)) => Some(supervisor(&supervised)),
        (_, _, _) => Some(first.into_owned()),
    }
}

/// The name that [`Process::program`] gives to the supervisor of a program.
pub(crate) fn supervisor(program: &str) -> String {
    format!("supervisor of {program}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(i32, i32, u64, &str)]) -> Table {
        let process = |&(pid, parent, namespace, program): &(i32, i32, u64, &str)| {
            (
                pid,
                Process {
                    pid,
                    parent,
                    state: 'S',
                    namespace,
                    program: program.to_owned(),
                    command_line: vec![program.to_owned()],
                },
            )
        };
        Table(rows.iter().map(process).collect())
    }

    fn programs(table: &Table, init: i32) -> Vec<&str> {
        table
            .of_host(init)
            .iter()
            .map(|process| process.program.as_str())
            .collect()
    }

    #[test]
    fn a_host_has_its_own_processes_and_its_containers_and_no_others() {
        let machine = table(&[
            (1, 0, 100, "init"),
            (10, 1, 100, "kubelet"),
            (20, 1, 200, "sh"),
            (21, 20, 200, "kubelet"),
            (22, 20, 200, "containerd-shim-runc-v2"),
            (23, 22, 201, "pause"),
            (24, 22, 202, "trivet-proxy"),
            (25, 24, 202, "child"),
            (30, 1, 300, "sh"),
            (31, 30, 300, "kubelet"),
            // Entered from outside: its parent is not of the host, its namespace is.
            (40, 10, 200, "curl"),
        ]);
        assert_eq!(
            programs(&machine, 20),
            [
                "kubelet",
                "containerd-shim-runc-v2",
                "pause",
                "trivet-proxy",
                "child",
                "curl"
            ]
        );
        assert_eq!(programs(&machine, 30), ["kubelet"]);
        assert!(programs(&machine, 99).is_empty());
    }

    #[test]
    fn a_zombie_is_not_running() {
        let mut machine = table(&[(20, 1, 200, "sh"), (21, 20, 200, "etcd")]);
        machine.0.get_mut(&21).unwrap().state = 'Z';
        assert!(programs(&machine, 20).is_empty());
    }

    #[test]
    fn an_init_is_first_in_the_namespace_right_below_ours() {
        assert!(is_init("Name:\tsh\nState:\tS (sleeping)\nNSpid:\t4711\t1\n"));
        assert!(!is_init("Name:\tpause\nNSpid:\t4712\t33\t1\n"));
        assert!(!is_init("Name:\tunshare\nNSpid:\t4710\n"));
        assert!(!is_init("Name:\tkubelet\nNSpid:\t4713\t12\n"));
        assert!(!is_init("Name:\tsh\nState:\tZ (zombie)\nNSpid:\t4711\t1\n"));
    }

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_confuse() {
        assert_eq!(parse_stat("12 (a) b (c)) T 7 1 1"), Some(('T', 7)));
        assert_eq!(parse_stat("12 (half"), None);
    }

    #[test]
    fn a_program_is_named_in_full_without_its_directory() {
        assert_eq!(
            program(b"/bin/kube-controller-manager\0--x\0").unwrap(),
            "kube-controller-manager"
        );
        assert_eq!(program(b"").unwrap(), "");
    }

    #[test]
    fn a_command_line_is_read_back_as_it_was_started() {
        assert_eq!(
            command_line(b"/bin/etcd\0--name=cp1\0"),
            ["/bin/etcd", "--name=cp1"]
        );
        assert_eq!(command_line(b"sh\0\0"), ["sh", ""]);
    }

    #[test]
    fn a_supervisor_is_not_taken_for_its_program_nor_for_a_shell() {
        let arguments = b"sh\0/state/w1/supervise.sh\0/var/log/kubelet.log\0/bin/kubelet\0--config=x\0";
        assert_eq!(program(arguments).unwrap(), supervisor("kubelet"));
        assert_eq!(program(b"sh\0-c\0true\0").unwrap(), "sh");
        assert_eq!(program(b"sh\0").unwrap(), "sh");
    }
}
