//! A network of our own: it ends with the last process in it, however that ends, and leaves nothing to clean up.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};

/// What differs from the defaults in it, in the order it is written.
const SETTINGS: [(&str, &str); 4] = [
    // bbr paces, and on loopback the pace is what would be measured. Every kernel lets every network use reno, and on
    // loopback, where nothing is lost, it differs from cubic in name only.
    ("tcp_congestion_control", "reno"),
    // Ten thousand connections twice, and those that linger in TIME_WAIT from the run before.
    ("ip_local_port_range", "10240 65000"),
    ("tcp_tw_reuse", "1"),
    ("tcp_max_tw_buckets", "200000"),
];

/// Moves this process, and all that it starts from now on, into a network that holds nothing but a loopback.
pub(crate) fn enter() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("failed to make a network namespace: this must run as root")?;
    let status = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()
        .context("failed to start ip")?;
    ensure!(status.success(), "`ip link set lo up` ended with {status}");
    for (name, value) in SETTINGS {
        let path = format!("/proc/sys/net/ipv4/{name}");
        fs::write(&path, value).with_context(|| format!("failed to write {value:?} to {path}"))?;
    }
    Ok(())
}

/// The congestion control in force here.
pub(crate) fn congestion_control() -> String {
    fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")
        .map_or_else(|error| error.to_string(), |text| text.trim().to_owned())
}
