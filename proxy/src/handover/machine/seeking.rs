//! Without a holder and without the lock: connect, else lock, else wait a little.

use std::time::Duration;

use super::{
    Action, ChannelId, Machine, Message, Role, Timer,
    holding::{Holding, PREDECESSOR_LIMIT},
    joined::Joined,
};
use crate::handover::rank::Class;

/// The pause between two attempts. It is short because clients wait: after a crash the kernel may tell the end of file
/// before the lock is free, and after a give the new holder binds the path a moment after it has the lock. An attempt is
/// two system calls.
const PAUSE: Duration = Duration::from_millis(5);

/// A static pod lets a pod of the DaemonSet come first: rank would take the listeners from it again.
const STATIC_PAUSE: Duration = Duration::from_millis(20);

/// A pod whose gate is closed lets a static pod come first: that one is known to work.
const GATED_PAUSE: Duration = Duration::from_millis(50);

/// A process without listeners lets those that hold them come first, because only they can accept while all of them live.
const EMPTY_PAUSE: Duration = Duration::from_millis(100);

/// The pause after a channel on which something was wrong.
const FAULT_PAUSE: Duration = Duration::from_secs(1);

impl Machine {
    /// The holder's channel has ended, or this process holds no more.
    pub(super) fn seek(&mut self) -> Vec<Action> {
        self.role = Role::Seeking;
        if self.listeners.is_empty() {
            vec![Action::Set(Timer::Seek, EMPTY_PAUSE)]
        } else if self.own.rank.class == Class::Static {
            vec![Action::Set(Timer::Seek, STATIC_PAUSE)]
        } else if self.is_gated(&self.own) {
            vec![Action::Set(Timer::Seek, GATED_PAUSE)]
        } else {
            vec![Action::Connect]
        }
    }

    /// Leaves this channel for a moment.
    pub(super) fn seek_after(&mut self, channel: ChannelId) -> Vec<Action> {
        self.role = Role::Seeking;
        vec![Action::Close(channel), Action::Set(Timer::Seek, EMPTY_PAUSE)]
    }

    /// Leaves this channel, which will probably not be better when it is made anew at once. One that accepts beside the
    /// holder must be known to it soon all the same.
    pub(super) fn seek_after_fault(&mut self, channel: ChannelId) -> Vec<Action> {
        if self.is_assisting {
            return self.seek_after(channel);
        }
        self.role = Role::Seeking;
        vec![Action::Close(channel), Action::Set(Timer::Seek, FAULT_PAUSE)]
    }

    pub(super) fn seek_again(&mut self) -> Vec<Action> {
        match &mut self.role {
            Role::Seeking => vec![Action::Connect],
            Role::Alone(found) => {
                // One that has not answered since the last look hangs.
                let silent = found.take().map(Action::Close);
                silent.into_iter().chain([Action::Connect]).collect()
            }
            Role::Joined(_) | Role::Holding(_) | Role::Retiring | Role::Draining => Vec::new(),
        }
    }

    pub(super) fn connected(&mut self, channel: ChannelId) -> Vec<Action> {
        match &mut self.role {
            Role::Seeking => {
                self.role = Role::Joined(Joined::new(channel));
                let mut actions = vec![self.hello(channel)];
                if self.is_assisting {
                    actions.push(Action::Send(channel, Message::Assist { on: true }));
                }
                actions
            }
            Role::Holding(holding) => {
                holding.claim_on(channel);
                vec![self.hello(channel)]
            }
            Role::Alone(found @ None) => {
                *found = Some(channel);
                vec![self.hello(channel), self.look_again()]
            }
            Role::Alone(Some(_)) | Role::Joined(_) | Role::Retiring | Role::Draining => {
                vec![Action::Close(channel)]
            }
        }
    }

    pub(super) fn unreachable(&mut self) -> Vec<Action> {
        match &mut self.role {
            // One that has got SIGTERM takes nothing: it only waits for another to accept.
            Role::Seeking if self.own.is_leaving => vec![Action::Set(Timer::Seek, PAUSE)],
            Role::Seeking | Role::Alone(_) => vec![Action::TryLock],
            Role::Joined(_) | Role::Holding(_) | Role::Retiring | Role::Draining => Vec::new(),
        }
    }

    pub(super) fn lock_held(&mut self) -> Vec<Action> {
        match &mut self.role {
            Role::Seeking if self.listeners.is_empty() => vec![Action::Set(Timer::Seek, EMPTY_PAUSE)],
            Role::Seeking => vec![Action::Set(Timer::Seek, PAUSE)],
            Role::Holding(_) => vec![Action::Connect],
            Role::Alone(_) => vec![self.look_again()],
            Role::Joined(_) | Role::Retiring | Role::Draining => Vec::new(),
        }
    }

    pub(super) fn locked(&mut self) -> Vec<Action> {
        match &mut self.role {
            Role::Seeking | Role::Alone(_) if self.listeners.is_empty() => {
                // The path comes first: a process that holds the listeners gets the lock from this one there.
                let mut holding = Holding::unbound();
                let mut actions = holding.bind_path();
                actions.push(Action::Bind);
                self.role = Role::Holding(holding);
                actions
            }
            Role::Seeking | Role::Alone(_) => self.serve(None),
            Role::Holding(holding) => holding.bind_path(),
            Role::Joined(_) | Role::Retiring | Role::Draining => vec![Action::DropLock],
        }
    }

    /// Accepts from now on. A former holder that may still live ends its channel when it knows.
    pub(super) fn serve(&mut self, predecessor: Option<ChannelId>) -> Vec<Action> {
        self.is_assisting = false;
        self.own.is_warm = true;
        let mut holding = Holding::serving(predecessor);
        let mut actions = vec![Action::Accept];
        if predecessor.is_some() {
            actions.push(Action::Set(Timer::Predecessor, PREDECESSOR_LIMIT));
        } else {
            actions.extend(holding.bind_path());
        }
        self.role = Role::Holding(holding);
        actions
    }

    /// Serves without hand-over: clients count for more than order among processes.
    pub(super) fn unavailable(&mut self) -> Vec<Action> {
        match &self.role {
            Role::Seeking if self.own.is_leaving => self.retire(),
            Role::Seeking => {
                self.role = Role::Alone(None);
                self.is_assisting = false;
                let serve = if self.listeners.is_empty() {
                    Action::Bind
                } else {
                    Action::Accept
                };
                vec![serve, self.look_again()]
            }
            Role::Alone(_) => vec![self.look_again()],
            // It goes on serving; the lock is looked at again each second.
            Role::Holding(_) | Role::Joined(_) | Role::Retiring | Role::Draining => Vec::new(),
        }
    }

    pub(super) fn bind_again(&mut self) -> Vec<Action> {
        match &self.role {
            Role::Alone(_) => vec![Action::Bind],
            Role::Holding(holding) if !holding.is_bound() => vec![Action::Bind],
            Role::Holding(_) | Role::Seeking | Role::Joined(_) | Role::Retiring | Role::Draining => {
                Vec::new()
            }
        }
    }
}
