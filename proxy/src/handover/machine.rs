//! Which process of the node serves: the part of each of them.
//!
//! The machine is told what happened and answers what to do. It owns no socket, no lock and no timer and reads no clock,
//! so that its tests and the model that explores it are its whole truth. Time comes in as [`Event::Elapsed`].
//!
//! What keeps two processes from serving at once, and none from being left out:
//! - The holder gives a duplicate of its lock (`Commit`) and goes on accepting until it has read `Taken`. A peer that could
//!   send `Taken` serves; one that could not reads on: `Abort` says that the holder goes on, an end of file without it that
//!   the holder is dead.
//! - A holder that has waited too long shuts the channel down for reading and reads what is left. The kernel lets `Taken`
//!   in or refuses it, so that both sides agree.
//! - A process that took gives nothing before the former holder has closed its channel, or is overdue with that.
//! - Nothing is offered or committed while a peer accepts beside the holder, and not before all that can be read is read. A
//!   new holder waits for those that seek, because one of them may accept beside it.
//! - A process has one channel as a peer. A take ends with `Taken` or with the channel; closing it frees a lock on it.

mod action;
mod alone;
mod assisting;
mod event;
mod giving;
mod holding;
mod joined;
mod leaving;
mod lending;
mod rival;
mod seeking;
mod state;
#[cfg(test)]
mod tests;

pub use self::{
    action::Action,
    event::{ChannelId, Event, Timer},
    state::{Merits, Probing, State, is_ready},
};
use self::{holding::Holding, joined::Joined};
use super::{
    rank::{Class, Rank},
    record::{Listener, Message, Peer, Snapshot},
};

/// The part of one process in the hand-over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    own: Peer,
    pool: String,
    role: Role,
    /// Those that this process holds, bound or lent.
    listeners: Vec<Listener>,
    snapshot: Option<Snapshot>,
    is_assisting: bool,
    is_proven: bool,
    has_given: bool,
    /// The template whose gate is closed on this node.
    closed: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Role {
    /// Without others, and with the channel to one of them that was found since.
    Alone(Option<ChannelId>),
    /// Without a channel and without the lock.
    Seeking,
    Joined(Joined),
    Holding(Holding),
    Retiring,
    Draining,
}

impl Machine {
    /// A process that has just started.
    pub fn new(own: Peer, pool: String) -> Self {
        Self {
            own,
            pool,
            role: Role::Seeking,
            listeners: Vec::new(),
            snapshot: None,
            is_assisting: false,
            is_proven: false,
            has_given: false,
            closed: None,
        }
    }

