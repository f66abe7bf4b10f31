//! A holder whose directory was removed: it locks the new file, or goes to the process that has it.

use super::{Action, ChannelId, Machine, Message, Role, joined::Joined};

impl Machine {
    /// The directory was removed, or another file is in place of the lock. Locks that file, or goes to the process that
    /// has it.
    pub(super) fn lock_lost(&mut self) -> Vec<Action> {
        let Role::Holding(holding) = &self.role else {
            return Vec::new();
        };
        if holding.giving.is_none() && holding.predecessor.is_none() && holding.claim.is_none() {
            vec![Action::TryLock]
        } else {
            Vec::new()
        }
    }

    /// Another process has bound the path, which had a lock file that is gone by now.
    pub(super) fn path_lost(&mut self) -> Vec<Action> {
        let Role::Holding(holding) = &mut self.role else {
            return Vec::new();
        };
        if holding.predecessor.is_none() {
            holding.bind_path()
        } else {
            Vec::new()
        }
    }

    /// What the process says that has the lock at the path. If it serves, this one becomes its peer.
    pub(super) fn hear_rival(&mut self, channel: ChannelId, message: Message) -> Vec<Action> {
        let Role::Holding(holding) = &mut self.role else {
            return Vec::new();
        };
        match message {
            Message::Hello { peer, .. } => {
                holding.claim = None;
                let mut actions = vec![Action::StopAccepting];
                actions.extend(holding.give_way());
                actions.push(Action::DropListeners);
                self.listeners.clear();
                if self.own.is_leaving {
                    actions.push(Action::Close(channel));
                    actions.extend(self.drain(false));
                } else {
                    self.has_given = true;
                    self.role = Role::Joined(Joined::beside(channel, peer));
                }
                actions
            }
            Message::Refused { .. } => {
                holding.claim = None;
                vec![Action::Close(channel)]
            }
            Message::Lend { .. }
            | Message::Ended { .. }
            | Message::Snapshot(_)
            | Message::Warm { .. }
            | Message::Ask { .. }
            | Message::Leaving
            | Message::Offer { .. }
            | Message::Ack { .. }
            | Message::Commit { .. }
            | Message::Taken { .. }
            | Message::Assist { .. }
            | Message::Abort { .. }
            | Message::Pairs(_)
            | Message::Ping { .. }
            | Message::Pong { .. }
            | Message::StatusRequest
            | Message::Status { .. }
            | Message::Unknown => Vec::new(),
        }
    }
}
