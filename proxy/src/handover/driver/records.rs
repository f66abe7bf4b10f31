//! What the records of the channels mean to this process, and the descriptors that go with them.

use std::{
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Driver, error::Error, links::Read};
use crate::{
    cause,
    handover::{
        channel::Record,
        lent::{self, LentListener},
        lock::Lock,
        machine::{ChannelId, Event},
        record::{Listener, Message},
    },
    net::spare,
};

impl Driver {
    /// The listeners that this process holds, in order.
    pub(super) fn held(&self) -> Vec<Listener> {
        let sockets = self.listeners.sockets().all().into_keys();
        sockets.map(|address| self.listeners.record_of(address)).collect()
    }

    /// The descriptors that go with a message.
    pub(super) fn descriptors(&self, message: &Message) -> Result<Vec<OwnedFd>, Error> {
        match message {
            Message::Lend { listeners } => listeners
                .iter()
                .map(|listener| self.lend(listener.address))
                .collect(),
            Message::Snapshot(snapshot) => Ok(vec![self.warmth.descriptor(snapshot)?]),
            Message::Commit { .. } => match &self.lock {
                Some(lock) => Ok(vec![lock.duplicate()?]),
                None => Err(Error::NoLock),
            },
            _ => Ok(Vec::new()),
        }
    }

    fn lend(&self, address: SocketAddr) -> Result<OwnedFd, Error> {
        let socket = self
            .listeners
            .sockets()
            .get(address)
            .ok_or(Error::NoListener(address))?;
        Ok(spare::with(|| socket.as_fd().try_clone_to_owned())?)
    }

    /// One by one, because what is told decides whether the next is read.
    pub(super) fn read_all(&mut self) {
        for channel in self.links.readable_ones() {
            while let Some(read) = self.links.read(channel) {
                self.tell_read(channel, read);
            }
        }
    }

    pub(super) fn tell_read(&mut self, channel: ChannelId, read: Read) {
        match read {
            Read::Record(record) => self.receive(channel, record),
            Read::Broken => self.tell(Event::Broken(channel)),
            Read::End => {
                self.tell(Event::Closed(channel));
                self.links.close(channel);
            }
        }
    }

    /// Uses what came with a record, answers what needs no machine, and tells the rest.
    fn receive(&mut self, channel: ChannelId, record: Record) {
        let Record { message, descriptors } = record;
        let is_of_holder = self.machine.holder_channel() == Some(channel);
        let used = match &message {
            // It cannot accept either, which its peers find in its silence and the queue: one of them accepts beside it.
            Message::Ping { .. } if self.listeners.sockets().is_exhausted() => return,
            Message::Ping { number } => {
                let pong = Message::Pong { number: *number };
                return self.links.send(channel, pong, Vec::new());
            }
            Message::Pong { .. } => return self.stall.answer(Instant::now()),
            Message::Warm { serial } => {
                self.spares.applied(channel, *serial);
                Ok(())
            }
            Message::Pairs(_) => return self.take_pairs(channel, Record { message, descriptors }),
            Message::StatusRequest => {
                return match self.machine.status() {
                    Some((holder, peers)) => {
                        self.links
                            .send(channel, Message::Status { holder, peers }, Vec::new());
                    }
                    // It has given since the other one connected, which finds the new holder at once.
                    None => self.links.close(channel),
                };
            }
            Message::Lend { listeners } if is_of_holder => {
                return match self.hold(listeners, descriptors) {
                    Ok(listeners) => self.tell(Event::Received(channel, Message::Lend { listeners })),
                    Err(error) => self.refuse(channel, &error),
                };
            }
            Message::Commit { .. } if is_of_holder => self.take_lock(descriptors),
            Message::Snapshot(snapshot) if is_of_holder => {
                return match self.warmth.apply(snapshot, descriptors) {
                    Ok(true) => {
                        // Before it asks to take.
                        self.tell_target();
                        self.tell(Event::Applied(snapshot.serial));
                    }
                    Ok(false) => {}
                    Err(error) => debug!(%error, "failed to apply a snapshot of the process that serves"),
                };
            }
            _ => Ok(()),
        };
        match used {
            Ok(()) => self.tell(Event::Received(channel, message)),
            Err(error) => self.refuse(channel, &error),
        }
    }

    /// Goes on with connections of another process, on a channel that the machine knows nothing of. One that does not serve
    /// takes none.
    fn take_pairs(&mut self, channel: ChannelId, first: Record) {
        let serves = self.machine.status().is_some() && self.machine.accepts();
        match self.links.take(channel) {
            Some(channel) if serves => {
                let listeners = Arc::clone(&self.listeners);
                self.takings.take(channel, first, listeners);
            }
            Some(_) | None => self.links.close(channel),
        }
    }

    fn refuse(&mut self, channel: ChannelId, error: &Error) {
        warn!(
            cause = cause::chain(error),
            "failed to use what another process of this node handed over"
        );
        self.tell(Event::Broken(channel));
    }

    /// Holds what is lent, without those that were ended on their way. Returns what is held.
    fn hold(&self, listeners: &[Listener], descriptors: Vec<OwnedFd>) -> Result<Vec<Listener>, Error> {
        let (mut held, mut sockets) = (Vec::new(), Vec::new());
        for (listener, descriptor) in listeners.iter().zip(descriptors) {
            match LentListener::receive(descriptor, listener.address) {
                Ok(socket) => {
                    held.push(listener.clone());
                    sockets.push(socket);
                }
                Err(lent::Error::NotListening { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.listeners.hold(&held, sockets);
        Ok(held)
    }

    fn take_lock(&mut self, descriptors: Vec<OwnedFd>) -> Result<(), Error> {
        let descriptor = descriptors.into_iter().next().ok_or(Error::NoLock)?;
        let path = self.directory()?.lock_path();
        self.lock = Some(Lock::receive(descriptor, &path)?);
        Ok(())
    }
}