    /// Takes in what happened and says what to do.
    pub fn observe(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Started => vec![Action::Connect],
            Event::Terminated => self.leave(),
            Event::Elapsed(timer) => self.elapsed(timer),
            Event::AllRead => self.give_on(),
            Event::Received(channel, message) => self.received(channel, message),
            Event::Closed(channel) => self.closed(channel),
            Event::Broken(channel) => self.broken(channel),
            Event::Connected(channel) => self.connected(channel),
            Event::Unreachable => self.unreachable(),
            Event::Unavailable => self.unavailable(),
            Event::Locked => self.locked(),
            Event::LockHeld => self.lock_held(),
            Event::Bound(listeners) => self.bound(listeners),
            Event::PortTaken => self.port_taken(),
            Event::Confirmed => self.confirmed(),
            Event::Unconfirmed => self.unconfirmed(),
            Event::Emptied(channel) => self.emptied(channel),
            Event::Listening(listeners) => self.listening(listeners),
            Event::ShutDown(addresses) => self.shut_down(addresses),
            Event::SnapshotReady(snapshot) => self.push(snapshot),
            Event::Applied(serial) => self.applied(serial),
            Event::Retargeted { rank, closed } => self.retargeted(rank, closed),
            Event::Proven => {
                self.is_proven = true;
                self.ask()
            }
            Event::Stalled => self.assist(),
            Event::Turning => self.stop_assisting(),
            Event::LockLost => self.lock_lost(),
            Event::PathLost => self.path_lost(),
            Event::AnotherListens => self.another_listens(),
        }
    }

    /// What this process is to the others.
    pub fn state(&self) -> State {
        match &self.role {
            Role::Alone(_) => State::Alone,
            Role::Retiring => State::Retiring,
            Role::Draining => State::Draining,
            Role::Holding(holding) => holding.state(self.own.is_leaving),
            Role::Seeking | Role::Joined(_) if self.own.is_leaving => State::Retiring,
            Role::Joined(joined) if joined.is_taking() => State::Taking,
            Role::Seeking | Role::Joined(_) if self.is_assisting => State::Assisting,
            Role::Seeking => State::Seeking,
            Role::Joined(joined) => self.state_beside(joined),
        }
    }

    /// One that has given and is proven needs no proof to take back: it is a standby, whatever its rank. One whose gate is
    /// closed is none, or it would be ready, and the DaemonSet controller would delete the pod that serves.
    fn state_beside(&self, joined: &Joined) -> State {
        let outranks = match joined.holder() {
            Some(holder) => self.own.rank.may_take(holder.rank) || self.may_take(&self.own, holder),
            None => self.own.rank.class != Class::Static,
        };
        let is_spare = self.has_given && self.is_proven;
        match (outranks, self.is_gated(&self.own)) {
            (true, true) => State::Gated,
            (true, false) if !is_spare => State::Newcomer,
            (true | false, _) => State::Standby,
        }
    }

    /// Whether `peer` may take by its rank from `holder`. One whose gate is closed does not, and any other pod takes back
    /// from it: the template may be broken, and it serves only because there was nobody else.
    fn may_take(&self, peer: &Peer, holder: &Peer) -> bool {
        match (self.is_gated(peer), self.is_gated(holder)) {
            (true, _) => false,
            (false, true) => peer.rank.class == Class::DaemonSet,
            (false, false) => peer.rank.may_take(holder.rank),
        }
    }

    /// Whether this is a pod whose gate is closed on this node.
    fn is_gated(&self, peer: &Peer) -> bool {
        let is_closed = self
            .closed
            .as_ref()
            .is_some_and(|closed| *closed == peer.template);
        is_closed && peer.rank.class == Class::DaemonSet
    }

    /// Whether this process is ready.
    pub fn is_ready(&self) -> bool {
        let is_warm_static = self.own.rank.class == Class::Static && self.own.is_warm;
        let merits = Merits {
            is_proven: self.is_proven,
            is_spare: self.has_given || is_warm_static,
            is_leaving: self.own.is_leaving,
        };
        is_ready(self.state(), merits)
    }

    /// Whether this process accepts.
    pub fn accepts(&self) -> bool {
        match &self.role {
            Role::Alone(_) => true,
            Role::Holding(holding) => holding.is_bound(),
            Role::Seeking | Role::Joined(_) => self.is_assisting,
            Role::Retiring | Role::Draining => false,
        }
    }

    /// The channel to the holder of which this process is a peer. What comes with records of another channel that this
    /// process has opened is not used.
    pub fn holder_channel(&self) -> Option<ChannelId> {
        match &self.role {
            Role::Joined(joined) => Some(joined.channel()),
            Role::Alone(_) | Role::Seeking | Role::Holding(_) | Role::Retiring | Role::Draining => None,
        }
    }

    /// Its rank.
    pub fn rank(&self) -> Rank {
        self.own.rank
    }

    /// The hash of its template; empty where there is none.
    pub fn template(&self) -> &str {
        &self.own.template
    }

    /// The template whose gate is closed on this node, as far as this process knows.
    pub fn closed_template(&self) -> Option<&str> {
        self.closed.as_deref()
    }

    /// Whether SIGTERM has come.
    pub fn is_leaving(&self) -> bool {
        self.own.is_leaving
    }

    /// Whether it looks for a holder or a free lock.
    pub fn is_seeking(&self) -> bool {
        matches!(self.role, Role::Seeking)
    }

    /// Whether it accepts though it is not the holder.
    pub fn is_assisting(&self) -> bool {
        self.is_assisting
    }

    /// The listeners that this process holds.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// The peers of the holder with their channels; none if this process is not the holder.
    pub fn guests(&self) -> impl Iterator<Item = (ChannelId, &Peer)> {
        let holding = match &self.role {
            Role::Holding(holding) => Some(holding),
            Role::Alone(_) | Role::Seeking | Role::Joined(_) | Role::Retiring | Role::Draining => None,
        };
        let guests = holding.into_iter().flat_map(|holding| &holding.guests);
        guests.map(|(channel, guest)| (*channel, &guest.peer))
    }

    /// This process and the peers that are connected to it, if it is the holder.
    pub fn status(&self) -> Option<(Peer, Vec<Peer>)> {
        match &self.role {
            Role::Holding(holding) => Some((self.introduction(), holding.peers())),
            Role::Alone(_) | Role::Seeking | Role::Joined(_) | Role::Retiring | Role::Draining => None,
        }
    }

    fn received(&mut self, channel: ChannelId, message: Message) -> Vec<Action> {
        match &self.role {
            Role::Joined(joined) if joined.channel() == channel => self.hear_holder(message),
            Role::Holding(_) => self.hear_peer(channel, message),
            Role::Alone(Some(found)) if *found == channel => self.hear_found(channel, message),
            // It connected to this process when this was the holder, and looks for the new one now.
            Role::Joined(_) | Role::Alone(_) | Role::Seeking | Role::Retiring | Role::Draining => {
                vec![Action::Close(channel)]
            }
        }
    }

    fn closed(&mut self, channel: ChannelId) -> Vec<Action> {
        match &self.role {
            Role::Joined(joined) if joined.channel() == channel => self.lose_holder(),
            Role::Holding(_) => self.lose_peer(channel),
            Role::Alone(Some(found)) if *found == channel => self.lose_found(channel),
            Role::Joined(_) | Role::Alone(_) | Role::Seeking | Role::Retiring | Role::Draining => Vec::new(),
        }
    }

    fn broken(&mut self, channel: ChannelId) -> Vec<Action> {
        match &self.role {
            Role::Joined(joined) if joined.channel() == channel => self.break_with_holder(),
            Role::Holding(_) => self.break_with_peer(channel),
            Role::Alone(Some(found)) if *found == channel => self.leave_found(channel),
            Role::Joined(_) | Role::Alone(_) | Role::Seeking | Role::Retiring | Role::Draining => Vec::new(),
        }
    }

    fn elapsed(&mut self, timer: Timer) -> Vec<Action> {
        match timer {
            Timer::Seek => self.seek_again(),
            Timer::Bind => self.bind_again(),
            Timer::Settle => self.settled(),
            Timer::Gather => self.gathered(),
            Timer::Give => self.give_overdue(),
            Timer::Predecessor => self.predecessor_overdue(),
            Timer::Leave => self.leave_overdue(),
        }
    }

    fn retargeted(&mut self, rank: Rank, closed: Option<String>) -> Vec<Action> {
        self.closed = closed;
        let mut actions = if self.own.rank == rank {
            Vec::new()
        } else {
            self.own.rank = rank;
            self.introduce_again()
        };
        actions.extend(self.ask());
        actions
    }

    /// Says anew who this process is, to its holder or to its peers.
    fn introduce_again(&self) -> Vec<Action> {
        match &self.role {
            Role::Joined(joined) => vec![self.hello(joined.channel())],
            Role::Holding(holding) if holding.is_bound() => {
                holding.channels().map(|channel| self.hello(channel)).collect()
            }
            Role::Holding(_) | Role::Alone(_) | Role::Seeking | Role::Retiring | Role::Draining => Vec::new(),
        }
    }

    fn hello(&self, channel: ChannelId) -> Action {
        let peer = self.introduction();
        let pool = self.pool.clone();
        Action::Send(channel, Message::Hello { peer, pool })
    }

    fn introduction(&self) -> Peer {
        Peer {
            has_listeners: !self.listeners.is_empty(),
            ..self.own.clone()
        }
    }
}
