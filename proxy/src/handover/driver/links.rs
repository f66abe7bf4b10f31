//! The channels of this process, and what waits to be written to them.

use std::{
    collections::{BTreeMap, VecDeque},
    future::pending,
    io,
    os::fd::{AsFd, OwnedFd},
};

use futures::future::select_all;
use nix::errno::Errno;
use tracing::debug;

use crate::handover::{
    channel::{Channel, Error, Received, Record},
    machine::ChannelId,
    record::Message,
};

/// The most messages that wait for one peer. One that reads nothing for so long is stopped, and learns everything anew on
/// another channel.
const WAITING: usize = 64;

/// All channels, by the number of this end.
#[derive(Debug, Default)]
pub(super) struct Links {
    last: u64,
    /// The channels with a fault that was not told yet.
    faulty: Vec<ChannelId>,
    open: BTreeMap<ChannelId, Link>,
    /// Whether the kernel lacks something that it needs to send: nothing is written before the next attempt.
    is_exhausted: bool,
}

#[derive(Debug)]
struct Link {
    channel: Channel,
    waiting: VecDeque<(Message, Vec<OwnedFd>)>,
    /// It is closed once nothing waits.
    is_closing: bool,
    /// The other side has ended: nothing more is read.
    is_over: bool,
    /// A message could not be sent, so that the others on this channel mean nothing. Only an abort is still sent: a peer
    /// that may have the lock must not take the end of the channel for the end of this process.
    is_faulty: bool,
}

/// What was read from a channel.
#[derive(Debug)]
pub(super) enum Read {
    /// A record.
    Record(Record),
    /// A record that could not be read.
    Broken,
    /// The end.
    End,
}

impl Links {
    /// A new channel.
    pub(super) fn add(&mut self, channel: Channel) -> ChannelId {
        self.last += 1;
        let id = ChannelId(self.last);
        let link = Link {
            channel,
            waiting: VecDeque::new(),
            is_closing: false,
            is_over: false,
            is_faulty: false,
        };
        self.open.insert(id, link);
        id
    }

    /// Writes a message, or lets it wait behind those that wait.
    pub(super) fn send(&mut self, id: ChannelId, message: Message, descriptors: Vec<OwnedFd>) {
        let Some(link) = self.open.get_mut(&id) else {
            return;
        };
        let is_abort = matches!(message, Message::Abort { .. });
        if link.is_faulty && !is_abort {
            return;
        }
        if link.waiting.len() >= WAITING && !is_abort {
            debug!(
                channel = id.0,
                "leaving a channel to a process that does not read"
            );
            link.is_faulty = true;
            self.faulty.push(id);
            return;
        }
        link.waiting.push_back((message, descriptors));
        self.is_exhausted |= link.write() == Written::Exhausted;
    }

    /// The channels with a fault that was not told yet.
    pub(super) fn take_faulty(&mut self) -> Vec<ChannelId> {
        std::mem::take(&mut self.faulty)
    }

    /// Tries again to write what the kernel could not take.
    pub(super) fn write_again(&mut self) {
        self.is_exhausted = false;
        self.write();
    }

    /// Writes a message now, and says whether that was possible.
    pub(super) fn send_now(&mut self, id: ChannelId, message: &Message) -> bool {
        let Some(link) = self.open.get_mut(&id) else {
            return false;
        };
        self.is_exhausted |= link.write() == Written::Exhausted;
        link.waiting.is_empty() && link.channel.send(message, &[]).is_ok()
    }

    /// Closes a channel once all is written that waits.
    pub(super) fn close(&mut self, id: ChannelId) {
        if let Some(link) = self.open.get_mut(&id) {
            link.is_closing = true;
            self.is_exhausted |= link.write() == Written::Exhausted;
        }
        self.remove_closed();
    }

    /// Removes a channel to use it otherwise, unless something waits to be written to it.
    pub(super) fn take(&mut self, id: ChannelId) -> Option<Channel> {
        if self.is_idle(id) {
            self.open.remove(&id).map(|link| link.channel)
        } else {
            None
        }
    }

    /// The numbers of all channels that can be read.
    pub(super) fn readable_ones(&self) -> Vec<ChannelId> {
        let open = self
            .open
            .iter()
            .filter(|(_, link)| !link.is_over && !link.is_closing);
        open.map(|(id, _)| *id).collect()
    }

    /// The next of what can be read from a channel now.
    pub(super) fn read(&mut self, id: ChannelId) -> Option<Read> {
        let link = self
            .open
            .get_mut(&id)
            .filter(|link| !link.is_over && !link.is_closing)?;
        match link.channel.receive_now() {
            Ok(Some(Received::Record(record))) => Some(Read::Record(record)),
            Ok(None) => None,
            Ok(Some(Received::End)) => {
                link.is_over = true;
                Some(Read::End)
            }
            Err(error) => {
                debug!(channel = id.0, %error, "failed to read from a channel");
                link.is_over = matches!(error, Error::Socket(_) | Error::Closed);
                Some(if link.is_over { Read::End } else { Read::Broken })
            }
        }
    }

    /// Whether nothing waits to be written to a channel.
    pub(super) fn is_idle(&self, id: ChannelId) -> bool {
        self.open.get(&id).is_some_and(|link| link.waiting.is_empty())
    }

    /// Ends what the other side can send, and returns what it sent before.
    pub(super) fn shut_receive(&mut self, id: ChannelId) -> Vec<Read> {
        let Some(link) = self.open.get_mut(&id) else {
            return Vec::new();
        };
        link.is_over = true;
        let rest = link.channel.shut_receive().into_iter();
        rest.map(|record| record.map_or(Read::Broken, Read::Record))
            .collect()
    }

    /// Waits until a channel can be read, or written where something waits.
    pub(super) async fn ready(&self) {
        let ready = self.open.values().filter_map(|link| {
            let (reads, writes) = (
                !link.is_over && !link.is_closing,
                !link.waiting.is_empty() && !self.is_exhausted,
            );
            (reads || writes).then(|| Box::pin(link.channel.ready(reads, writes)))
        });
        let ready: Vec<_> = ready.collect();
        if ready.is_empty() {
            pending::<()>().await;
        }
        select_all(ready).await;
    }

    /// Writes what waits, as far as the others read.
    pub(super) fn write(&mut self) {
        if self.is_exhausted {
            return;
        }
        for link in self.open.values_mut() {
            if link.write() == Written::Exhausted {
                self.is_exhausted = true;
                break;
            }
        }
        self.remove_closed();
    }

    fn remove_closed(&mut self) {
        self.open
            .retain(|_, link| !link.is_closing || !link.waiting.is_empty());
    }
}

/// How far a link was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// As far as the other side reads.
    AsRead,
    /// The kernel lacks something that it needs for the next message.
    Exhausted,
}

impl Link {
    fn write(&mut self) -> Written {
        while let Some((message, descriptors)) = self.waiting.front() {
            let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            match self.channel.send(message, &descriptors) {
                Err(Error::NotReading) => return Written::AsRead,
                Ok(()) => {}
                Err(Error::Socket(error)) if is_exhausted(&error) => {
                    debug!(%error, ?message, "failed to write to a channel, trying again");
                    return Written::Exhausted;
                }
                // Nobody reads it any more; the end of the channel tells why.
                Err(error) => debug!(%error, ?message, "failed to write to a channel"),
            }
            self.waiting.pop_front();
        }
        Written::AsRead
    }
}

/// Whether the kernel lacks memory, or this user has too many descriptors on their way.
fn is_exhausted(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ETOOMANYREFS | Errno::ENOBUFS | Errno::ENOMEM))
}
