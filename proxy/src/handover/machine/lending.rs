//! What changes at the holder goes to all its peers.

use std::net::SocketAddr;

use super::{Action, Listener, Machine, Message, Role, Snapshot};

impl Machine {
    pub(super) fn listening(&mut self, listeners: Vec<Listener>) -> Vec<Action> {
        self.listeners = listeners;
        let listeners = self.listeners.clone();
        self.broadcast(&Message::Lend { listeners })
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
        match &self.role {
            Role::Holding(holding) => holding
                .channels()
                .map(|channel| Action::Send(channel, message.clone()))
                .collect(),
            Role::Alone(_) | Role::Seeking | Role::Joined(_) | Role::Retiring | Role::Draining => Vec::new(),
        }
    }
}
