//! The order in which paths are tried for a new connection.

use std::{cmp::Reverse, net::SocketAddr};

use super::{
    Candidate,
    health::{Reason, State},
    path::{MemberId, Path, PathId},
    place::Distance,
};

/// What the choice knows of one path.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Which one.
    pub(super) id: PathId,
    /// Whose.
    pub(super) member: MemberId,
    /// Where it leads.
    pub(super) address: SocketAddr,
    /// Its place in the member's list of addresses.
    pub(super) preference: usize,
    /// Whether this node ever had a verified answer from it.
    pub(super) proven: bool,
    /// What it may get.
    pub(super) state: State,
    /// Why.
    pub(super) reason: Reason,
    /// Its place in the last resort; 0 for a path that is to be used.
    pub(super) resort: u8,
    /// Whether it left a client waiting since its last good answer.
    pub(super) suspect: bool,
    /// How far its member is, as far as the pool's owner cares.
    pub(super) distance: Distance,
    /// Connections it has now.
    pub(super) connections: usize,
    /// When it got its latest connection, counted in connections; 0 if never.
    pub(super) turn: u64,
    /// The member's rendezvous rank on this node.
    pub(super) rank: u64,
}

/// Which paths come first, whatever their health. The better group is the lesser one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Active and proven; while none of these answers, the last resort.
    First,
    /// The other one of the two.
    Second,
    /// Active, and never seen to be an apiserver of this cluster.
    Unproven,
}

/// How well a path is, the best first, without regard to suspicion.
pub(super) type Wellness = (Group, State, Reason, u8);

/// How well a member is, by its best path, and what it has to do.
struct Member {
    id: MemberId,
    best: (Wellness, bool, usize),
    connections: usize,
    turn: u64,
}

impl Facts {
    /// What there is to know of a path.
    pub(super) fn of(id: PathId, path: &Path) -> Self {
        Self {
            id,
            member: path.member,
            address: path.key.address,
            preference: path.preference,
            proven: path.proven,
            state: path.health.state(),
            reason: path.health.reason(),
            resort: path.standing.resort(),
            suspect: path.suspect,
            distance: path.distance,
            connections: path.connections,
            turn: path.turn,
            rank: path.rank,
        }
    }

    /// How a path compares with the other paths of its member: the least first. The place in the member's list decides
    /// last, so that two paths that are equally well do not take turns.
    pub(super) fn fitness(&self, resorts_first: bool) -> (Wellness, bool, usize) {
        (self.wellness(resorts_first), self.suspect, self.preference)
    }

    fn wellness(&self, resorts_first: bool) -> Wellness {
        let group = match (self.resort > 0, self.proven) {
            (true, _) if resorts_first => Group::First,
            (true, _) => Group::Second,
            (false, false) => Group::Unproven,
            (false, true) if resorts_first => Group::Second,
            (false, true) => Group::First,
        };
        let reason = match (self.state, self.reason) {
            // It may be not ready, or cut off from its etcd.
            (State::Up, Reason::Withheld) => Reason::Withheld,
            (State::Up, _) => Reason::Answering,
            (State::Unready | State::Down, reason) => reason,
        };
        (group, self.state, reason, self.resort)
    }
}

