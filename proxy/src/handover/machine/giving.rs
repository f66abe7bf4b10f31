//! How a holder gives: offer, acknowledgement, commit with a duplicate of the lock, and what decides when an answer is
//! overdue.

use std::time::Duration;

use super::{
    Action, ChannelId, Machine, Message, Role, Timer,
    holding::{Giving, Guest, Holding, Step},
};
use crate::handover::record::{AbortReason, AskReason};

/// How long a holder waits for `Ack`, then for `Taken`. The peer answers at once unless it is stopped.
const GIVE_LIMIT: Duration = Duration::from_secs(1);

impl Holding {
    pub(super) fn acknowledge(&mut self, channel: ChannelId, take: u64) {
        if let Some(giving) = &mut self.giving
            && giving.channel == channel
            && giving.take == take
            && giving.step == Step::Offered
        {
            giving.step = Step::Acknowledged;
        }
    }

    /// The give on this channel does not happen, if there is one.
    pub(super) fn forget_give(&mut self, channel: ChannelId) -> Option<Action> {
        self.giving.take_if(|giving| giving.channel == channel)?;
        Some(Action::Clear(Timer::Give))
    }
}

impl Machine {
    /// All that can be read is read: makes an offer, or commits to the one that is acknowledged.
    pub(super) fn give_on(&mut self) -> Vec<Action> {
        let Role::Holding(holding) = &self.role else {
            return Vec::new();
        };
        match holding.giving.map(|giving| giving.step) {
            _ if !holding.may_give() => Vec::new(),
            None => self.offer(),
            Some(Step::Acknowledged) => self.commit(),
            Some(Step::Offered | Step::Committed | Step::Closing) => Vec::new(),
        }
    }

    fn offer(&mut self) -> Vec<Action> {
        let Some((channel, take)) = self.candidate() else {
            return Vec::new();
        };
        let lent = self.listeners_for(channel).into_iter();
        let addresses = lent.map(|listener| listener.address).collect();
        let Role::Holding(holding) = &mut self.role else {
            return Vec::new();
        };
        holding.giving = Some(Giving {
            channel,
            take,
            step: Step::Offered,
        });
        let offer = Message::Offer {
            take,
            addresses,
            pairs: 0,
        };
        vec![Action::Send(channel, offer), Action::Set(Timer::Give, GIVE_LIMIT)]
    }

    /// The peer to give to: the highest in rank that may take. A holder that leaves gives to any as soon as all have asked or
    /// have had the time to: the warm ones come first, and those whose gate is closed last, because a standby is known to
    /// work.
    fn candidate(&self) -> Option<(ChannelId, u64)> {
        let Role::Holding(holding) = &self.role else {
            return None;
        };
        let staying = || holding.guests.iter().filter(|(_, guest)| !guest.peer.is_leaving);
        if self.own.is_leaving && !holding.has_gathered && staying().any(|(_, guest)| guest.asked.is_none()) {
            return None;
        }
        staying()
            .filter(|(_, guest)| self.own.is_leaving || self.is_outranked_by(guest))
            .filter_map(|(channel, guest)| Some((guest, *channel, guest.asked?.0)))
            .max_by_key(|(guest, _, _)| (guest.peer.is_warm, !self.is_gated(&guest.peer), guest.peer.rank))
            .map(|(_, channel, take)| (channel, take))
    }

    fn is_outranked_by(&self, guest: &Guest) -> bool {
        let asks = matches!(guest.asked, Some((_, AskReason::Rank | AskReason::Unknown)));
        asks && guest.peer.is_warm && self.may_take(&guest.peer, &self.own)
    }

    fn commit(&mut self) -> Vec<Action> {
        let Role::Holding(Holding {
            giving: Some(giving), ..
        }) = &mut self.role
        else {
            return Vec::new();
        };
        giving.step = Step::Committed;
        let commit = Message::Commit { take: giving.take };
        vec![
            Action::Send(giving.channel, commit),
            Action::Set(Timer::Give, GIVE_LIMIT),
        ]
    }

    pub(super) fn taken(&mut self, channel: ChannelId, take: u64) -> Vec<Action> {
        let Role::Holding(holding) = &self.role else {
            return Vec::new();
        };
        let is_ours = holding.giving.is_some_and(|giving| {
            let is_committed = matches!(giving.step, Step::Committed | Step::Closing);
            giving.channel == channel && giving.take == take && is_committed
        });
        if !is_ours {
            return Vec::new();
        }
        let mut actions = vec![Action::StopAccepting];
        actions.extend(holding.give_way());
        if self.own.is_leaving {
            actions.extend(self.drain(false));
        } else {
            self.has_given = true;
            actions.extend(self.seek());
        }
        actions
    }

    pub(super) fn give_overdue(&mut self) -> Vec<Action> {
        let Role::Holding(Holding {
            giving: Some(giving), ..
        }) = &mut self.role
        else {
            return Vec::new();
        };
        giving.step = Step::Closing;
        vec![Action::CloseForReading(giving.channel)]
    }

    /// `Taken` was not among what was left on the channel: this process goes on.
    pub(super) fn emptied(&mut self, channel: ChannelId) -> Vec<Action> {
        let Role::Holding(Holding {
            giving: Some(giving), ..
        }) = &self.role
        else {
            return Vec::new();
        };
        if giving.channel != channel {
            return Vec::new();
        }
        let abort = Message::Abort {
            take: giving.take,
            reason: AbortReason::Overdue,
        };
        let mut actions = vec![Action::Send(channel, abort)];
        actions.extend(self.drop_peer(channel));
        actions
    }

    /// A record of this peer could not be read. If it may have the lock, the channel must not just end: the peer would
    /// believe that this process is dead.
    pub(super) fn break_with_peer(&mut self, channel: ChannelId) -> Vec<Action> {
        let Role::Holding(holding) = &mut self.role else {
            return Vec::new();
        };
        match holding.giving {
            Some(giving) if giving.channel == channel => self.give_overdue(),
            // Only its end matters.
            _ if holding.predecessor == Some(channel) => Vec::new(),
            Some(_) | None => {
                let mut actions = vec![holding.unsettle()];
                actions.extend(self.lose_peer(channel));
                actions
            }
        }
    }
}
