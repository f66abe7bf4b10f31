//! Each transition that matters, one by one. What follows from all of them together is explored in `tests/handover`.

mod finding;
mod gated;
mod giving;
mod leaving;
mod stalling;
mod taking;

use serde_json::Map;

use super::*;
use crate::handover::record::{AskReason, ListenerKind};

/// The channel to the holder, in a peer.
const UP: ChannelId = ChannelId(1);
/// Channels of peers, in a holder.
const FIRST: ChannelId = ChannelId(2);
const SECOND: ChannelId = ChannelId(3);

fn rank(class: Class, generation: u64) -> Rank {
    Rank {
        class,
        matches_document: true,
        generation,
    }
}

fn pod(generation: u64) -> Rank {
    rank(Class::DaemonSet, generation)
}

fn standby() -> Rank {
    rank(Class::Static, 0)
}

fn process(rank: Rank) -> Peer {
    Peer {
        id: "a".to_owned(),
        release: "0.2.0".to_owned(),
        rank,
        template: String::new(),
        is_leaving: false,
        is_warm: false,
        has_listeners: false,
        pairs: 0,
        knows_extra_listeners: false,
        other: Map::new(),
    }
}

fn warm(rank: Rank) -> Peer {
    Peer {
        is_warm: true,
        ..process(rank)
    }
}

fn listener() -> Listener {
    Listener {
        name: "default".to_owned(),
        kind: ListenerKind::Apiserver,
        address: "127.0.0.1:7443".parse().unwrap(),
        other: Map::new(),
    }
}

/// One for clients of other servers.
fn extra_listener() -> Listener {
    Listener {
        name: "konnectivity".to_owned(),
        kind: ListenerKind::Tls,
        address: "127.0.0.1:18132".parse().unwrap(),
        other: Map::new(),
    }
}

fn snapshot() -> Snapshot {
    Snapshot {
        serial: 4,
        revision: 7,
        bytes: 100,
    }
}

fn hello(peer: Peer) -> Message {
    let pool = "default".to_owned();
    Message::Hello { peer, pool }
}

impl Machine {
    fn of(rank: Rank) -> Self {
        Self::new(process(rank), "default".to_owned())
    }

    /// Reads a record, then has nothing more to read.
    fn reads(&mut self, channel: ChannelId, message: Message) -> Vec<Action> {
        let mut actions = self.observe(Event::Received(channel, message));
        actions.extend(self.observe(Event::AllRead));
        actions
    }

    /// One that serves, and has done so for a while.
    fn serving(rank: Rank) -> Self {
        let mut machine = Self::of(rank);
        for event in [
            Event::Started,
            Event::Unreachable,
            Event::Locked,
            Event::Bound(vec![listener()]),
            Event::SnapshotReady(snapshot()),
            Event::Elapsed(Timer::Settle),
        ] {
            machine.observe(event);
        }
        assert_eq!(machine.state(), State::Serving);
        machine
    }

    /// A peer that holds the listeners of this holder and is warm.
    fn beside(holder: Peer, rank: Rank) -> Self {
        let mut machine = Self::of(rank);
        machine.observe(Event::Started);
        machine.observe(Event::Connected(UP));
        machine.reads(UP, hello(holder));
        let listeners = vec![listener()];
        machine.reads(UP, Message::Lend { listeners });
        machine.observe(Event::Applied(4));
        machine
    }

    /// A holder whose port another process has.
    fn without_port() -> Self {
        let mut machine = Self::of(pod(1));
        for event in [
            Event::Started,
            Event::Unreachable,
            Event::Locked,
            Event::PortTaken,
        ] {
            machine.observe(event);
        }
        machine
    }

    /// A newcomer that has asked by rank and has acknowledged the offer.
    fn amid_take() -> Self {
        let mut machine = Self::beside(warm(standby()), pod(1));
        machine.observe(Event::Proven);
        machine.reads(UP, offer());
        assert_eq!(machine.state(), State::Taking);
        machine
    }

    /// A holder that has committed to its first peer.
    fn amid_give() -> Self {
        let mut machine = Self::serving(standby());
        machine.reads(FIRST, hello(warm(pod(1))));
        machine.reads(FIRST, asks(AskReason::Rank));
        machine.reads(
            FIRST,
            Message::Ack {
                take: 1,
                addresses: Vec::new(),
            },
        );
        assert_eq!(machine.state(), State::Giving);
        machine
    }
}

fn offer() -> Message {
    Message::Offer {
        take: 1,
        addresses: vec![listener().address],
        pairs: 0,
    }
}

fn asks(reason: AskReason) -> Message {
    Message::Ask { take: 1, reason }
}

/// The messages that are sent on a channel.
fn sent(actions: &[Action], on: ChannelId) -> Vec<&Message> {
    let sends = actions.iter().filter_map(|action| match action {
        Action::Send(channel, message) if *channel == on => Some(message),
        _ => None,
    });
    sends.collect()
}

fn offers(actions: &[Action], on: ChannelId) -> bool {
    matches!(sent(actions, on)[..], [Message::Offer { .. }])
}

fn commits(actions: &[Action], on: ChannelId) -> bool {
    matches!(sent(actions, on)[..], [Message::Commit { .. }])
}
