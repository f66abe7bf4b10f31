//! What changes at the holder goes to all its peers.

use std::net::SocketAddr;

use super::{Action, ChannelId, Listener, Machine, Message, Role, Snapshot};

impl Machine {
    pub(super) fn listening(&mut self, listeners: Vec<Listener>) -> Vec<Action> {
        self.listeners = listeners;
        let lend = |(channel, _)| {
            let listeners = self.listeners_for(channel);
            Action::Send(channel, Message::Lend { listeners })
        };
        self.guests().map(lend).collect()
    }

    /// What is lent to this peer: one of an earlier release gets none of the extra listeners, whose clients it would send to the
    /// apiservers.
    pub(super) fn listeners_for(&self, channel: ChannelId) -> Vec<Listener> {
        let Role::Holding(holding) = &self.role else {
            return Vec::new();
        };
        let guest = holding.guests.get(&channel);
        let knows_all = guest.is_some_and(|guest| guest.peer.knows_extra_listeners);
        let lent = self
            .listeners
            .iter()
            .filter(|listener| knows_all || listener.is_of_apiservers());
        lent.cloned().collect()
    }

    pub(super) fn shut_down(&mut self, addresses: Vec<SocketAddr>) -> Vec<Action> {
        self.forget(&addresses);
        self.broadcast(&Message::Ended { addresses })
    }

    pub(super) fn push(&mut self, snapshot: Snapshot) -> Vec<Action> {
        self.snapshot = Some(snapshot.clone());
        self.broadcast(&Message::Snapshot(snapshot))
    }

    pub(super) fn broadcast(&self, message: &Message) -> Vec<Action> {
        self.guests()
            .map(|(channel, _)| Action::Send(channel, message.clone()))
            .collect()
    }
}