/// All of them, the best first: proven before unproven, Up before Unready before Down, those that tell their readiness
/// before those that withhold it, then in the order of the last resort, trusted before suspect. Among those that are equally well each member comes once, by its best path, before a
/// second path of any. Then the nearer member before the farther, then least connections, then whose turn it is (short
/// connections leave no trace in the count), in rendezvous order at first: these count for a member, over all its paths.
/// None is left out: the last resort is still a resort. `resorts_first` says that it is needed. With `takes_turns` neither
/// distance nor connections count, so that it is the turn of the member that got its latest connection the longest ago.
pub(super) fn order(facts: &[Facts], resorts_first: bool, takes_turns: bool) -> Vec<Candidate> {
    let members = members(facts, resorts_first);
    let suspicion = suspicion_counts(&members);
    let keyed = facts.iter().filter_map(|path| {
        let member = members.iter().find(|member| member.id == path.member)?;
        let fitness = path.fitness(resorts_first);
        let well = (fitness.0, suspicion && path.suspect, fitness != member.best);
        let load = if takes_turns {
            (Distance::default(), 0)
        } else {
            (path.distance, member.connections)
        };
        let turn = (
            load,
            member.turn,
            Reverse(path.rank),
            // Two members of one rank stay apart, and the paths of one member in the order of its list.
            path.member,
            path.preference,
        );
        let candidate = Candidate {
            id: path.id,
            address: path.address,
            group: fitness.0.0,
        };
        Some(((well, turn), candidate))
    });
    let mut keyed: Vec<_> = keyed.collect();
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, candidate)| candidate).collect()
}

fn members(facts: &[Facts], resorts_first: bool) -> Vec<Member> {
    let mut members: Vec<Member> = Vec::with_capacity(facts.len());
    for path in facts {
        let best = path.fitness(resorts_first);
        match members.iter_mut().find(|member| member.id == path.member) {
            Some(member) => {
                member.best = member.best.min(best);
                member.connections += path.connections;
                member.turn = member.turn.max(path.turn);
            }
            None => members.push(Member {
                id: path.member,
                best,
                connections: path.connections,
                turn: path.turn,
            }),
        }
    }
    members
}

