//! SIGTERM: a holder gives, a peer ends.

use std::time::Duration;

use super::{Action, Machine, Message, Role, Timer};
use crate::handover::record::AbortReason;

/// How long a holder waits for somebody who takes.
const LEAVE_LIMIT: Duration = Duration::from_secs(30);

/// How long its peers have to ask, so that the best of them takes and not the first.
const GATHER_LIMIT: Duration = Duration::from_millis(100);

/// The pause before a process that has left for long enough looks again whether a give has ended.
const LEAVE_AGAIN: Duration = Duration::from_secs(1);

impl Machine {
    pub(super) fn leave(&mut self) -> Vec<Action> {
        if self.own.is_leaving {
            return Vec::new();
        }
        self.own.is_leaving = true;
        match &self.role {
            Role::Holding(holding) if holding.is_bound() => {
                let mut actions = self.broadcast(&Message::Leaving);
                actions.push(Action::Set(Timer::Gather, GATHER_LIMIT));
                actions.push(Action::Set(Timer::Leave, LEAVE_LIMIT));
                actions
            }
            Role::Holding(holding) => {
                let mut actions = holding.give_way();
                actions.extend(self.drain(false));
                actions
            }
            Role::Alone(_) => self.drain(true),
            // It accepts until somebody else does.
            Role::Seeking | Role::Joined(_) if self.is_assisting => {
                let mut actions = self.introduce_again();
                actions.push(Action::Set(Timer::Leave, LEAVE_LIMIT));
                actions
            }
            Role::Seeking | Role::Joined(_) => self.retire(),
            Role::Retiring | Role::Draining => Vec::new(),
        }
    }

    /// Ends a process that is not the holder.
    pub(super) fn retire(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.is_assisting {
            self.is_assisting = false;
            actions.push(Action::StopAccepting);
        }
        // Before the channel ends: a holder that waits for the port binds it then.
        actions.push(Action::DropListeners);
        if let Role::Joined(joined) = &self.role {
            actions.extend(joined.abort(AbortReason::Leaving));
            actions.push(Action::Close(joined.channel()));
        }
        actions.extend([Action::Clear(Timer::Seek), Action::Clear(Timer::Leave)]);
        self.listeners.clear();
        self.role = Role::Retiring;
        actions.push(Action::Drain { is_last: false });
        actions
    }

    /// Ends a process that was the holder.
    pub(super) fn drain(&mut self, is_last: bool) -> Vec<Action> {
        self.role = Role::Draining;
        self.listeners.clear();
        vec![Action::Drain { is_last }]
    }

    pub(super) fn gathered(&mut self) -> Vec<Action> {
        if let Role::Holding(holding) = &mut self.role {
            holding.has_gathered = true;
        }
        Vec::new()
    }

    pub(super) fn leave_overdue(&mut self) -> Vec<Action> {
        match &self.role {
            // How the give ends is known in a moment.
            Role::Holding(holding) if holding.giving.is_some() => {
                vec![Action::Set(Timer::Leave, LEAVE_AGAIN)]
            }
            Role::Holding(_) => self.leave_to_none(),
            Role::Seeking | Role::Joined(_) if self.own.is_leaving => self.retire(),
            Role::Seeking | Role::Joined(_) | Role::Alone(_) | Role::Retiring | Role::Draining => Vec::new(),
        }
    }

    /// A release that shares the port by `SO_REUSEPORT` goes on with it, if no peer does.
    pub(super) fn another_listens(&mut self) -> Vec<Action> {
        let Role::Holding(holding) = &self.role else {
            return Vec::new();
        };
        if self.own.is_leaving && holding.guests.is_empty() {
            self.leave_to_none()
        } else {
            Vec::new()
        }
    }

    fn leave_to_none(&mut self) -> Vec<Action> {
        let Role::Holding(holding) = &self.role else {
            return Vec::new();
        };
        let is_last = holding.guests.is_empty();
        let mut actions = holding.give_way();
        actions.extend(self.drain(is_last));
        actions
    }
}
