//! Leads the clients of a virtual address to the proxy, though the apiserver of the node listens on the same port.
//!
//! The kernel redirects them by tables of nftables, which Trivet has for itself. Connections to the node's own addresses
//! are not touched, so what the proxy opens to the apiserver of its node cannot come back to it.

mod rules;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
};

use nix::libc;
use socket2::SockRef;

use self::rules::{Family, Table};
use super::netlink::{Netlink, message::Request};

/// What is redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirection {
    /// The virtual address.
    pub address: IpAddr,
    /// The TCP port to which its clients connect.
    pub port: u16,
    /// The port to which they are led. They arrive there at another address than the virtual one: those from elsewhere at
    /// the first address of the interface by which they come, those of the node itself at its loopback.
    pub to: u16,
}

/// The redirections of one agent. They end when this is dropped.
///
/// The kernel binds the tables to the agent's socket (Linux 5.12 and later): when its process ends, by a crash too, they are
/// gone, and no other program can remove or flush them. An older kernel keeps them, so an agent that starts calls
/// [`remove`] first.
///
/// Without redirections, new connections reach the apiserver of the node. Those that were redirected stay so: the kernel
/// remembers it for each of them.
#[derive(Debug)]
pub struct Steering {
    netlink: Netlink,
    name: String,
    /// The families that have a table.
    present: Vec<Family>,
    ownership: Ownership,
}

/// What becomes of the tables when their process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// The kernel removes them.
    Bound,
    /// They stay: the kernel is older than Linux 5.12.
    Free,
}

impl Steering {
    /// Redirects nothing yet. The name is that of the tables, up to 255 bytes.
    pub fn open(name: &str) -> io::Result<Self> {
        Ok(Self {
            netlink: Netlink::netfilter()?,
            name: name.to_owned(),
            present: Vec::new(),
            ownership: Ownership::Bound,
        })
    }

    /// Has the kernel redirect all of these, and nothing else under this name, from one packet to the next: if it fails,
    /// all stays as it was. Without `CAP_NET_ADMIN` it is `EPERM`, and so it is while another process has the name.
    pub fn redirect(&mut self, redirections: &[Redirection]) -> io::Result<()> {
        let outcome = self.netlink.change_all(&self.batch(redirections));
        match (outcome, self.ownership) {
            (Err(error), Ownership::Bound) if is_unknown_flag(&error) => {
                self.ownership = Ownership::Free;
                self.netlink.change_all(&self.batch(redirections))?;
            }
            (outcome, Ownership::Bound | Ownership::Free) => outcome?,
        }
        self.present = families(redirections);
        Ok(())
    }

    /// What becomes of the tables when the process ends.
    pub fn ownership(&self) -> Ownership {
        self.ownership
    }

    /// Whether the tables are still there. A program that flushes all of nftables removes those that are free.
    pub fn is_in_force(&mut self) -> io::Result<bool> {
        for family in &self.present {
            let table = Table {
                family: *family,
                name: &self.name,
            };
            match self.netlink.change(table.sought()) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Replaces the tables that there are.
    fn batch(&self, redirections: &[Redirection]) -> Vec<Request> {
        let wanted = families(redirections);
        let mut requests = Vec::new();
        for family in Family::ALL {
            let table = Table {
                family,
                name: &self.name,
            };
            if wanted.contains(&family) || self.present.contains(&family) {
                requests.extend(table.absent());
            }
            if wanted.contains(&family) {
                requests.extend(table.present(self.ownership, redirections));
            }
        }
        transaction(requests)
    }
}

/// The socket to which the tables are bound: while another process has a copy of it, they stay.
impl AsFd for Steering {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netlink.as_fd()
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        if let Err(error) = self.redirect(&[]) {
            tracing::warn!(%error, table = self.name, "failed to end the redirections of a virtual address");
        }
    }
}

/// Removes the tables that a process which has ended has left under this name; no error if there are none.
pub fn remove(name: &str) -> io::Result<()> {
    let mut netlink = Netlink::netfilter()?;
    for family in Family::ALL {
        let absent = Table { family, name }.absent();
        match netlink.change_all(&transaction(absent)) {
            // A kernel without that family has no tables of it.
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => {
                return Err(error);
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// To which address and port the client of an accepted connection has connected, before it was redirected. A listener for
/// a virtual address takes nobody who has not connected to that.
pub fn original_destination(accepted: &impl AsFd) -> io::Result<SocketAddr> {
    let socket = SockRef::from(accepted);
    let local = socket.local_addr()?.as_socket();
    let original = match local.ok_or(io::ErrorKind::Unsupported)? {
        SocketAddr::V6(local) if local.ip().to_ipv4_mapped().is_none() => socket.original_dst_v6()?,
        SocketAddr::V4(_) | SocketAddr::V6(_) => socket.original_dst_v4()?,
    };
    original
        .as_socket()
        .ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// The families of these addresses.
fn families(redirections: &[Redirection]) -> Vec<Family> {
    let has = |family: &Family| {
        redirections
            .iter()
            .any(|redirection| Family::of(redirection.address) == *family)
    };
    Family::ALL.into_iter().filter(has).collect()
}

/// Encloses requests in a batch, the last of them to be acknowledged.
fn transaction(mut requests: Vec<Request>) -> Vec<Request> {
    let last = requests.pop().map(Request::acknowledged);
    requests.insert(0, rules::begin());
    requests.extend(last);
    requests.push(rules::commit());
    requests
}

/// How kernels answer a table's flag that they do not know.
fn is_unknown_flag(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL))
}
