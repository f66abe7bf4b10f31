//! No file descriptor is left to accept with (O11): the accept loop pauses without spinning, and continues once there are
//! file descriptors again.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::support::{SECOND, serving};

/// Fewer than the proxy has open at rest, so that it cannot open another.
const NO_MORE: &str = "8";

/// Sets the soft limit. The hard limit stays, so that the test can raise the soft one again.
fn limit_files(pid: i32, limit: &str) -> Result<()> {
    let status = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--nofile={limit}:")])
        .status()
        .context("failed to start prlimit")?;
    ensure!(status.success(), "prlimit ended with {status}");
    Ok(())
}

/// The current soft limit.
fn limit_of_files(pid: i32) -> Result<String> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    Ok(soft.context("no limit of open files")?.to_owned())
}

#[test]
fn without_spinning() -> Result<()> {
    serving(2, async |lab| {
        let watches = lab.watches(4).await;
        let began = Instant::now();
        let usual = limit_of_files(lab.proxy().pid())?;
        limit_files(lab.proxy().pid(), NO_MORE)?;
        let mut waiting = Vec::new();
        for _ in 0..50 {
            waiting.push(TcpStream::connect(("127.0.0.1", 7443)).await?);
        }
        sleep(SECOND).await;
        let before = lab.proxy().usage()?.cpu;
        sleep(4 * SECOND).await;
        let used = lab.proxy().usage()?.cpu.saturating_sub(before);
        println!("{used:?} of processor time in 4 s");
        assert!(used < 4 * SECOND / 20, "{used:?} in 4 s is more than 5 %");
        assert!(
            watches.ended_since(began).is_empty(),
            "connections were lost for want of files"
        );
        limit_files(lab.proxy().pid(), &usual)?;
        let freed = Instant::now();
        lab.client().who().await?;
        println!("served after {:?}", freed.elapsed());
        assert!(freed.elapsed() <= SECOND, "served after {:?}", freed.elapsed());
        Ok(())
    })
}
