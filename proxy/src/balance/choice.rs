//! The order in which upstreams are tried for a new connection.

use std::cmp::Reverse;

use super::UpstreamId;
use super::health::{Reason, State};
use super::place::Distance;

/// What the choice knows of one upstream.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Which one.
    pub id: UpstreamId,
    /// Whether this node ever had a verified answer from it.
    pub proven: bool,
    /// What it may get.
    pub state: State,
    /// Why.
    pub reason: Reason,
    /// Its place in the last resort; 0 for a member that is to be used.
    pub resort: u8,
    /// Whether it left a client waiting since its last good answer.
    pub suspect: bool,
    /// How far it is, as far as the pool's owner cares.
    pub distance: Distance,
    /// Connections it has now.
    pub connections: usize,
    /// When it got its latest connection, counted in connections; 0 if never.
    pub turn: u64,
    /// Its rendezvous rank on this node.
    pub rank: u64,
}

/// All of them, the best first: proven before unproven, Up before Unready before Down, then in the
/// order of the last resort, trusted before suspect. Among those that are equally well the nearer before the farther, then least
/// connections, then whose turn it is (short connections leave no trace in the count), in rendezvous order at first.
/// Nobody is left out: the last resort is still a resort.
pub fn order(mut facts: Vec<Facts>) -> Vec<UpstreamId> {
    let suspicion = suspicion_counts(&facts);
    facts.sort_by_key(|upstream| {
        let health = if upstream.state == State::Up {
            Reason::Answering
        } else {
            upstream.reason
        };
        (
            !upstream.proven,
            upstream.state,
            health,
            upstream.resort,
            suspicion && upstream.suspect,
            upstream.distance,
            upstream.connections,
            upstream.turn,
            Reverse(upstream.rank),
        )
    });
    facts.into_iter().map(|upstream| upstream.id).collect()
}

/// Suspicion is soft evidence: it moves new connections only while it concerns at most half of what is Up.
fn suspicion_counts(facts: &[Facts]) -> bool {
    let up = facts.iter().filter(|upstream| upstream.state == State::Up);
    let (suspects, all) = up.fold((0, 0), |(suspects, all), upstream| {
        (suspects + usize::from(upstream.suspect), all + 1)
    });
    suspects * 2 <= all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reason() -> impl Strategy<Value = Reason> {
        prop::sample::select(vec![
            Reason::Answering,
            Reason::NotReady,
            Reason::Refused,
            Reason::Silent,
        ])
    }

    fn distance() -> impl Strategy<Value = Distance> {
        prop::sample::select(vec![Distance::Local, Distance::SameZone, Distance::Elsewhere])
    }

    fn some_facts() -> impl Strategy<Value = Facts> {
        let health = (prop::sample::select(State::ALL.to_vec()), reason());
        let doubts = (any::<bool>(), any::<bool>(), any::<bool>());
        let load = (0..3_usize, 0..3_u64, any::<u64>());
        (health, doubts, distance(), load).prop_map(|(health, doubts, distance, load)| Facts {
            id: UpstreamId(0),
            proven: doubts.0,
            state: health.0,
            reason: health.1,
            resort: u8::from(doubts.1),
            suspect: doubts.2,
            distance,
            connections: load.0,
            turn: load.1,
            rank: load.2,
        })
    }

    fn upstreams() -> impl Strategy<Value = Vec<Facts>> {
        prop::collection::vec(some_facts(), 1..10).prop_map(|facts| {
            let numbered = (0..).zip(facts);
            let numbered = numbered.map(|(id, facts)| Facts {
                id: UpstreamId(id),
                ..facts
            });
            numbered.collect()
        })
    }

    /// How well each is in the order of their turn, as the words on [`order`] say it.
    fn ordered<K>(all: &[Facts], key: impl Fn(&Facts) -> K) -> Vec<K> {
        let of = |id| all.iter().find(|facts| facts.id == id).unwrap();
        order(all.to_vec()).into_iter().map(|id| key(of(id))).collect()
    }

    proptest! {
        #[test]
        fn nobody_is_left_out_or_named_twice(all in upstreams()) {
            let mut ids = order(all.clone());
            ids.sort();
            prop_assert_eq!(ids, all.iter().map(|facts| facts.id).collect::<Vec<_>>());
        }

        #[test]
        fn whoever_is_well_beats_whoever_is_not_however_near_that_is(all in upstreams()) {
            let suspicion = suspicion_counts(&all);
            let wellness = ordered(&all, |facts| {
                let reason = (facts.state != State::Up).then_some(facts.reason);
                let suspect = suspicion && facts.suspect;
                (!facts.proven, facts.state, reason, facts.resort, suspect)
            });
            prop_assert!(wellness.is_sorted(), "{wellness:?}");
        }

        #[test]
        fn among_equally_well_ones_the_nearer_comes_first_whatever_its_load(all in upstreams()) {
            let equals: Vec<_> = all
                .into_iter()
                .map(|facts| Facts { proven: true, state: State::Up, resort: 0, suspect: false, ..facts })
                .collect();
            let distances = ordered(&equals, |facts| facts.distance);
            prop_assert!(distances.is_sorted(), "{distances:?}");
        }

        #[test]
        fn where_all_are_equally_far_distance_changes_nothing(all in upstreams(), distance in distance()) {
            let at = |distance| all.iter().map(|facts| Facts { distance, ..facts.clone() }).collect();
            prop_assert_eq!(order(at(distance)), order(at(Distance::Elsewhere)));
        }
    }
}
