//! A peer of a holder: it holds what the holder lends, asks to take when it may, and helps when the holder hangs.

use std::net::SocketAddr;

use super::{Action, ChannelId, Machine, Message, Peer, Role};
use crate::handover::record::{AbortReason, AskReason, Listener};

/// The channel to a holder, and how far a take on it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Joined {
    channel: ChannelId,
    holder: Option<Peer>,
    /// How often this process has asked on this channel, and why the last time.
    asked: (u64, Option<AskReason>),
    take: Option<Take>,
}

/// A take of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Take {
    number: u64,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// `Ack` is sent.
    Accepted,
    /// `Commit` has come, and `Taken` is on its way.
    Confirming,
    /// `Taken` could not be sent: what the holder has written before its end decides.
    Unconfirmed,
}

impl Joined {
    pub(super) fn new(channel: ChannelId) -> Self {
        Self {
            channel,
            holder: None,
            asked: (0, None),
            take: None,
        }
    }

    /// A peer of one that has introduced itself.
    pub(super) fn beside(channel: ChannelId, holder: Peer) -> Self {
        Self {
            holder: Some(holder),
            ..Self::new(channel)
        }
    }

    pub(super) fn channel(&self) -> ChannelId {
        self.channel
    }

    pub(super) fn holder(&self) -> Option<&Peer> {
        self.holder.as_ref()
    }

    pub(super) fn is_taking(&self) -> bool {
        self.take.is_some()
    }

    /// Gives up a take that is under way: the message that says so, and the lock that may have come.
    pub(super) fn abort(&self, reason: AbortReason) -> Vec<Action> {
        let Some(take) = self.take else {
            return Vec::new();
        };
        let abort = Message::Abort {
            take: take.number,
            reason,
        };
        vec![Action::Send(self.channel, abort), Action::DropLock]
    }
}

impl Machine {
    pub(super) fn hear_holder(&mut self, message: Message) -> Vec<Action> {
        let Role::Joined(joined) = &mut self.role else {
            return Vec::new();
        };
        match message {
            Message::Hello { peer, .. } => {
                let is_first = joined.holder.replace(peer).is_none();
                // One that was found just now and answers is alive.
                let mut actions = if is_first {
                    self.stop_assisting()
                } else {
                    Vec::new()
                };
                actions.extend(self.ask());
                actions
            }
            Message::Refused { .. } => {
                let channel = joined.channel;
                self.seek_after_fault(channel)
            }
            Message::Lend { listeners } => {
                self.listeners = listeners;
                self.ask()
            }
            Message::Ended { addresses } => {
                self.forget(&addresses);
                Vec::new()
            }
            Message::Leaving => {
                if let Some(holder) = &mut joined.holder {
                    holder.is_leaving = true;
                }
                self.ask()
            }
            Message::Offer { take, addresses, .. } => self.offered(take, &addresses),
            Message::Commit { take } => self.committed(take),
            Message::Abort { .. } => self.aborted(),
            // The snapshot is applied outside and told then; the others are no messages of a holder.
            Message::Snapshot(_)
            | Message::Warm { .. }
            | Message::Ask { .. }
            | Message::Ack { .. }
            | Message::Taken { .. }
            | Message::Assist { .. }
            | Message::Pairs(_)
            | Message::Ping { .. }
            | Message::Pong { .. }
            | Message::StatusRequest
            | Message::Status { .. }
            | Message::Unknown => Vec::new(),
        }
    }

    /// Asks to take if there is a reason that the holder does not know yet.
    pub(super) fn ask(&mut self) -> Vec<Action> {
        let Some(reason) = self.reason_to_ask() else {
            return Vec::new();
        };
        let Role::Joined(joined) = &mut self.role else {
            return Vec::new();
        };
        if joined.asked.1 == Some(reason) {
            return Vec::new();
        }
        joined.asked = (joined.asked.0.saturating_add(1), Some(reason));
        let take = joined.asked.0;
        vec![Action::Send(joined.channel, Message::Ask { take, reason })]
    }

