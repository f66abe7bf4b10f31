//! A host: a set of namespaces, cgroups and directories that together behave like a machine.
//!
//! A reboot kills the init of its PID namespace; the network namespace and the directories stay, as a real
//! machine's cable and disk do.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::address::{HostName, Role};
use crate::cgroup::Layout;
use crate::process::{self, Process, Table};
use crate::state::{self, Programs};
use crate::{network, output, wait};

/// The init, beside the directories of its host.
pub(crate) const BOOT_SCRIPT: &str = "/boot.sh";

/// What keeps a component running, in the same place.
pub(crate) const SUPERVISE_SCRIPT: &str = "/supervise.sh";

/// The directories that each host has for itself. All others are the machine's, so that programs built there run in a host.
pub(crate) const OWN_DIRECTORIES: [&str; 8] = [
    "/etc/cni",
    "/etc/kubernetes",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/lib/trivet",
    "/var/log",
];

/// The file that a host's boot creates once all of its mounts are there; `/run` is empty at every boot.
const BOOTED: &str = "run/trivet-testbed-booted";

/// Closes the files that the caller has open beyond its standard streams, such as a lock, because a host outlives its
/// caller. A shell cannot name higher numbers than 9.
const CLOSE_OTHERS: &str = "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; ";

/// The `PATH` of a host's own programs, which do not get the environment of the user.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One host of the testbed.
#[derive(Debug, Clone)]
pub struct Host {
    name: HostName,
    programs: Programs,
}

impl Host {
    pub(crate) fn new(name: HostName, programs: Programs) -> Self {
        Self { name, programs }
    }

    /// Its name, which its Node has too.
    pub fn name(&self) -> HostName {
        self.name
    }

    /// Master or worker.
    pub fn role(&self) -> Role {
        self.name.role()
    }

    /// The IPv4 address that its Node reports.
    pub fn ipv4(&self) -> Ipv4Addr {
        self.name.ipv4()
    }

    /// Its IPv6 address.
    pub fn ipv6(&self) -> Ipv6Addr {
        self.name.ipv6()
    }

    /// The file of this host at a path as the host sees it, one of the directories that it has for itself.
    pub fn file(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        state::files(self.name).join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A command that runs inside the host, with the caller's environment and the cluster's programs in `PATH`.
    ///
    /// It is killed when the child that this starts is killed. The exit status is the program's own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = self.enter("setpriv --pdeathsig KILL --")?;
        command.arg(program);
        Ok(command)
    }