/// Suspicion is soft evidence: it moves new connections only while it concerns at most half of the members that are Up.
fn suspicion_counts(members: &[Member]) -> bool {
    let up = members.iter().filter(|member| member.best.0.1 == State::Up);
    let (suspects, all) = up.fold((0, 0), |(suspects, all), member| {
        (suspects + usize::from(member.best.1), all + 1)
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
            id: PathId(0),
            member: MemberId(0),
            address: SocketAddr::from(([10, 0, 0, 1], 6443)),
            preference: 0,
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

    /// Up to nine members with one path each.
    fn members_with_one_path() -> impl Strategy<Value = Vec<Facts>> {
        prop::collection::vec(some_facts(), 1..10).prop_map(|facts| {
            let numbered = (0..).zip(facts);
            let numbered = numbered.map(|(id, facts)| Facts {
                id: PathId(id),
                member: MemberId(id),
                ..facts
            });
            numbered.collect()
        })
    }

    /// Up to nine paths of three members, each member at one distance.
    fn members_with_several_paths() -> impl Strategy<Value = Vec<Facts>> {
        prop::collection::vec((some_facts(), 0..3_u64), 1..10).prop_map(|facts| {
            let numbered = (0..).zip(facts).enumerate();
            let numbered = numbered.map(|(preference, (id, (facts, member)))| Facts {
                id: PathId(id),
                member: MemberId(member),
                preference,
                distance: Distance::Elsewhere,
                rank: member,
                ..facts
            });
            numbered.collect()
        })
    }

    fn ordered(all: &[Facts], resorts_first: bool) -> Vec<&Facts> {
        let of = |candidate: Candidate| all.iter().find(|facts| facts.id == candidate.id).unwrap();
        order(all, resorts_first, false).into_iter().map(of).collect()
    }

    proptest! {
        #[test]
        fn none_is_left_out_or_named_twice(all in members_with_several_paths(), resorts_first: bool) {
            let mut ids: Vec<_> = ordered(&all, resorts_first).iter().map(|facts| facts.id).collect();
            ids.sort();
            prop_assert_eq!(ids, all.iter().map(|facts| facts.id).collect::<Vec<_>>());
        }

        #[test]
        fn a_path_that_is_well_beats_one_that_is_not_however_near_that_is(
            all in members_with_one_path(),
            resorts_first: bool,
        ) {
            let suspicion = suspicion_counts(&members(&all, resorts_first));
            let wellness: Vec<_> = ordered(&all, resorts_first)
                .iter()
                .map(|facts| (facts.wellness(resorts_first), suspicion && facts.suspect))
                .collect();
            prop_assert!(wellness.is_sorted(), "{wellness:?}");
        }

        #[test]
        fn among_equally_well_ones_the_nearer_comes_first_whatever_its_load(all in members_with_one_path()) {
            let equals: Vec<_> = all
                .into_iter()
                .map(|facts| Facts { proven: true, state: State::Up, resort: 0, suspect: false, ..facts })
                .collect();
            let distances: Vec<_> = ordered(&equals, false).iter().map(|facts| facts.distance).collect();
            prop_assert!(distances.is_sorted(), "{distances:?}");
        }

        #[test]
        fn where_all_are_equally_far_distance_changes_nothing(
            all in members_with_one_path(),
            distance in distance(),
        ) {
            let at = |distance| -> Vec<_> {
                all.iter().map(|facts| Facts { distance, ..facts.clone() }).collect()
            };
            prop_assert_eq!(order(&at(distance), false, false), order(&at(Distance::Elsewhere), false, false));
        }

        #[test]
        fn each_member_comes_once_before_a_second_path_that_is_no_better(all in members_with_several_paths()) {
            let equals: Vec<_> = all
                .into_iter()
                .map(|facts| Facts { proven: true, state: State::Up, resort: 0, suspect: false, ..facts })
                .collect();
            let order: Vec<_> = ordered(&equals, false).iter().map(|facts| facts.member).collect();
            let mut members = order.clone();
            members.sort();
            members.dedup();
            let mut first = order[..members.len()].to_vec();
            first.sort();
            prop_assert_eq!(first, members, "{:?}", order);
        }

        #[test]
        fn the_paths_of_a_member_come_the_best_first(all in members_with_several_paths()) {
            let order = ordered(&all, false);
            for member in (0..3).map(MemberId) {
                let paths = order.iter().filter(|facts| facts.member == member);
                let fitness: Vec<_> = paths.map(|facts| facts.wellness(false)).collect();
                prop_assert!(fitness.is_sorted(), "{fitness:?}");
            }
        }
    }

    /// A path that is well.
    fn path(id: u64, member: u64, connections: usize) -> Facts {
        Facts {
            id: PathId(id),
            member: MemberId(member),
            address: SocketAddr::from(([10, 0, 0, 1], 6443)),
            preference: usize::try_from(id).unwrap(),
            proven: true,
            state: State::Up,
            reason: Reason::Answering,
            resort: 0,
            suspect: false,
            distance: Distance::Elsewhere,
            connections,
            turn: 0,
            rank: 0,
        }
    }

    #[test]
    fn members_that_take_turns_do_so_whatever_connections_they_have_and_wherever_they_are() {
        let mut all = [path(0, 0, 9), path(1, 1, 0), path(2, 2, 4)];
        all[1].distance = Distance::Local;
        let mut served = Vec::new();
        for turn in 1..=9 {
            let first = order(&all, false, true)[0].id;
            let index = usize::try_from(first.0).unwrap();
            all[index].turn = turn;
            served.push(index);
        }
        for three in served.chunks(3) {
            let mut three = three.to_vec();
            three.sort_unstable();
            assert_eq!(three, [0, 1, 2], "{served:?}");
        }
        // One that is not well is left out until it is.
        all[0].state = State::Unready;
        assert_ne!(order(&all, false, true)[0].id, PathId(0));
    }

    #[test]
    fn connections_and_turns_count_for_a_member_over_all_its_paths() {
        let all = [path(0, 0, 0), path(1, 0, 3), path(2, 1, 2)];
        let ids: Vec<_> = ordered(&all, false).iter().map(|facts| facts.id.0).collect();
        assert_eq!(ids, [2, 0, 1]);
    }
}