    fn reason_to_ask(&self) -> Option<AskReason> {
        let Role::Joined(Joined {
            holder: Some(holder),
            take: None,
            ..
        }) = &self.role
        else {
            return None;
        };
        if self.own.is_leaving || self.listeners.is_empty() {
            return None;
        }
        if holder.is_leaving {
            return Some(AskReason::Leaving);
        }
        let is_fit = self.is_proven && self.own.is_warm;
        (is_fit && self.may_take(&self.own, holder)).then_some(AskReason::Rank)
    }

    fn offered(&mut self, number: u64, addresses: &[SocketAddr]) -> Vec<Action> {
        let held: Vec<SocketAddr> = self.listeners.iter().map(|listener| listener.address).collect();
        let is_leaving = self.own.is_leaving;
        let Role::Joined(joined) = &mut self.role else {
            return Vec::new();
        };
        joined.take = Some(Take {
            number,
            step: Step::Accepted,
        });
        if is_leaving {
            return self.give_up_take(AbortReason::Leaving);
        }
        if !addresses.iter().all(|address| held.contains(address)) {
            return self.give_up_take(AbortReason::MissingListener);
        }
        let ack = Message::Ack {
            take: number,
            addresses: held,
        };
        vec![Action::Send(joined.channel, ack)]
    }

    fn committed(&mut self, number: u64) -> Vec<Action> {
        let Role::Joined(joined) = &mut self.role else {
            return Vec::new();
        };
        match &mut joined.take {
            Some(take) if take.number == number && take.step == Step::Accepted => {
                take.step = Step::Confirming;
                vec![Action::Confirm(joined.channel, number)]
            }
            Some(_) | None => vec![Action::DropLock],
        }
    }

    pub(super) fn confirmed(&mut self) -> Vec<Action> {
        match &self.role {
            Role::Joined(joined) => {
                let channel = joined.channel;
                self.serve(Some(channel))
            }
            Role::Alone(_) | Role::Seeking | Role::Holding(_) | Role::Retiring | Role::Draining => Vec::new(),
        }
    }

    pub(super) fn unconfirmed(&mut self) -> Vec<Action> {
        if let Role::Joined(Joined { take: Some(take), .. }) = &mut self.role {
            take.step = Step::Unconfirmed;
        }
        Vec::new()
    }

    /// The holder goes on serving.
    fn aborted(&mut self) -> Vec<Action> {
        let Role::Joined(joined) = &self.role else {
            return Vec::new();
        };
        let channel = joined.channel;
        let mut actions = vec![Action::DropLock];
        actions.extend(self.seek_after(channel));
        actions
    }

    /// Says that the take does not happen, and ends the channel with it.
    fn give_up_take(&mut self, reason: AbortReason) -> Vec<Action> {
        let Role::Joined(joined) = &self.role else {
            return Vec::new();
        };
        let channel = joined.channel;
        let mut actions = joined.abort(reason);
        actions.extend(self.seek_after_fault(channel));
        actions
    }

    pub(super) fn lose_holder(&mut self) -> Vec<Action> {
        let Role::Joined(joined) = &self.role else {
            return Vec::new();
        };
        let channel = joined.channel;
        let step = joined.take.map(|take| take.step);
        let mut actions = vec![Action::Close(channel)];
        actions.extend(match step {
            // An end without `Abort`: the holder died, and this process has its lock.
            Some(Step::Unconfirmed) => self.serve(None),
            Some(Step::Accepted | Step::Confirming) | None => self.seek(),
        });
        actions
    }

    pub(super) fn break_with_holder(&mut self) -> Vec<Action> {
        let Role::Joined(joined) = &self.role else {
            return Vec::new();
        };
        let channel = joined.channel;
        let mut actions = joined.abort(AbortReason::BadRecord);
        actions.extend(self.seek_after_fault(channel));
        actions
    }

    pub(super) fn applied(&mut self, serial: u64) -> Vec<Action> {
        self.own.is_warm = true;
        let Role::Joined(joined) = &self.role else {
            return Vec::new();
        };
        let mut actions = vec![Action::Send(joined.channel, Message::Warm { serial })];
        actions.extend(self.ask());
        actions
    }

    /// These listeners are shut down for all that hold them.
    pub(super) fn forget(&mut self, addresses: &[SocketAddr]) {
        self.listeners
            .retain(|Listener { address, .. }| !addresses.contains(address));
    }
}
