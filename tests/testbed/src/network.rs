//! The wire: one bridge on the machine, and for each host a network namespace with a cable to it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::address::{self, BRIDGE, BRIDGE_V6, HostName};
use crate::output;

/// The bridge. With the hosts' cables, the only links of ours on the machine.
const BRIDGE_LINK: &str = "trivet0";

/// The machine's end of a host's cable is this and the host's name.
const CABLE_PREFIX: &str = "trivet-";

/// The name of a host's network namespace.
pub(crate) fn namespace(host: HostName) -> String {
    format!("trivet-{host}")
}

/// Where a host's network namespace is mounted.
pub(crate) fn namespace_path(host: HostName) -> PathBuf {
    Path::new("/run/netns").join(namespace(host))
}

/// Fails if somebody else's network uses our addresses.
pub(crate) fn check_free() -> Result<()> {
    for network in [address::HOST_NETWORK, address::POD_NETWORK] {
        let routes = output::of(Command::new("ip").args(["-4", "route", "show", "root", network]))?;
        if let Some(other) = routes.lines().find(|route| !route.contains(BRIDGE_LINK)) {
            bail!(
                "the testbed's addresses {network} are in use on this machine (route `{}`): remove that route first",
                other.trim()
            );
        }
    }
    Ok(())
}

/// Makes the bridge, or completes it.
pub(crate) fn ensure_bridge() -> Result<()> {
    if !link_exists(BRIDGE_LINK) {
        // Docker and its like make the kernel filter bridged packets; this bridge's are nobody's business.
        ip(
            &format!("link add {BRIDGE_LINK} type bridge nf_call_iptables 0 nf_call_ip6tables 0\n"),
            None,
        )?;
    }
    ip(
        &format!(
            "address replace {BRIDGE}/24 dev {BRIDGE_LINK}\n\
             address replace {BRIDGE_V6}/64 dev {BRIDGE_LINK} nodad\n\
             link set {BRIDGE_LINK} up\n"
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
    let cable = cable(host);
    output::of(Command::new("ip").args(["netns", "add", &namespace]))?;
    ip(
        &format!(
            "link add {cable} type veth peer name eth0 netns {namespace}\n\
             link set {cable} master {BRIDGE_LINK} up\n"
        ),
        None,
    )?;
    let script = "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";
    output::of(
        Command::new("nsenter")
            .arg(format!("--net={}", namespace_path(host).display()))
            .args(["sh", "-euc", script]),
    )?;
    // The IPv6 address comes last: it is how we know that the rest is there.
    ip(
        &format!(
            "link set lo up\n\
             link set eth0 up\n\
             address add {}/24 dev eth0\n\
             route add default via {BRIDGE}\n\
             address add {}/64 dev eth0 nodad\n\
             route add default via {BRIDGE_V6}\n",
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
    if link_exists(&cable(host)) {
        output::of(Command::new("ip").args(["link", "delete", &cable(host)]))?;
    }
    if namespace_path(host).exists() {
        output::of(Command::new("ip").args(["netns", "delete", &namespace(host)]))?;
    }
    Ok(())
}

/// Removes everything of ours, of whatever hosts.
pub(crate) fn remove_all() -> Result<()> {
    for link in links()? {
        output::of(Command::new("ip").args(["link", "delete", &link]))?;
    }
    for namespace in namespaces()? {
        output::of(Command::new("ip").args(["netns", "delete", &namespace]))?;
    }
    Ok(())
}

/// Our links and namespaces that exist, for people.
pub(crate) fn leftovers() -> Result<Vec<String>> {
    let links = links()?.into_iter().map(|link| format!("link {link}"));
    let namespaces = namespaces()?
        .into_iter()
        .map(|name| format!("network namespace {name}"));
    Ok(links.chain(namespaces).collect())
}

fn cable(host: HostName) -> String {
    format!("{CABLE_PREFIX}{host}")
}

fn link_exists(link: &str) -> bool {
    Path::new("/sys/class/net").join(link).exists()
}

fn is_complete(host: HostName) -> bool {
    let mut show = Command::new("ip");
    show.args(["-n", &namespace(host), "-6", "route", "show", "default"]);
    link_exists(&cable(host)) && output::of(&mut show).is_ok_and(|routes| routes.contains("eth0"))
}

/// The bridge and the cables that exist.
fn links() -> Result<Vec<String>> {
    let names = entries(Path::new("/sys/class/net"))?;
    Ok(names
        .into_iter()
        .filter(|name| name == BRIDGE_LINK || name.starts_with(CABLE_PREFIX))
        .collect())
}

fn namespaces() -> Result<Vec<String>> {
    let names = entries(Path::new("/run/netns"))?;
    // Only names that we would give: a person may have a namespace called trivet-something too.
    let ours = |name: &String| {
        name.strip_prefix("trivet-")
            .is_some_and(|host| host.parse::<HostName>().is_ok())
    };
    Ok(names.into_iter().filter(ours).collect())
}

fn entries(directory: &Path) -> Result<Vec<String>> {
    match std::fs::read_dir(directory) {
        Ok(entries) => Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("failed to list {}", directory.display())),
    }
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
