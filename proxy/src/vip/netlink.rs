//! Conversations with the kernel by netlink, from a plain thread.
//!
//! The crates that know all of rtnetlink (netlink-packet-route: 52,000 lines, 390 KB of program) know nothing of nftables.
//! Trivet needs four kinds of messages of the one and four of the other: [`message`] has their common form.

pub mod message;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
    },
};
use socket2::SockRef;

use self::message::{Message, Request, messages, word};

/// More than the kernel puts into one datagram of a dump (32 KiB at most), so that none is truncated.
const DATAGRAM: usize = 32 << 10;

/// The kernel answers before the request's system call returns; if no answer is there by then, none will come.
const LIMIT: Duration = Duration::from_secs(1);

/// How often a dump begins anew because what it lists has changed meanwhile.
const DUMPS: u32 = 4;

/// A socket to one of the kernel's netlink families.
///
/// A request waits for what the kernel itself waits for: rtnetlink has one lock for the whole machine, and whoever
/// changes hundreds of interfaces holds it for that long.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// For interfaces, addresses and routes.
    pub fn route() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute, 0)
    }

    /// For nftables.
    pub fn netfilter() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkNetFilter, 0)
    }

    /// Hears what happens to interfaces, addresses and routes: `groups` are `RTMGRP_*` of rtnetlink(7).
    pub fn subscribe(groups: u32) -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute, groups)
    }

    fn open(protocol: SockProtocol, groups: u32) -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        SockRef::from(&socket).set_read_timeout(Some(LIMIT))?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; DATAGRAM],
        })
    }

    /// Has the kernel change something. An error is the kernel's.
    pub fn change(&mut self, request: Request) -> io::Result<()> {
        self.read(request, |_| ())
    }

    /// Has the kernel do several things as one transaction (nfnetlink's batch). The last request before the end of the
    /// batch asks for an acknowledgement, or none will come.
    pub fn change_all(&mut self, requests: &[Request]) -> io::Result<()> {
        let first = self.sequence.wrapping_add(1);
        let datagram: Vec<u8> = requests
            .iter()
            .flat_map(|request| {
                self.sequence = self.sequence.wrapping_add(1);
                request.encode(self.sequence)
            })
            .collect();
        let last = self.sequence;
        let ours = |sequence: u32| sequence.wrapping_sub(first) <= last.wrapping_sub(first);
        self.send(&datagram)?;
        self.answers(ours, |_| ()).map(drop)
    }

    /// Asks the kernel, and gives each part of its answer to `each`. Of a dump that begins anew, because what it lists has
    /// changed, `each` gets some parts twice.
    pub fn read(&mut self, request: Request, mut each: impl FnMut(Message<'_>)) -> io::Result<()> {
        let request = request.acknowledged();
        for _ in 0..DUMPS {
            self.sequence = self.sequence.wrapping_add(1);
            let sequence = self.sequence;
            self.send(&request.encode(sequence))?;
            if self.answers(|other| other == sequence, &mut each)? == Dump::Whole {
                return Ok(());
            }
        }
        Err(Errno::EAGAIN.into())
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        send(self.socket.as_raw_fd(), datagram, MsgFlags::empty())?;
        Ok(())
    }

    /// Reads answers up to the last one.
    fn answers(&mut self, ours: impl Fn(u32) -> bool, mut each: impl FnMut(Message<'_>)) -> io::Result<Dump> {
        let mut dump = Dump::Whole;
        loop {
            let datagram = self.receive(MsgFlags::empty())?;
            for message in messages(datagram).filter(|message| ours(message.sequence)) {
                if message.flags & NLM_F_DUMP_INTR != 0 {
                    dump = Dump::Interrupted;
                }
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => return outcome(&message).map(|()| dump),
                    NLMSG_NOOP => {}
                    _ => each(message),
                }
            }
        }
    }

    /// What the kernel has told by itself; nothing if there is no more at the moment. `ENOBUFS` says that it has told more
    /// than this socket could hold.
    pub fn told(&mut self) -> io::Result<Option<impl Iterator<Item = Message<'_>>>> {
        match self.receive(MsgFlags::MSG_DONTWAIT) {
            Ok(datagram) => Ok(Some(messages(datagram))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn receive(&mut self, flags: MsgFlags) -> io::Result<&[u8]> {
        let length = loop {
            match recv(
                self.socket.as_raw_fd(),
                &mut self.buffer,
                flags | MsgFlags::MSG_TRUNC,
            ) {
                Err(Errno::EINTR) => {}
                length => break length?,
            }
        };
        // A longer one was cut: as if it had been lost.
        self.buffer.get(..length).ok_or_else(|| Errno::ENOBUFS.into())
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether a dump is consistent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dump {
    Whole,
    Interrupted,
}

/// What the end of an answer says: zero, or a negative errno.
fn outcome(message: &Message<'_>) -> io::Result<()> {
    match word(message.body, 0).map(u32::cast_signed) {
        // Before Linux 4.20 the end of a dump could be empty.
        None | Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}

const NLMSG_NOOP: u16 = kind(libc::NLMSG_NOOP);
const NLMSG_ERROR: u16 = kind(libc::NLMSG_ERROR);
const NLMSG_DONE: u16 = kind(libc::NLMSG_DONE);
const NLM_F_DUMP_INTR: u16 = kind(libc::NLM_F_DUMP_INTR);

/// A kind or flag, as a header holds it: `libc` declares them as `int`.
pub(super) const fn kind(value: libc::c_int) -> u16 {
    let [low, high, ..] = value.to_le_bytes();
    u16::from_le_bytes([low, high])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &[u8]) -> Message<'_> {
        Message {
            kind: NLMSG_ERROR,
            flags: 0,
            sequence: 1,
            body,
        }
    }

    #[test]
    fn the_end_of_an_answer_is_an_acknowledgement_or_the_kernels_error() {
        assert!(outcome(&message(&[0; 4])).is_ok());
        assert!(outcome(&message(&[])).is_ok());
        let refused = outcome(&message(&(-libc::EPERM).to_ne_bytes())).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn the_kernel_answers_what_it_does_not_know_with_an_error() {
        let mut netlink = Netlink::route().unwrap();
        let unknown = Request::new(u16::MAX, 0, &[], &[]);
        let error = netlink.change(unknown).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP), "{error}");
    }
}
