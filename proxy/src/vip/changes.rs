//! What happens to a node's interfaces and addresses, as the kernel tells it.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use nix::libc;

use super::{
    address::Assigned,
    interface::Interface,
    netlink::{Netlink, message::Message},
};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An interface is new, or something of it is: it lost its carrier for example. The kernel tells of carriers once a second
    /// at most, those of all interfaces and networks together, so on a node where pods come and go it is late by up to a
    /// second. Who must know sooner asks [`super::interface::by_index`], which is never late.
    Interface(Interface),
    /// The interface of this index is gone.
    InterfaceGone(u32),
    /// An address is new, or its time was prolonged.
    Address(Assigned),
    /// An address is gone: somebody removed it, or its time was over.
    AddressGone(Assigned),
    /// The kernel had more to tell than it could keep: what is known of interfaces and addresses may be wrong, so read it
    /// again.
    Missed,
}

/// Hears of changes. Its file is readable when there are some.
#[derive(Debug)]
pub struct Changes {
    netlink: Netlink,
}

impl Changes {
    /// Hears of every change from now on.
    pub fn subscribe() -> io::Result<Self> {
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        let netlink = Netlink::subscribe(groups.cast_unsigned())?;
        Ok(Self { netlink })
    }

    /// The next changes, in order; none if there are none at the moment. Never waits.
    pub fn hear(&mut self) -> io::Result<Vec<Change>> {
        match self.netlink.told() {
            Ok(messages) => Ok(messages.into_iter().flatten().filter_map(change).collect()),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(vec![Change::Missed]),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netlink.as_fd()
    }
}

fn change(message: Message<'_>) -> Option<Change> {
    match message.kind {
        libc::RTM_NEWLINK => Interface::read(&message).map(Change::Interface),
        libc::RTM_DELLINK => {
            let interface = Interface::read(&message)?;
            Some(Change::InterfaceGone(interface.index))
        }
        libc::RTM_NEWADDR => Assigned::read(&message).map(Change::Address),
        libc::RTM_DELADDR => Assigned::read(&message).map(Change::AddressGone),
        _ => None,
    }
}