    /// Runs a command line inside the host and waits for its end, whatever its status.
    pub fn exec<S: AsRef<OsStr>>(&self, command_line: impl IntoIterator<Item = S>) -> Result<Output> {
        let mut words = command_line.into_iter();
        let program = words.next().context("an empty command line runs nothing")?;
        self.command(program)?
            .args(words)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("failed to run a command in {}", self.name))
    }

    /// The pid of the host's init as the machine sees it, if the host is up.
    pub fn init(&self) -> Result<Option<i32>> {
        Ok(process::find_init(&Layout::read()?.pids(Some(self.name))?))
    }

    /// The pid, as the machine sees it, of the oldest process of a program, containers included.
    pub fn pid(&self, program: &str) -> Result<Option<i32>> {
        Ok(self.processes(program)?.first().map(|process| process.pid))
    }

    /// The pids of all processes of a program, as the machine sees them, containers included.
    pub fn pids(&self, program: &str) -> Result<Vec<i32>> {
        Ok(self
            .processes(program)?
            .iter()
            .map(|process| process.pid)
            .collect())
    }

    /// Sends a signal to one process of this host; an error if it is none of this host's.
    pub fn signal(&self, pid: i32, signal: Signal) -> Result<()> {
        let processes = self.all_processes()?;
        let process = processes.iter().find(|process| process.pid == pid);
        let process = process.with_context(|| format!("{} has no process {pid}", self.name))?;
        process.signal(signal)
    }

    /// The running processes of a program, containers included.
    pub(crate) fn processes(&self, program: &str) -> Result<Vec<Process>> {
        let mut processes = self.all_processes()?;
        processes.retain(|process| process.program == program);
        Ok(processes)
    }

    /// Every running process of the host but its init.
    pub(crate) fn all_processes(&self) -> Result<Vec<Process>> {
        Ok(match self.init()? {
            Some(init) => Table::read()?.of_host(init).into_iter().cloned().collect(),
            None => Vec::new(),
        })
    }

    /// The supervisor of a program, whether the program runs or waits to be started again.
    pub(crate) fn supervisors(&self, program: &str) -> Result<Vec<Process>> {
        self.processes(&process::supervisor(program))
    }

    /// Starts a program under a supervisor that outlives us, its output appended to a file of the host.
    pub(crate) fn spawn(&self, command_line: &[String], log: &str) -> Result<()> {
        // The shell inside ends at once, so that the host's init becomes the program's parent and reaps it.
        let script = "setsid sh \"$@\" >/dev/null 2>&1 </dev/null &";
        let mut command = self.enter("env -i HOME=/root \"PATH=$TESTBED_PATH\"")?;
        command.env("TESTBED_PATH", self.search_path());
        command.args(["sh", "-c", script, "sh"]);
        command
            .arg(self.file(SUPERVISE_SCRIPT))
            .arg(log)
            .args(command_line);
        output::of(&mut command).map(drop)
    }

    /// Boots the host unless it is up. Its network namespace must be there.
    pub(crate) fn boot(&self) -> Result<()> {
        let layout = Layout::read()?;
        if self.init()?.is_none() {
            // A failed boot, or the launcher of a killed init, may have left processes.
            kill_all(&layout, Some(self.name))?;
            // A machine that boots has no cgroups. A kubelet that finds some, of pods that are gone, waits three seconds for
            // each before it starts a pod.
            layout.remove(Some(self.name))?;
            layout.create(self.name)?;
            self.launch(&layout)?;
        }
        wait::until(Duration::from_secs(10), &format!("booting {}", self.name), || {
            self.check_booted()
        })?;
        layout.settle(self.name)
    }

    /// Cuts the power: kills the init and with it all other processes, and waits until none is left.
    pub(crate) fn power_off(&self) -> Result<()> {
        let layout = Layout::read()?;
        if let Some(init) = self.init()? {
            process::send(init, Signal::SIGKILL)?;
        }
        kill_all(&layout, Some(self.name))
    }

    fn launch(&self, layout: &Layout) -> Result<()> {
        let script = format!(
            "{CLOSE_OTHERS}{}exec setsid --fork \"$@\"",
            join(&layout.launch_files(self.name))
        );
        let log_path = state::files(self.name).join("boot.log");
        let log =
            fs::File::create(&log_path).with_context(|| format!("failed to write {}", log_path.display()))?;
        let status = Command::new("sh")
            .args(["-euc", &script, "sh", "nsenter"])
            .arg(format!("--net={}", network::namespace_path(self.name).display()))
            .args(["unshare", "--mount", "--pid", "--uts", "--ipc", "--cgroup"])
            .args(["--fork", "--kill-child", "--mount-proc", "sh"])
            .arg(self.file(BOOT_SCRIPT))
            .arg(self.name.to_string())
            .arg(state::files(self.name))
            .arg(layout.mounts())
            .args(OWN_DIRECTORIES)
            .env_clear()
            .env("PATH", PATH)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("failed to share the boot's log")?)
            .stderr(log)
            .status()
            .with_context(|| format!("failed to launch {}", self.name))?;
        if !status.success() {
            bail!("failed to launch {} ({status}): {}", self.name, self.boot_log());
        }
        Ok(())
    }

    fn check_booted(&self) -> Result<()> {
        match self.init()? {
            Some(init)
                if Path::new("/proc")
                    .join(init.to_string())
                    .join("root")
                    .join(BOOTED)
                    .exists() =>
            {
                Ok(())
            }
            Some(_) => bail!("its init is still at work; so far: {}", self.boot_log()),
            None => bail!("its init has died: {}", self.boot_log()),
        }
    }

    fn boot_log(&self) -> String {
        let log = fs::read_to_string(state::files(self.name).join("boot.log")).unwrap_or_default();
        if log.is_empty() {
            "it said nothing".to_owned()
        } else {
            log.trim().to_owned()
        }
    }

    /// A shell that joins the host's cgroups, enters its namespaces and becomes `wrapper` with what is added to it.
    fn enter(&self, wrapper: &str) -> Result<Command> {
        let layout = Layout::read()?;
        let Some(init) = process::find_init(&layout.pids(Some(self.name))?) else {
            bail!("{0} is not up: `start` it with `up`, or `reboot {0}`", self.name);
        };
        // First the cgroups: a process that enters from outside of them sees itself at /../.., and kubelet fails.
        let script = format!(
            "{CLOSE_OTHERS}{}ulimit -n \"$(ulimit -H -n)\"; exec nsenter -t {init} -a {wrapper} \"$@\"",
            join(&layout.join_files(self.name))
        );
        let mut command = Command::new("sh");
        command
            .args(["-euc", &script, "sh"])
            .env("PATH", self.search_path());
        Ok(command)
    }

    fn search_path(&self) -> String {
        let Programs {
            kubernetes,
            etcd,
            helm,
        } = &self.programs;
        format!(
            "{}:{}:{}:{PATH}",
            kubernetes.display(),
            etcd.display(),
            helm.display()
        )
    }
}

/// Kills every process in our cgroups and waits until none is left.
pub(crate) fn kill_all(layout: &Layout, host: Option<HostName>) -> Result<()> {
    wait::until(
        Duration::from_secs(20),
        "killing what runs in the testbed",
        || {
            let pids = layout.pids(host)?;
            for pid in &pids {
                process::send(*pid, Signal::SIGKILL)?;
            }
            match pids.as_slice() {
                [] => Ok(()),
                [first, ..] => bail!("{} processes are left, {first} among them", pids.len()),
            }
        },
    )
}

fn join(files: &[PathBuf]) -> String {
    let join = |file: &PathBuf| format!("echo $$ >'{}'; ", file.display());
    files.iter().map(join).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_keeps_none_of_its_callers_files_open() {
        let open = |before: &str| {
            let script = format!("{before}ls /proc/self/fd");
            let mut inner = Command::new("sh");
            inner.args(["-euc", &format!("exec 8</dev/null; exec sh -euc '{script}'")]);
            let listed = output::of(&mut inner).unwrap();
            listed.lines().any(|number| number == "8")
        };
        assert!(open(""));
        assert!(!open(CLOSE_OTHERS));
    }
}
