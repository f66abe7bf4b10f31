//! The channels of this process, and what waits to be written to them.

use std::{
    collections::{BTreeMap, VecDeque},
    future::pending,
    os::fd::{AsFd, OwnedFd},
};

use futures::future::select_all;
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
    links: BTreeMap<ChannelId, Link>,
}

#[derive(Debug)]
struct Link {
    channel: Channel,
    waiting: VecDeque<(Message, Vec<OwnedFd>)>,
    /// It is closed once nothing waits.
    is_closing: bool,
    /// The other side has ended: nothing more is read.
    is_over: bool,
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
        };
        self.links.insert(id, link);
        id
    }

    /// Writes a message, or lets it wait behind those that wait.
    pub(super) fn send(&mut self, id: ChannelId, message: Message, descriptors: Vec<OwnedFd>) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if link.waiting.len() >= WAITING {
            debug!(
                channel = id.0,
                "closing the channel of a process that does not read"
            );
            self.links.remove(&id);
            return;
        }
        link.waiting.push_back((message, descriptors));
        link.write();
    }

    /// Writes a message now, and says whether that was possible.
    pub(super) fn send_now(&mut self, id: ChannelId, message: &Message) -> bool {
        let Some(link) = self.links.get_mut(&id) else {
            return false;
        };
        link.write();
        link.waiting.is_empty() && link.channel.send(message, &[]).is_ok()
    }

    /// Closes a channel once all is written that waits.
    pub(super) fn close(&mut self, id: ChannelId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.is_closing = true;
            link.write();
        }
        self.remove_closed();
    }

    /// The numbers of all channels that can be read.
    pub(super) fn readable_ones(&self) -> Vec<ChannelId> {
        let open = self
            .links
            .iter()
            .filter(|(_, link)| !link.is_over && !link.is_closing);
        open.map(|(id, _)| *id).collect()
    }

    /// The next of what can be read from a channel now.
    pub(super) fn read(&mut self, id: ChannelId) -> Option<Read> {
        let link = self
            .links
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
        self.links.get(&id).is_some_and(|link| link.waiting.is_empty())
    }

    /// Ends what the other side can send, and returns what it sent before.
    pub(super) fn shut_receive(&mut self, id: ChannelId) -> Vec<Read> {
        let Some(link) = self.links.get_mut(&id) else {
            return Vec::new();
        };
        link.is_over = true;
        let rest = link.channel.shut_receive().into_iter();
        rest.map(|record| record.map_or(Read::Broken, Read::Record))
            .collect()
    }

    /// Waits until a channel can be read, or written where something waits.
    pub(super) async fn ready(&self) {
        let ready = self.links.values().filter_map(|link| {
            let (reads, writes) = (!link.is_over && !link.is_closing, !link.waiting.is_empty());
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
        for link in self.links.values_mut() {
            link.write();
        }
        self.remove_closed();
    }

    fn remove_closed(&mut self) {
        self.links
            .retain(|_, link| !link.is_closing || !link.waiting.is_empty());
    }
}

impl Link {
    fn write(&mut self) {
        while let Some((message, descriptors)) = self.waiting.front() {
            let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            match self.channel.send(message, &descriptors) {
                Err(Error::NotReading) => return,
                Ok(()) => {}
                // Nobody reads it any more; the end of the channel tells why.
                Err(error) => debug!(%error, ?message, "failed to write to a channel"),
            }
            self.waiting.pop_front();
        }
    }
}
