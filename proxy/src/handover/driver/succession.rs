//! A process that leaves and has no peer: a release that knows no hand-over may go on with its ports.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{debug, info};

use super::Driver;
use crate::{
    handover::{
        lent::LentListener,
        machine::{Event, State},
    },
    listener::holding::Holding,
    net::{port_holders, socket},
};

/// How long a process that leaves waits for a peer before it lets others join its ports. A new pod of this release starts
/// sooner, and the port then stays closed to all others.
const ALONE_LIMIT: Duration = Duration::from_secs(5);

/// What a process knows that leaves and has no peer.
#[derive(Debug, Default)]
pub(super) struct Succession {
    alone_since: Option<Instant>,
    is_open: bool,
}

impl Succession {
    /// Whether it is time to let others join the ports.
    fn is_due(&mut self, is_alone: bool, now: Instant) -> bool {
        if !is_alone {
            self.alone_since = None;
            return false;
        }
        let since = *self.alone_since.get_or_insert(now);
        !self.is_open && now.saturating_duration_since(since) >= ALONE_LIMIT
    }
}

impl Driver {
    /// Looks whether a process without hand-over shares all ports of this one, which leaves, and lets one do so.
    pub(super) fn look_for_successor(&mut self) -> Option<Event> {
        let is_alone = self.machine.state() == State::Leaving
            && self.machine.status().is_some_and(|(_, peers)| peers.is_empty());
        if self.succession.is_due(is_alone, Instant::now()) {
            self.succession.is_open = true;
            self.open_for_joining();
        }
        (is_alone && self.is_shared()).then_some(Event::AnotherListens)
    }

    fn open_for_joining(&self) {
        info!("no other proxy of this node takes over: letting one that knows no hand-over join the ports");
        for (address, socket) in self.own_sockets() {
            if let Err(error) = socket::open_for_joining(&*socket) {
                debug!(%address, %error, "failed to set SO_REUSEPORT");
            }
        }
    }

    /// Whether another process of this user listens on each address, and is not known to be another program.
    fn is_shared(&self) -> bool {
        let holdings = self.listeners.holdings();
        let mut own = self.own_sockets().into_iter().peekable();
        own.peek().is_some()
            && own.all(|(address, socket)| {
                let is_contested = matches!(holdings.get(&address), Some(Holding::Contested(_)));
                !is_contested && port_holders::is_shared(address, &*socket)
            })
    }

    /// Without those that systemd passed: they stay open.
    fn own_sockets(&self) -> Vec<(SocketAddr, Arc<LentListener>)> {
        let sockets = self.listeners.sockets().all().into_iter();
        sockets
            .filter(|(address, _)| !self.listeners.is_passed(*address))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_opened_once_after_5_seconds_in_a_row_without_a_peer() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut succession = Succession::default();
        assert!(!succession.is_due(true, after(0)));
        assert!(!succession.is_due(true, after(4)));
        // A peer comes and goes.
        assert!(!succession.is_due(false, after(5)));
        assert!(!succession.is_due(true, after(6)));
        assert!(!succession.is_due(true, after(10)));
        assert!(succession.is_due(true, after(11)));
        succession.is_open = true;
        assert!(!succession.is_due(true, after(12)));
    }
}
