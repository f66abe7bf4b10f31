//! A peer that accepts beside a holder that hangs.

use super::{Action, Machine, Message, Role};
use crate::handover::record::AbortReason;

impl Machine {
    /// Accepts beside a holder that hangs, or while there is none that runs.
    pub(super) fn assist(&mut self) -> Vec<Action> {
        if self.is_assisting || self.own.is_leaving || self.listeners.is_empty() {
            return Vec::new();
        }
        match &self.role {
            Role::Seeking => {
                self.is_assisting = true;
                vec![Action::Accept, Action::Connect]
            }
            Role::Joined(joined) if joined.is_taking() => {
                // The take would not end before the holder turns again. The new channel tells it at once who accepts.
                let mut actions = vec![Action::Accept];
                actions.extend(joined.abort(AbortReason::Stalled));
                actions.extend([Action::Close(joined.channel()), Action::Connect]);
                self.role = Role::Seeking;
                self.is_assisting = true;
                actions
            }
            Role::Joined(joined) => {
                self.is_assisting = true;
                vec![
                    Action::Accept,
                    Action::Send(joined.channel(), Message::Assist { on: true }),
                ]
            }
            Role::Alone(_) | Role::Holding(_) | Role::Retiring | Role::Draining => Vec::new(),
        }
    }

    pub(super) fn stop_assisting(&mut self) -> Vec<Action> {
        if !self.is_assisting {
            return Vec::new();
        }
        if self.own.is_leaving {
            return self.retire();
        }
        self.is_assisting = false;
        let mut actions = vec![Action::StopAccepting];
        if let Role::Joined(joined) = &self.role {
            actions.push(Action::Send(joined.channel(), Message::Assist { on: false }));
        }
        actions
    }
}
