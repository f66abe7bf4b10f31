//! What nobody tells a process, so that it looks for it periodically.

use tokio::time::Instant;

use super::Driver;
use crate::{
    handover::{
        directory::BoundSocket,
        lock::Lock,
        machine::{Event, State},
        record::Message,
        stall::Verdict,
    },
    net::port_holders,
};

impl Driver {
    /// Looks at what nobody tells: whether the holder hangs, and whether the lock and the socket are still in their place.
    pub(super) fn sample(&mut self) -> Vec<Event> {
        let mut seen = Vec::new();
        let channel = self.machine.holder_channel();
        if let Some(channel) = channel
            && self.links.is_idle(channel)
        {
            self.pings += 1;
            self.links
                .send(channel, Message::Ping { number: self.pings }, Vec::new());
        }
        // One that seeks may hold listeners too, on which a process accepts that it has no channel to.
        if channel.is_some() || matches!(self.machine.state(), State::Seeking | State::Assisting) {
            match self.stall.sample(self.longest_queue(), Instant::now()) {
                Verdict::Stalled => seen.push(Event::Stalled),
                Verdict::Turning => seen.push(Event::Turning),
                Verdict::Calm => {}
            }
        }
        self.links.write_again();
        if std::mem::take(&mut self.lends_again) {
            seen.push(Event::Listening(self.held()));
            seen.extend(self.warmth.last().map(Event::SnapshotReady));
        }
        seen.extend(self.look_for_successor());
        let is_lost = |lock: &Lock| matches!(lock.is_current(), Ok(false));
        if self.lock.as_ref().is_some_and(is_lost) {
            seen.push(Event::LockLost);
        } else if self.lock.is_some() && !self.is_at_path() {
            seen.push(Event::PathLost);
        }
        seen
    }

    fn is_at_path(&self) -> bool {
        self.socket.as_ref().is_some_and(BoundSocket::is_current)
    }

    fn longest_queue(&self) -> u32 {
        let sockets = self.listeners.sockets().all();
        let lengths = sockets
            .values()
            .filter_map(|socket| port_holders::queue_length(&**socket).ok().flatten());
        lengths.max().unwrap_or_default()
    }
}
