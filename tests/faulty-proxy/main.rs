//! The proxy as it ships, with one fault: what a broken release could be. Its image says which one, in a variable.
//!
//! The proxy itself knows nothing of it: the fault acts on the process, before the proxy starts or from another thread.

use std::env;
use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::libc::SYS_recvfrom;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::SigSet;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use trivet_proxy::admin::{self, Question};

/// Which fault it has.
const FAULT: &str = "TRIVET_FAULT";

/// A relay reads at least so much at once, and nothing else of the proxy does.
const READ_OF_A_RELAY: u64 = 64 * 1024;

/// The open files of a proxy that leaks them, at most: so few that they are used up within its soak.
const FILES: u64 = 4096;

/// The pause between two files that are opened.
const OPEN_EVERY: Duration = Duration::from_millis(1);

/// The memory of a proxy that leaks it, at most, and what it takes at once.
const MEMORY_MEBIBYTES: usize = 220;
const MEBIBYTE: usize = 1024 * 1024;

/// The pause between two mebibytes.
const TAKE_EVERY: Duration = Duration::from_millis(25);

/// The pause between two questions whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    // Not the probes, which are processes of their own.
    let serves = env::args().nth(1).is_some_and(|command| command == "run");
    if serves && let Err(error) = begin() {
        eprintln!("faulty-proxy: {error:#}");
        return ExitCode::FAILURE;
    }
    trivet_proxy::program::main()
}

#[allow(
    clippy::disallowed_methods,
    reason = "the command line is the proxy's, and the image names the fault"
)]
fn begin() -> Result<()> {
    let fault = env::var(FAULT).with_context(|| format!("failed to read {FAULT}"))?;
    match fault.as_str() {
        "does-not-forward" => forward_nothing(),
        "leaks-files" => {
            setrlimit(Resource::RLIMIT_NOFILE, FILES, FILES).context("failed to limit the open files")?;
            once_ready(leak_files)
        }
        "leaks-memory" => once_ready(leak_memory),
        other => bail!("{FAULT} is {other:?}, which is no fault"),
    }
}

/// Lets each read of a relay fail: the process listens, accepts, dials and probes, and moves no byte. It must not find nothing
/// instead: tokio wakes a relay for a connection that was closed until it has read the end.
fn forward_nothing() -> Result<()> {
    let of_a_relay = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ge, READ_OF_A_RELAY)?;
    let fails = SeccompAction::Errno(nix::libc::EIO.unsigned_abs());
    let filter = SeccompFilter::new(
        [(SYS_recvfrom, vec![SeccompRule::new(vec![of_a_relay])?])].into(),
        SeccompAction::Allow,
        fails,
        env::consts::ARCH.try_into()?,
    )?;
    seccompiler::apply_filter(&BpfProgram::try_from(filter)?).context("failed to apply the filter")
}

/// Does something in a thread of its own as soon as the proxy is ready: it has proven itself and serves.
fn once_ready(work: fn()) -> Result<()> {
    let socket = argument("--socket").context("the proxy has no --socket")?;
    let asking = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new().spawn(move || {
        // The proxy has a thread of its own for them, and this one would swallow them.
        if let Err(error) = SigSet::all().thread_block() {
            eprintln!("faulty-proxy: failed to hold signals back: {error}");
        }
        let is_ready = || {
            let answer = admin::probe(socket.clone(), Question::Ready, Duration::from_secs(1));
            asking.block_on(answer).is_ok_and(|(is_ready, _words)| is_ready)
        };
        while !is_ready() {
            thread::sleep(ASK_EVERY);
        }
        work();
    })?;
    Ok(())
}

fn argument(name: &str) -> Option<PathBuf> {
    let mut arguments = env::args().skip_while(|argument| argument != name);
    arguments.nth(1).map(PathBuf::from)
}

fn leak_files() {
    let mut files = Vec::new();
    loop {
        // Once none is left: those that clients leave.
        files.extend(File::open("/dev/null"));
        thread::sleep(OPEN_EVERY);
    }
}

fn leak_memory() {
    let mut taken = Vec::new();
    while taken.len() < MEMORY_MEBIBYTES {
        // Each page is written, or the kernel would give none.
        taken.push(vec![1_u8; MEBIBYTE]);
        thread::sleep(TAKE_EVERY);
    }
    std::mem::forget(taken);
}
