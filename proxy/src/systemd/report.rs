//! What the proxy tells systemd while it runs: that it has started, how it is, and that it lives.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tracing::warn;

use super::Service;
use crate::{
    balance::{Standing, View, health::State},
    listener::Listeners,
    readiness::Readiness,
    upstream::Upstreams,
};

/// How soon the listeners are looked at again until the proxy has started: kubelet's unit waits for it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The longest time between two looks once it has started.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// A proxy that cannot bind a listener for this long counts as started. Otherwise systemd would restart it again and
/// again, which ends the listeners that work, and units that are ordered after it would wait.
const STARTED: Duration = Duration::from_secs(20);

/// The facts of one message.
#[derive(Clone, Debug)]
struct Facts {
    /// Why not every listener address is held; none if all are.
    unheld: Option<String>,
    listeners: Vec<SocketAddr>,
    /// The active members, and how many of them are Up.
    members: usize,
    up: usize,
    /// The number of connections that a proxy has left that ends; none while it goes on.
    draining: Option<usize>,
    is_alive: bool,
    running_for: Duration,
}

/// What systemd knows already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    ready: bool,
    status: String,
}

/// Reports without end. Does nothing if systemd does not want to hear from this process.
pub async fn report(
    service: Service,
    readiness: Arc<Readiness>,
    listeners: Arc<Listeners>,
    upstreams: Arc<Upstreams>,
) {
    let Some(notifier) = &service.notifier else {
        return;
    };
    let started = Instant::now();
    let period = service
        .watchdog
        .map_or(REPORT_EVERY, |limit| REPORT_EVERY.min(limit / 3));
    let mut told = Told::default();
    let mut was_heard = true;
    loop {
        let (up, members) = count(&upstreams.view());
        let facts = Facts {
            unheld: readiness.unheld(),
            listeners: listeners.bound(),
            members,
            up,
            draining: readiness.is_ending().then(|| listeners.connections()),
            is_alive: readiness.lifeless().is_none(),
            running_for: started.elapsed(),
        };
        let (message, now) = message(&facts, &told, service.watchdog.is_some());
        let sent = message.map_or(Ok(()), |message| notifier.send(&message));
        let is_heard = sent.is_ok();
        if is_heard {
            told = now;
        }
        if let Err(error) = sent
            && was_heard
        {
            warn!(%error, "failed to notify systemd, trying again");
        }
        was_heard = is_heard;
        let is_starting = is_heard && !told.ready;
        sleep(if is_starting { LOOK_AGAIN } else { period }).await;
    }
}

/// The lines that systemd does not know yet, if any, and what it knows after them.
fn message(facts: &Facts, told: &Told, has_watchdog: bool) -> (Option<String>, Told) {
    let now = Told {
        ready: told.ready || facts.unheld.is_none() || facts.running_for >= STARTED,
        status: status(facts),
    };
    let mut lines = Vec::new();
    if now.ready && !told.ready {
        lines.push("READY=1".to_owned());
    }
    if now.status != told.status {
        lines.push(format!("STATUS={}", now.status));
    }
    // Before READY=1 systemd has another limit, TimeoutStartSec=.
    if has_watchdog && facts.is_alive && told.ready {
        lines.push("WATCHDOG=1".to_owned());
    }
    ((!lines.is_empty()).then(|| lines.join("\n")), now)
}

/// One line for `systemctl status`.
fn status(facts: &Facts) -> String {
    if let Some(connections) = facts.draining {
        return format!("ending, {connections} connections are left");
    }
    if let Some(unheld) = &facts.unheld {
        // A line feed would begin another field of the message.
        return unheld.replace('\n', " ");
    }
    let listeners: Vec<_> = facts.listeners.iter().map(ToString::to_string).collect();
    format!(
        "listening on {}; {} of {} members are Up",
        listeners.join(" and "),
        facts.up,
        facts.members
    )
}

/// How many active members are Up, and how many there are.
fn count(paths: &[View]) -> (usize, usize) {
    let mut members: BTreeMap<&str, bool> = BTreeMap::new();
    for path in paths.iter().filter(|path| path.standing == Standing::Active) {
        *members.entry(&path.key.member).or_default() |= path.state == State::Up;
    }
    (members.values().filter(|is_up| **is_up).count(), members.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> Facts {
        Facts {
            unheld: None,
            listeners: vec!["127.0.0.1:7443".parse().unwrap(), "[::1]:7443".parse().unwrap()],
            members: 3,
            up: 2,
            draining: None,
            is_alive: true,
            running_for: Duration::ZERO,
        }
    }

    fn unheld() -> Facts {
        Facts {
            unheld: Some("listener [::1]:7443: not bound yet".to_owned()),
            ..held()
        }
    }

    #[test]
    fn a_proxy_that_holds_every_address_has_started_whatever_its_members_do() {
        let nobody = Facts { up: 0, ..held() };
        let (told, _) = message(&nobody, &Told::default(), false);
        assert_eq!(
            told.unwrap(),
            "READY=1\nSTATUS=listening on 127.0.0.1:7443 and [::1]:7443; 0 of 3 members are Up"
        );
    }

    #[test]
    fn a_proxy_that_lacks_an_address_says_why_and_has_started_after_20_seconds() {
        let (first, told) = message(&unheld(), &Told::default(), false);
        assert_eq!(first.unwrap(), "STATUS=listener [::1]:7443: not bound yet");
        assert_eq!(message(&unheld(), &told, false), (None, told.clone()));
        let later = Facts {
            running_for: STARTED,
            ..unheld()
        };
        assert_eq!(message(&later, &told, false).0.unwrap(), "READY=1");
    }

    #[test]
    fn a_proxy_that_has_started_stays_so_when_it_loses_an_address() {
        let (_, told) = message(&held(), &Told::default(), false);
        let (lost, told) = message(&unheld(), &told, false);
        assert_eq!(lost.unwrap(), "STATUS=listener [::1]:7443: not bound yet");
        let (again, _) = message(&held(), &told, false);
        assert!(!again.unwrap().contains("READY"));
    }

    #[test]
    fn the_watchdog_is_fed_only_while_no_task_is_missing() {
        let (_, told) = message(&held(), &Told::default(), true);
        assert_eq!(message(&held(), &told, true).0.unwrap(), "WATCHDOG=1");
        let stuck = Facts {
            is_alive: false,
            ..held()
        };
        assert_eq!(message(&stuck, &told, true).0, None);
    }

    #[test]
    fn a_status_is_one_line() {
        let fault = Facts {
            unheld: Some("taken by a\nREADY=1".to_owned()),
            ..held()
        };
        assert_eq!(status(&fault), "taken by a READY=1");
        let ending = Facts {
            draining: Some(14),
            ..held()
        };
        assert_eq!(status(&ending), "ending, 14 connections are left");
    }
}
