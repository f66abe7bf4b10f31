//! What the pool as a whole does for clients, for people: one line in the log when that has changed for good.
//!
//! Each member's own changes are told as they come. That nobody is left, or that clients are still sent to members that
//! say they are not ready, is what somebody who was called at night looks for, and follows from no single line.

use std::time::Duration;

use tokio::time::Instant;

use crate::balance::{
    Standing, View,
    health::{Reason, State},
};

/// So long must it have been so before it is told: a start, or one late probe of each, is no news.
const TELL_AFTER: Duration = Duration::from_secs(5);

/// What clients get, the best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Service {
    /// A member that is Up.
    #[default]
    Up,
    /// None is Up, and clients are sent to members that answer; nothing is cut for it.
    Unready,
    /// No member answers its probes: clients are tried with each, and refused where none takes them.
    Gone,
}

impl Service {
    /// What these upstreams amount to; none without any that may be dialled, which is before the first document.
    pub(super) fn of(upstreams: impl IntoIterator<Item = (Standing, State, Reason)>) -> Option<Self> {
        let tried = upstreams
            .into_iter()
            .filter(|(standing, ..)| standing.is_usable());
        tried.map(|(_, state, reason)| Self::by(state, reason)).min()
    }

    fn by(state: State, reason: Reason) -> Self {
        match (state, reason) {
            (State::Up, _) => Self::Up,
            (State::Down, _)
            | (State::Unready, Reason::Untrusted | Reason::NotProbed | Reason::Refused | Reason::Silent) => {
                Self::Gone
            }
            (
                State::Unready,
                Reason::Answering
                | Reason::Remembered
                | Reason::Recovering
                | Reason::HeldDown
                | Reason::NotReady
                | Reason::Late
                | Reason::EtcdFailed,
            ) => Self::Unready,
        }
    }
}

/// Whether an upstream of this health is expected to answer a new connection.
pub(super) fn answers((state, reason): (State, Reason)) -> bool {
    Service::by(state, reason) != Service::Gone
}

/// The members and why each is in its state: `cp1 Unready EtcdFailed, cp2 Down Silent`.
pub(super) fn members(views: &[View]) -> String {
    let told = views.iter().filter(|view| view.standing.is_usable()).map(|view| {
        let earlier = if view.standing == Standing::LastResort {
            " of an earlier document"
        } else {
            ""
        };
        format!(
            "{} {} {}{earlier}",
            view.identity.name,
            view.state.as_str(),
            view.reason.as_str()
        )
    });
    told.collect::<Vec<_>>().join(", ")
}

/// What was told, and since when it is otherwise.
#[derive(Debug, Default)]
pub(super) struct ServiceLog {
    told: Service,
    other: Option<(Service, Instant)>,
}

impl ServiceLog {
    /// What to tell now, if anything. That all is well is told only in answer to something else.
    pub(super) fn look(&mut self, service: Service, now: Instant) -> Option<Service> {
        if self.told == service {
            self.other = None;
            return None;
        }
        let since = match self.other {
            Some((other, since)) if other == service => since,
            Some(_) | None => now,
        };
        self.other = Some((service, since));
        if now.saturating_duration_since(since) < TELL_AFTER {
            return None;
        }
        self.told = service;
        self.other = None;
        Some(service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn service(upstreams: &[(Standing, State, Reason)]) -> Option<Service> {
        Service::of(upstreams.iter().copied())
    }

    #[test]
    fn the_best_member_is_what_clients_get() {
        let down = (Standing::Active, State::Down, Reason::Silent);
        let refusing = (Standing::Active, State::Unready, Reason::Refused);
        let without_etcd = (Standing::Active, State::Unready, Reason::EtcdFailed);
        let well = (Standing::Active, State::Up, Reason::Answering);
        assert_eq!(service(&[down, refusing]), Some(Service::Gone));
        assert_eq!(service(&[down, without_etcd, refusing]), Some(Service::Unready));
        assert_eq!(service(&[without_etcd, well, down]), Some(Service::Up));
    }

    #[test]
    fn members_that_get_no_new_connection_count_for_nothing() {
        let leaving = (Standing::Draining, State::Up, Reason::Answering);
        let removed = (Standing::Removed, State::Up, Reason::Answering);
        let earlier = (Standing::LastResort, State::Up, Reason::Answering);
        assert_eq!(service(&[leaving, removed]), None);
        assert_eq!(service(&[leaving, earlier]), Some(Service::Up));
    }

    #[test]
    fn what_lasts_is_told_once_and_so_is_its_end() {
        let (mut service_log, start) = (ServiceLog::default(), Instant::now());
        assert_eq!(service_log.look(Service::Gone, start), None);
        assert_eq!(service_log.look(Service::Gone, start + 4 * SECOND), None);
        assert_eq!(
            service_log.look(Service::Gone, start + 5 * SECOND),
            Some(Service::Gone)
        );
        assert_eq!(service_log.look(Service::Gone, start + 60 * SECOND), None);
        assert_eq!(service_log.look(Service::Up, start + 61 * SECOND), None);
        assert_eq!(
            service_log.look(Service::Up, start + 66 * SECOND),
            Some(Service::Up)
        );
    }

    #[test]
    fn what_passes_is_not_told() {
        let (mut service_log, start) = (ServiceLog::default(), Instant::now());
        assert_eq!(service_log.look(Service::Unready, start), None);
        assert_eq!(service_log.look(Service::Up, start + 3 * SECOND), None);
        assert_eq!(service_log.look(Service::Unready, start + 4 * SECOND), None);
        assert_eq!(service_log.look(Service::Unready, start + 8 * SECOND), None);
        assert_eq!(
            service_log.look(Service::Unready, start + 9 * SECOND),
            Some(Service::Unready)
        );
    }

    #[test]
    fn a_change_for_the_worse_has_its_own_wait() {
        let (mut service_log, start) = (ServiceLog::default(), Instant::now());
        service_log.look(Service::Unready, start);
        assert_eq!(service_log.look(Service::Gone, start + 5 * SECOND), None);
        assert_eq!(
            service_log.look(Service::Gone, start + 10 * SECOND),
            Some(Service::Gone)
        );
    }
}
