//! A process that serves without others, because unix sockets or the directory could not be used: it looks for the others
//! again now and then, and serves meanwhile.

use std::time::Duration;

use super::{Action, ChannelId, Machine, Message, Role, Timer, joined::Joined};

/// The shortest pause between two looks. The sockets were denied by the node or the disk, which people mend.
const LOOK_AGAIN: Duration = Duration::from_secs(25);

/// The pauses of two processes differ by this at most, so that not all of a node look at once.
const SPREAD: u64 = 10_000;

impl Machine {
    /// The process's identity is random.
    pub(super) fn look_again(&self) -> Action {
        let spread = self.own.id.bytes().fold(0, |spread: u64, byte| {
            spread.wrapping_mul(31).wrapping_add(u64::from(byte))
        });
        Action::Set(Timer::Seek, LOOK_AGAIN + Duration::from_millis(spread % SPREAD))
    }

    /// What the process says that was found. If it serves, this one becomes its peer.
    pub(super) fn hear_found(&mut self, channel: ChannelId, message: Message) -> Vec<Action> {
        match message {
            Message::Hello { peer, .. } => {
                self.listeners.clear();
                // It has served: it is a spare at once.
                self.has_given = true;
                self.role = Role::Joined(Joined::beside(channel, peer));
                vec![
                    Action::StopAccepting,
                    Action::DropListeners,
                    Action::Clear(Timer::Bind),
                    Action::Clear(Timer::Seek),
                ]
            }
            Message::Refused { .. } => self.leave_found(channel),
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

    /// It has ended: it may have given the lock up for this one, which has the port.
    pub(super) fn lose_found(&mut self, channel: ChannelId) -> Vec<Action> {
        self.role = Role::Alone(None);
        vec![Action::Close(channel), Action::TryLock]
    }

    /// It is of no use.
    pub(super) fn leave_found(&mut self, channel: ChannelId) -> Vec<Action> {
        self.role = Role::Alone(None);
        vec![Action::Close(channel), self.look_again()]
    }
}
