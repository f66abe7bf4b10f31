//! Whether the static pod of this node can take over from the process that serves.

use std::collections::BTreeMap;

use tokio::sync::watch;
use trivet_crds::report::StandbyState;

use crate::handover::{machine::ChannelId, rank::Class, record::Peer};

/// What the holder knows of the processes that can take over.
#[derive(Debug)]
pub(super) struct Spares {
    /// The last snapshot that each peer has applied.
    applied: BTreeMap<ChannelId, u64>,
    state: watch::Sender<StandbyState>,
}

impl Default for Spares {
    fn default() -> Self {
        Self {
            applied: BTreeMap::new(),
            state: watch::Sender::new(StandbyState::Absent),
        }
    }
}

impl Spares {
    /// The state, and each later change.
    pub(super) fn subscribe(&self) -> watch::Receiver<StandbyState> {
        self.state.subscribe()
    }

    /// A peer has applied that snapshot.
    pub(super) fn applied(&mut self, channel: ChannelId, serial: u64) {
        self.applied.insert(channel, serial);
    }

    /// Judges the peers there are now; `serial` is that of the newest snapshot.
    pub(super) fn publish<'a>(&mut self, guests: impl Iterator<Item = (ChannelId, &'a Peer)>, serial: u64) {
        let guests: BTreeMap<_, _> = guests.collect();
        self.applied.retain(|channel, _| guests.contains_key(channel));
        let peers = guests
            .iter()
            .map(|(channel, peer)| (*peer, self.applied.get(channel).copied()));
        let state = judge(peers, serial);
        self.state.send_if_modified(|before| {
            let is_new = *before != state;
            *before = state;
            is_new
        });
    }
}

/// The state of the best standby. Only a static pod counts: an old pod of the DaemonSet that has given is deleted soon.
fn judge<'a>(peers: impl Iterator<Item = (&'a Peer, Option<u64>)>, newest: u64) -> StandbyState {
    let mut standbys = peers
        .filter(|(peer, _)| peer.rank.class == Class::Static && !peer.is_leaving)
        .peekable();
    if standbys.peek().is_none() {
        StandbyState::Absent
    } else if standbys.any(|(peer, applied)| peer.is_warm && applied == Some(newest)) {
        StandbyState::Ready
    } else {
        StandbyState::Stale
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::handover::rank::Rank;

    fn peer(class: Class, is_warm: bool, is_leaving: bool) -> Peer {
        Peer {
            id: "a".to_owned(),
            release: String::new(),
            rank: Rank {
                class,
                matches_document: false,
                generation: 0,
            },
            template: String::new(),
            is_leaving,
            is_warm,
            has_listeners: true,
            pairs: 0,
            knows_extra_listeners: false,
            other: Map::new(),
        }
    }

    #[test]
    fn a_warm_static_pod_with_the_newest_snapshot_is_ready() {
        let warm = peer(Class::Static, true, false);
        let cold = peer(Class::Static, false, false);
        let leaving = peer(Class::Static, true, true);
        let pod = peer(Class::DaemonSet, true, false);
        for (peers, state) in [
            (vec![], StandbyState::Absent),
            (vec![(&pod, Some(7))], StandbyState::Absent),
            (vec![(&leaving, Some(7))], StandbyState::Absent),
            (vec![(&cold, None)], StandbyState::Stale),
            (vec![(&warm, Some(6))], StandbyState::Stale),
            (vec![(&warm, Some(7))], StandbyState::Ready),
            (vec![(&warm, Some(6)), (&warm, Some(7))], StandbyState::Ready),
        ] {
            assert_eq!(judge(peers.iter().copied(), 7), state, "{peers:?}");
        }
    }

    #[test]
    fn what_a_peer_applied_is_forgotten_with_it() {
        let mut spares = Spares::default();
        let told = spares.subscribe();
        let warm = peer(Class::Static, true, false);
        let channel = ChannelId(1);
        spares.applied(channel, 1);
        spares.publish([(channel, &warm)].into_iter(), 1);
        assert_eq!(*told.borrow(), StandbyState::Ready);
        spares.publish([].into_iter(), 1);
        assert_eq!(*told.borrow(), StandbyState::Absent);
        spares.publish([(channel, &warm)].into_iter(), 1);
        assert_eq!(*told.borrow(), StandbyState::Stale);
    }
}
