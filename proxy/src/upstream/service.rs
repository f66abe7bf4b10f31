//! The service of the whole pool: one log line when it has changed for some seconds.
//!
//! Each change of a member is logged by itself. But no single one of those lines says that no member is left, or that clients
//! are still sent to members that are not ready; this is what an administrator on call looks for.

use std::time::Duration;

use tokio::time::Instant;

use crate::balance::{
    Standing, View,
    health::{Reason, State, answers},
    last_resort::FURTHER_AFTER,
};

/// How long a change must last before it is told: a start, or one overdue probe of each member, is not worth a line.
const TELL_AFTER: Duration = Duration::from_secs(5);

/// The same for the change to [`Service::Gone`]: by then the further endpoints were asked too, and the line says what came of
/// it.
const TELL_GONE_AFTER: Duration = FURTHER_AFTER.saturating_add(Duration::from_secs(3));

/// Where clients are sent, the best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// A member that is Up.
    #[default]
    Up,
    /// None is Up, and clients are sent to members that answer; nothing is cut for it.
    Unready,
    /// No Active member answers, and clients are sent to the last resort.
    LastResort,
    /// No member answers its probes: each client is tried with every member, and reset if none takes it.
    Gone,
}

impl Service {
    /// The best service of these upstreams; none without upstreams, that is, before the first document.
    pub fn of(upstreams: impl IntoIterator<Item = (Standing, State, Reason)>) -> Option<Self> {
        upstreams.into_iter().map(Self::by).min()
    }

    fn by((standing, state, reason): (Standing, State, Reason)) -> Self {
        match (standing, state) {
            (_, state) if !answers(state, reason) => Self::Gone,
            (Standing::Draining | Standing::Removed | Standing::LastResort, _) => Self::LastResort,
            (Standing::Disabled, _) => Self::Gone,
            (Standing::Active, State::Up) => Self::Up,
            (Standing::Active, State::Unready | State::Down) => Self::Unready,
        }
    }
}

/// The members with state and reason: `cp1 Unready EtcdFailed, cp2 Down Silent`. A member with several addresses is listed
/// with each of them.
pub(super) fn members(views: &[View]) -> String {
    let told = views.iter().map(|view| {
        let paths = views.iter().filter(|other| other.key.member == view.key.member);
        let address = match paths.count() {
            0 | 1 => String::new(),
            _ => format!(" at {}", view.key.address),
        };
        let standing = match view.standing {
            Standing::Active => "",
            Standing::Draining => " draining",
            Standing::Removed => " removed",
            Standing::LastResort => " as a last resort",
            Standing::Disabled => " disabled",
        };
        format!(
            "{}{address} {} {}{standing}",
            view.key.member,
            view.state.as_str(),
            view.reason.as_str()
        )
    });
    told.collect::<Vec<_>>().join(", ")
}

/// What to say and to do when no member answers, not even as a last resort.
pub(super) fn nobody_answers(members: &str) -> String {
    format!(
        "no member answers its probes, nor does any address of earlier documents, of the endpoints of default/kubernetes or of the seed: {members}; clients are tried with each, and refused where none takes them. Check the network of this node, then the apiservers; if all masters were replaced while this node was off, point its kubelet at one of them until the proxy follows a newer document"
    )
}

/// The service that was logged last, and since when it differs from that.
#[derive(Debug, Default)]
pub struct ServiceLog {
    told: Service,
    other: Option<(Service, Instant)>,
}

impl ServiceLog {
    /// What to log now, if anything. Up is logged only after another service was.
    pub fn look(&mut self, service: Service, now: Instant) -> Option<Service> {
        if self.told == service {
            self.other = None;
            return None;
        }
        let since = match self.other {
            Some((other, since)) if other == service => since,
            Some(_) | None => now,
        };
        self.other = Some((service, since));
        let tell_after = match service {
            Service::Up | Service::Unready | Service::LastResort => TELL_AFTER,
            Service::Gone => TELL_GONE_AFTER,
        };
        if now.saturating_duration_since(since) < tell_after {
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
    fn members_that_drain_or_were_removed_are_the_last_resort() {
        let silent = (Standing::Active, State::Down, Reason::Silent);
        let well = (Standing::Active, State::Up, Reason::Answering);
        for standing in [Standing::Draining, Standing::Removed, Standing::LastResort] {
            let leaving = (standing, State::Up, Reason::Answering);
            assert_eq!(service(&[silent, leaving]), Some(Service::LastResort));
            assert_eq!(service(&[well, leaving]), Some(Service::Up));
        }
        assert_eq!(service(&[]), None);
    }

    #[test]
    fn a_disabled_member_that_answers_serves_no_client() {
        let silent = (Standing::Active, State::Down, Reason::Silent);
        let disabled = (Standing::Disabled, State::Up, Reason::Answering);
        assert_eq!(service(&[silent, disabled]), Some(Service::Gone));
    }

    #[test]
    fn what_lasts_is_told_once_and_so_is_its_end() {
        let (mut service_log, start) = (ServiceLog::default(), Instant::now());
        assert_eq!(service_log.look(Service::Gone, start), None);
        assert_eq!(service_log.look(Service::Gone, start + 7 * SECOND), None);
        assert_eq!(
            service_log.look(Service::Gone, start + 8 * SECOND),
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
            service_log.look(Service::Gone, start + 13 * SECOND),
            Some(Service::Gone)
        );
    }
}
