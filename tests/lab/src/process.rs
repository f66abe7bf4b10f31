//! Processes of a lab: each in the network namespace of its place, and none outlives its test.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command as Blocking, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    sys::signal::{self, Signal},
    unistd::Pid,
};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::network;

/// The limit for the kernel to stop or end a process on a busy machine.
const KERNEL_LIMIT: Duration = Duration::from_secs(5);

/// A command in a network namespace. The kernel kills its process when the thread that started it ends, also after a crash.
/// nsenter and setpriv `exec` the next command, so there is one process and its pid is the program's.
pub(crate) fn command(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", network::path(namespace).display()))
        .args(["setpriv", "--pdeathsig", "KILL", "--"])
        .arg(program)
        .kill_on_drop(true);
    command
}

/// Runs a command in a network namespace to its end, with this input.
pub(crate) async fn feed(namespace: &str, program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let mut child = command(namespace, Path::new(program))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(input.as_bytes())
            .await
            .with_context(|| format!("failed to write to {program}"))?;
    }
    let output = child
        .wait_with_output()
        .await
        .with_context(|| format!("lost {program}"))?;
    ensure!(
        output.status.success(),
        "{program} ended with {}: {}\n{input}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// The output of a command. Blocks the thread until it ends.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Result<String> {
    output_of(program, arguments, "")
}

/// The output of a command with this input.
pub(crate) fn output_of(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let mut child = Blocking::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(input.as_bytes())
            .with_context(|| format!("failed to write to {program}"))?;
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("lost {program}"))?;
    if !output.status.success() {
        bail!(
            "{program} {} ended with {}: {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} says what is no text"))
}

/// Kills a process by its pid; no error if it has ended already.
pub(crate) fn kill(pid: i32) -> Result<()> {
    match signal::kill(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("failed to kill {pid}")),
    }
}

/// The resource usage of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Time on a processor.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub memory: u64,
}

/// A running process.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    pid: i32,
}

impl Program {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let child = command.spawn().context("failed to start a program of the lab")?;
        let pid = child.id().context("a program of the lab has ended at once")?;
        Ok(Self {
            pid: i32::try_from(pid).context("the kernel has given a pid that is none")?,
            child,
        })
    }

    /// The process.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        signal::kill(Pid::from_raw(self.pid), signal)
            .with_context(|| format!("failed to send {signal} to {}", self.pid))
    }

    /// Stops it; returns once it is stopped.
    pub(crate) async fn stop(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        let deadline = Instant::now() + KERNEL_LIMIT;
        while self.stat()?.first().map(String::as_str) != Some("T") {
            ensure!(Instant::now() < deadline, "{} does not stop", self.pid);
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Kills it; returns once the kernel has closed all of its files.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .await
            .context("failed to kill a program of the lab")
    }

    /// Waits for its end and returns whether it succeeded.
    pub(crate) async fn ended(&mut self) -> Result<bool> {
        let status = self.child.wait().await.context("lost a program of the lab")?;
        Ok(status.success())
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        let ended = self.child.try_wait().context("lost a program of the lab")?;
        Ok(ended.is_some())
    }

    /// Its resource usage so far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let ticks = |index: usize| -> Result<u64> {
            let fields = self.stat()?;
            let field = fields.get(index).context("too few fields in /proc/PID/stat")?;
            Ok(field.parse()?)
        };
        let status = fs::read_to_string(self.proc("status")).context("failed to read /proc/PID/status")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 = resident
            .and_then(|value| value.trim().strip_suffix(" kB"))
            .context("no VmRSS in /proc/PID/status")?
            .parse()?;
        Ok(Usage {
            // Fields 14 and 15, in hundredths of a second on every Linux that Kubernetes runs on.
            cpu: Duration::from_millis((ticks(11)? + ticks(12)?) * 10),
            memory: kib << 10,
        })
    }

    /// The fields of /proc/PID/stat from the third: the state.
    fn stat(&self) -> Result<Vec<String>> {
        let stat = fs::read_to_string(self.proc("stat")).context("failed to read /proc/PID/stat")?;
        let (_, fields) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
        Ok(fields.split_whitespace().map(str::to_owned).collect())
    }

    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join(file)
    }
}
