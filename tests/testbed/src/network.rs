//! The network: a bridge, for each host a network namespace with a veth pair ("cable") to it, and a cable to the machine.
//!
//! The bridge has its own namespace. In the machine's own namespace, firewall rules such as Docker's would drop packets
//! between hosts.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::address::{self, HostName, MACHINE, MACHINE_V6};
use crate::output;

/// The machine's end of its cable: the only link of the testbed in the machine's namespace.
const MACHINE_LINK: &str = "trivet0";

/// The network namespace with the bridge, and the other ends of all cables.
const WIRE: &str = "trivet-wire";

/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";

/// The name of a host's network namespace.
pub(crate) fn namespace(host: HostName) -> String {
    format!("trivet-{host}")
}

/// Where a host's network namespace is mounted.
pub(crate) fn namespace_path(host: HostName) -> PathBuf {
    Path::new(NAMESPACES).join(namespace(host))
}

/// Fails if another network on the machine uses the testbed's addresses.
pub(crate) fn check_free() -> Result<()> {
    for network in [address::HOST_NETWORK, address::POD_NETWORK] {
        let routes = output::of(Command::new("ip").args(["-4", "route", "show", "root", network]))?;
        if let Some(other) = routes.lines().find(|route| !route.contains(MACHINE_LINK)) {
            bail!(
                "the testbed's addresses {network} are in use on this machine (route `{}`): remove that route first",
                other.trim()
            );
        }
    }
    Ok(())
}

/// Makes the bridge and the machine's cable. Those that are complete stay as they are.
pub(crate) fn ensure_wire() -> Result<()> {
    if wire_is_complete() {
        return Ok(());
    }
    remove_machine_link()?;
    delete_namespace(WIRE)?;
    output::of(Command::new("ip").args(["netns", "add", WIRE]))?;
    ip(
        &format!(
            "link add bridge type bridge\n\
             link set bridge up\n\
             link add machine type veth peer name {MACHINE_LINK} netns {}\n\
             link set machine master bridge up\n",
            std::process::id(),
        ),
        Some(WIRE),
    )?;
    // The IPv6 address comes last: it is how we know that the rest is there.
    ip(
        &format!(
            "link set {MACHINE_LINK} up\n\
             address add {MACHINE}/24 dev {MACHINE_LINK}\n\
             address add {MACHINE_V6}/64 dev {MACHINE_LINK} nodad\n"
        ),
        None,
    )
}

/// Makes a host's network namespace and cable. One that is complete stays as it is.
pub(crate) fn ensure_host(host: HostName) -> Result<()> {
    if is_complete(host) {
        return Ok(());
    }
    remove_host(host)?;
    let namespace = namespace(host);
    output::of(Command::new("ip").args(["netns", "add", &namespace]))?;
    ip(
        &format!(
            "link add {host} type veth peer name eth0 netns {namespace}\n\
             link set {host} master bridge up\n"
        ),
        Some(WIRE),
    )?;
    let forward = "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";
    output::of(
        Command::new("nsenter")
            .arg(format!("--net={}", namespace_path(host).display()))
            .args(["sh", "-euc", forward]),
    )?;
    // The IPv6 route comes last: it is how we know that the rest is there.
    ip(
        &format!(
            "link set lo up\n\
             link set eth0 up\n\
             address add {}/24 dev eth0\n\
             route add default via {MACHINE}\n\
             address add {}/64 dev eth0 nodad\n\
             route add default via {MACHINE_V6}\n",
            host.ipv4(),
            host.ipv6(),
        ),
        Some(&namespace),
    )
}

/// Sets the routes to every host's pods, on the machine and in every host.
pub(crate) fn ensure_routes(hosts: &[HostName]) -> Result<()> {
    let route = |to: &HostName| format!("route replace {} via {}\n", to.pod_network(), to.ipv4());
    ip(&hosts.iter().map(route).collect::<String>(), None)?;
    for host in hosts {
        let others = hosts.iter().filter(|other| *other != host);
        ip(&others.map(route).collect::<String>(), Some(&namespace(*host)))?;
    }
    Ok(())
}

/// Removes a host's network namespace and cable, as far as they exist.
pub(crate) fn remove_host(host: HostName) -> Result<()> {
    // The cable first: a namespace ends some time after its deletion, and its links with it.
    if has_link(WIRE, &host.to_string()) {
        ip(&format!("link delete {host}\n"), Some(WIRE))?;
    }
    delete_namespace(&namespace(host))
}

/// Removes the namespaces and links of all hosts, the bridge, and the machine's cable.
pub(crate) fn remove_all() -> Result<()> {
    remove_machine_link()?;
    namespaces()?
        .iter()
        .try_for_each(|namespace| delete_namespace(namespace))
}

/// Our links and namespaces that exist, for people.
pub(crate) fn leftovers() -> Result<Vec<String>> {
    let link = machine_link_exists().then(|| format!("link {MACHINE_LINK}"));
    let namespaces = namespaces()?;
    let namespaces = namespaces.iter().map(|name| format!("network namespace {name}"));
    Ok(link.into_iter().chain(namespaces).collect())
}

fn machine_link_exists() -> bool {
    Path::new("/sys/class/net").join(MACHINE_LINK).exists()
}

fn remove_machine_link() -> Result<()> {
    if machine_link_exists() {
        ip(&format!("link delete {MACHINE_LINK}\n"), None)?;
    }
    Ok(())
}

fn delete_namespace(namespace: &str) -> Result<()> {
    if Path::new(NAMESPACES).join(namespace).exists() {
        output::of(Command::new("ip").args(["netns", "delete", namespace]))?;
    }
    Ok(())
}

fn wire_is_complete() -> bool {
    let mut show = Command::new("ip");
    show.args(["-6", "address", "show", "dev", MACHINE_LINK]);
    has_link(WIRE, "bridge")
        && output::of(&mut show).is_ok_and(|shown| shown.contains(&MACHINE_V6.to_string()))
}

/// Whether a host has its network namespace, its cable and its addresses.
pub(crate) fn is_complete(host: HostName) -> bool {
    let mut show = Command::new("ip");
    show.args(["-n", &namespace(host), "-6", "route", "show", "default"]);
    has_link(WIRE, &host.to_string()) && output::of(&mut show).is_ok_and(|routes| routes.contains("eth0"))
}

fn has_link(namespace: &str, link: &str) -> bool {
    output::of(Command::new("ip").args(["-n", namespace, "link", "show", link])).is_ok()
}

/// The testbed's namespaces that exist, by their exact names: others may begin with `trivet-` too.
fn namespaces() -> Result<Vec<String>> {
    let entries = match fs::read_dir(NAMESPACES) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("failed to list {NAMESPACES}")),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| is_ours(name)).collect())
}

fn is_ours(namespace: &str) -> bool {
    let host = |name: &str| name.parse::<HostName>().is_ok();
    namespace == WIRE || namespace.strip_prefix("trivet-").is_some_and(host)
}

/// Runs a batch of `ip` commands, here or in a namespace, up to the first that fails.
fn ip(batch: &str, namespace: Option<&str>) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    output::with_input(command.args(["-batch", "-"]), batch)
        .map(drop)
        .with_context(|| format!("failed to set up the network with `ip`:\n{}", batch.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaces_that_we_would_name_so_are_ours() {
        assert!(is_ours("trivet-cp1") && is_ours("trivet-w12") && is_ours(WIRE));
        assert!(!is_ours("trivet-vpn") && !is_ours("cp1") && !is_ours("trivet-"));
    }
}
