//! The holder: it has the lock, accepts, and lends its listeners to all others.

use std::{collections::BTreeMap, time::Duration};

use super::{Action, ChannelId, Listener, Machine, Message, Peer, Role, State, Timer};
use crate::handover::record::{AskReason, Refusal};

/// The pause between two attempts to bind a taken port.
const BIND_AGAIN: Duration = Duration::from_secs(1);

/// A former holder that has not ended its channel after this long is stopped. It must not keep this process from giving;
/// it reads that it has given as soon as it runs again.
pub(super) const PREDECESSOR_LIMIT: Duration = Duration::from_secs(5);

/// How long a new holder waits before it gives: longer than any pause after which a process that accepts without a holder
/// looks for one.
const SETTLE_LIMIT: Duration = Duration::from_millis(150);

/// The timers of a holder.
const ALL_TIMERS: [Timer; 6] = [
    Timer::Bind,
    Timer::Settle,
    Timer::Gather,
    Timer::Give,
    Timer::Predecessor,
    Timer::Leave,
];

/// What a holder knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Holding {
    is_bound: bool,
    pub(super) guests: BTreeMap<ChannelId, Guest>,
    pub(super) giving: Option<Giving>,
    /// The channel to the process that gave to this one.
    pub(super) predecessor: Option<ChannelId>,
    /// The channel to the process that has the lock at the path, if that is another.
    pub(super) claim: Option<ChannelId>,
    /// Whether processes that seek have had the time to connect.
    is_settled: bool,
    /// Whether the peers have had the time to ask since this process began to leave.
    pub(super) has_gathered: bool,
}

/// A peer of this holder.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Guest {
    pub(super) peer: Peer,
    pub(super) asked: Option<(u64, AskReason)>,
    pub(super) assists: bool,
}

/// A give to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Giving {
    pub(super) channel: ChannelId,
    pub(super) take: u64,
    pub(super) step: Step,
}

/// How far a give is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// `Offer` is sent.
    Offered,
    /// `Ack` has come.
    Acknowledged,
    /// `Commit` is sent.
    Committed,
    /// Nothing more comes in; what is left is being read.
    Closing,
}

impl Holding {
    /// A holder that has no listeners yet.
    pub(super) fn unbound() -> Self {
        Self {
            is_bound: false,
            ..Self::serving(None)
        }
    }

    pub(super) fn serving(predecessor: Option<ChannelId>) -> Self {
        Self {
            is_bound: true,
            guests: BTreeMap::new(),
            giving: None,
            predecessor,
            claim: None,
            is_settled: false,
            has_gathered: false,
        }
    }

    pub(super) fn bind_path(&mut self) -> Vec<Action> {
        vec![Action::BindPath, self.unsettle()]
    }

    /// A process that accepts beside this one may not be known to it for a moment.
    pub(super) fn unsettle(&mut self) -> Action {
        self.is_settled = false;
        Action::Set(Timer::Settle, SETTLE_LIMIT)
    }

    /// Whether it may give to a peer now.
    pub(super) fn may_give(&self) -> bool {
        self.is_bound
            && self.is_settled
            && self.predecessor.is_none()
            && self.claim.is_none()
            && !self.guests.values().any(|guest| guest.assists)
    }

    pub(super) fn state(&self, is_leaving: bool) -> State {
        if !self.is_bound {
            State::Binding
        } else if self.giving.is_some() {
            State::Giving
        } else if is_leaving {
            State::Leaving
        } else {
            State::Serving
        }
    }

    pub(super) fn is_bound(&self) -> bool {
        self.is_bound
    }

    pub(super) fn channels(&self) -> impl Iterator<Item = ChannelId> {
        self.guests.keys().copied()
    }

    pub(super) fn peers(&self) -> Vec<Peer> {
        self.guests.values().map(|guest| guest.peer.clone()).collect()
    }

    pub(super) fn claim_on(&mut self, channel: ChannelId) {
        self.claim = Some(channel);
    }

    /// Ends this process's part as the holder: no lock, no path, no channels.
    pub(super) fn give_way(&self) -> Vec<Action> {
        let mut actions = vec![Action::DropLock, Action::ClosePath];
        actions.extend(
            self.channels()
                .chain(self.predecessor)
                .chain(self.claim)
                .map(Action::Close),
        );
        for timer in ALL_TIMERS {
            actions.push(Action::Clear(timer));
        }
        actions
    }
}

impl Machine {
    pub(super) fn bound(&mut self, listeners: Vec<Listener>) -> Vec<Action> {
        self.listeners = listeners;
        match &mut self.role {
            Role::Holding(holding) => {
                holding.is_bound = true;
                self.own.is_warm = true;
                let guests: Vec<_> = holding.channels().collect();
                let welcomes = guests.into_iter().flat_map(|channel| self.welcome(channel));
                [Action::Accept].into_iter().chain(welcomes).collect()
            }
            Role::Alone(_) => vec![Action::Accept],
            Role::Seeking | Role::Joined(_) | Role::Retiring | Role::Draining => Vec::new(),
        }
    }

