//! The network of one lab: a bridge in its own namespace, and for each place a namespace with a veth pair ("cable") to it.
//!
//! Nothing is created in the machine's own namespace, so every lab uses the same addresses. The names of the namespaces
//! contain the pid of the test, so that the next test finds and removes what a killed one left.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};

use crate::process;

/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";

/// How the names of all our namespaces begin.
const PREFIX: &str = "trivet-lab-";

/// Labs of this process so far.
static LABS: AtomicU32 = AtomicU32::new(0);

/// A place on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Where the proxy and its clients are.
    Node,
    /// Where a member is, counted from 1.
    Member(u8),
    /// The place of an apiserver without faults, which no document names.
    Reference,
}

impl Place {
    /// Its name: on the wire, and that of its apiserver.
    pub fn name(self) -> String {
        match self {
            Self::Node => "node".to_owned(),
            Self::Member(index) => format!("cp{index}"),
            Self::Reference => "reference".to_owned(),
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Node => 1,
            Self::Reference => 2,
            Self::Member(index) => index.saturating_add(10),
        }
    }

    /// Its IPv4 address.
    pub fn ipv4(self) -> IpAddr {
        Ipv4Addr::new(10, 77, 0, self.number()).into()
    }

    /// Its IPv6 address.
    pub fn ipv6(self) -> IpAddr {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, self.number().into()).into()
    }
}

/// The namespaces and cables of one lab. Dropping it removes them, with every process in them.
#[derive(Debug)]
pub(crate) struct Network {
    name: String,
}

impl Network {
    /// Lays cables to these places.
    pub(crate) fn lay(places: &[Place]) -> Result<Self> {
        sweep()?;
        let serial = LABS.fetch_add(1, Ordering::Relaxed);
        let network = Self {
            name: format!("{PREFIX}{}-{serial}", std::process::id()),
        };
        let wire = network.wire();
        let mut batch = format!("netns add {wire}\n");
        for place in places {
            let (name, namespace) = (place.name(), network.namespace(*place));
            batch.extend([
                format!("netns add {namespace}\n"),
                format!("link add eth0 netns {namespace} type veth peer name {name} netns {wire}\n"),
            ]);
        }
        ip(None, &batch)?;
        let mut batch =
            "link add name bridge type bridge mcast_snooping 0\nlink set dev bridge up\n".to_owned();
        for place in places {
            batch.extend([format!("link set dev {} master bridge up\n", place.name())]);
        }
        ip(Some(&wire), &batch)?;
        for place in places {
            let batch = format!(
                "link set dev lo up\n\
                 link set dev eth0 up\n\
                 address add {}/24 dev eth0\n\
                 address add {}/64 dev eth0 nodad\n",
                place.ipv4(),
                place.ipv6(),
            );
            ip(Some(&network.namespace(*place)), &batch)?;
        }
        Ok(network)
    }

    /// The name of a place's network namespace.
    pub(crate) fn namespace(&self, place: Place) -> String {
        format!("{}-{}", self.name, place.name())
    }

    /// Where a place's network namespace is mounted.
    pub(crate) fn path(&self, place: Place) -> PathBuf {
        path(&self.namespace(place))
    }

    /// Pulls the cable of a place, or plugs it in again. Without the cable its address does not even resolve by ARP.
    pub(crate) async fn plug(&self, place: Place, plugged: bool) -> Result<()> {
        let state = if plugged { "up" } else { "down" };
        let link = place.name();
        process::feed(
            &self.wire(),
            "ip",
            &["-batch", "-"],
            &format!("link set dev {link} {state}\n"),
        )
        .await
    }

    fn wire(&self) -> String {
        format!("{}-wire", self.name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = remove(|name| name.starts_with(&format!("{}-", self.name))) {
            eprintln!("left behind: {error:#}");
        }
    }
}

/// Where a network namespace is mounted.
pub(crate) fn path(namespace: &str) -> PathBuf {
    Path::new(NAMESPACES).join(namespace)
}

/// Removes what labs of dead processes have left.
fn sweep() -> Result<()> {
    let stale =
        |name: &str| owner(name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists());
    remove(stale)
}

/// The pid of the test whose namespace this is.
fn owner(namespace: &str) -> Option<u32> {
    let (pid, _) = namespace.strip_prefix(PREFIX)?.split_once('-')?;
    pid.parse().ok()
}

fn remove(chosen: impl Fn(&str) -> bool) -> Result<()> {
    let Ok(entries) = fs::read_dir(NAMESPACES) else {
        return Ok(());
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    for name in names.filter(|name| chosen(name)) {
        // Another test may remove it at the same moment; then there is nothing to do.
        let Ok(pids) = process::output("ip", &["netns", "pids", &name]) else {
            continue;
        };
        for pid in pids.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            process::kill(pid)?;
        }
        if let Err(error) = process::output("ip", &["netns", "delete", &name])
            && path(&name).exists()
        {
            return Err(error);
        }
    }
    Ok(())
}

/// Runs a batch of `ip` commands, here or in a namespace, up to the first that fails.
fn ip(namespace: Option<&str>, batch: &str) -> Result<()> {
    let inside: Vec<_> = namespace
        .iter()
        .flat_map(|namespace| ["-n", *namespace])
        .collect();
    let arguments = [inside.as_slice(), &["-batch", "-"]].concat();
    process::output_of("ip", &arguments, batch)
        .map(drop)
        .with_context(|| format!("failed to lay the lab's cables:\n{}", batch.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_namespaces_have_an_owner() {
        assert_eq!(owner("trivet-lab-4711-0-cp1"), Some(4711));
        assert_eq!(owner("trivet-cp1"), None);
        assert_eq!(owner("trivet-lab-x-0-cp1"), None);
    }
}