    pub(super) fn port_taken(&mut self) -> Vec<Action> {
        match &self.role {
            Role::Holding(_) | Role::Alone(_) => vec![Action::Set(Timer::Bind, BIND_AGAIN)],
            Role::Seeking | Role::Joined(_) | Role::Retiring | Role::Draining => Vec::new(),
        }
    }

    pub(super) fn hear_peer(&mut self, channel: ChannelId, message: Message) -> Vec<Action> {
        let Role::Holding(holding) = &mut self.role else {
            return Vec::new();
        };
        if holding.claim == Some(channel) {
            return self.hear_rival(channel, message);
        }
        if let Message::Hello { peer, pool } = message {
            return self.meet(channel, peer, &pool);
        }
        let Some(guest) = holding.guests.get_mut(&channel) else {
            return Vec::new();
        };
        match message {
            Message::Warm { .. } => guest.peer.is_warm = true,
            Message::Ask { take, reason } => guest.asked = Some((take, reason)),
            Message::Assist { on } => guest.assists = on,
            Message::Ack { take, .. } => holding.acknowledge(channel, take),
            Message::Taken { take } => return self.taken(channel, take),
            Message::Abort { .. } => return self.drop_peer(channel),
            // No messages of a peer, or answered outside.
            Message::Hello { .. }
            | Message::Refused { .. }
            | Message::Lend { .. }
            | Message::Ended { .. }
            | Message::Snapshot(_)
            | Message::Leaving
            | Message::Offer { .. }
            | Message::Commit { .. }
            | Message::Pairs(_)
            | Message::Ping { .. }
            | Message::Pong { .. }
            | Message::StatusRequest
            | Message::Status { .. }
            | Message::Unknown => {}
        }
        Vec::new()
    }

    /// A peer says who it is, for the first time or anew.
    fn meet(&mut self, channel: ChannelId, peer: Peer, pool: &str) -> Vec<Action> {
        let Role::Holding(holding) = &mut self.role else {
            return Vec::new();
        };
        if pool != self.pool {
            let reason = Refusal::OtherPool;
            return vec![
                Action::Send(channel, Message::Refused { reason }),
                Action::Close(channel),
            ];
        }
        if let Some(guest) = holding.guests.get_mut(&channel) {
            guest.peer = peer;
            return Vec::new();
        }
        let has_listeners = peer.has_listeners;
        let may_take = !peer.is_leaving;
        let guest = Guest {
            peer,
            asked: None,
            assists: false,
        };
        holding.guests.insert(channel, guest);
        if holding.is_bound {
            // One that comes from another holder may be the first of several.
            let pause = has_listeners.then(|| holding.unsettle());
            pause.into_iter().chain(self.welcome(channel)).collect()
        } else if has_listeners && may_take {
            self.release()
        } else {
            Vec::new()
        }
    }

    fn welcome(&self, channel: ChannelId) -> Vec<Action> {
        let listeners = self.listeners_for(channel);
        let mut actions = vec![
            self.hello(channel),
            Action::Send(channel, Message::Lend { listeners }),
        ];
        if let Some(snapshot) = &self.snapshot {
            actions.push(Action::Send(channel, Message::Snapshot(snapshot.clone())));
        }
        actions
    }

    /// Gives the lock up for a peer that holds the listeners, which this process cannot bind while that peer lives.
    fn release(&mut self) -> Vec<Action> {
        let Role::Holding(holding) = &self.role else {
            return Vec::new();
        };
        // It may have begun to accept on a part of its listeners.
        let mut actions = vec![Action::StopAccepting];
        actions.extend(holding.give_way());
        actions.extend(self.seek());
        actions
    }

    pub(super) fn lose_peer(&mut self, channel: ChannelId) -> Vec<Action> {
        let Role::Holding(holding) = &mut self.role else {
            return Vec::new();
        };
        if holding.predecessor == Some(channel) {
            return self.predecessor_overdue();
        }
        if holding.claim == Some(channel) {
            holding.claim = None;
            // It has given the lock up for this process.
            return vec![Action::Close(channel), Action::TryLock];
        }
        self.drop_peer(channel)
    }

    /// Nothing more comes from this peer, and nothing goes to it.
    pub(super) fn drop_peer(&mut self, channel: ChannelId) -> Vec<Action> {
        let Role::Holding(holding) = &mut self.role else {
            return Vec::new();
        };
        let mut actions = vec![Action::Close(channel)];
        if holding.guests.remove(&channel).is_some_and(|guest| guest.assists) {
            actions.push(holding.unsettle());
        }
        actions.extend(holding.forget_give(channel));
        if !holding.is_bound {
            // It may have been the one that had the port.
            actions.push(Action::Bind);
        }
        actions
    }

    /// The former holder has ended its channel, or it is stopped. Either way the path is this process's now.
    pub(super) fn predecessor_overdue(&mut self) -> Vec<Action> {
        let Role::Holding(holding) = &mut self.role else {
            return Vec::new();
        };
        let Some(channel) = holding.predecessor.take() else {
            return Vec::new();
        };
        let mut actions = vec![Action::Clear(Timer::Predecessor), Action::Close(channel)];
        actions.extend(holding.bind_path());
        actions
    }

    pub(super) fn settled(&mut self) -> Vec<Action> {
        if let Role::Holding(holding) = &mut self.role {
            holding.is_settled = true;
        }
        Vec::new()
    }
}
