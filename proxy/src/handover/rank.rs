//! Rank of a process among those of its node and pool: who may take the listeners of one that serves well.

use serde::{Deserialize, Serialize};

/// How a process was started. Later means higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// The static pod: the standby that kubelet starts without an API.
    Static,
    /// A systemd unit.
    Unit,
    /// A pod of the DaemonSet.
    DaemonSet,
    /// A class that only a later release knows. Nothing takes by rank from it, and it takes nothing by rank: two releases
    /// that order it differently would take from each other for ever.
    #[serde(other)]
    Unknown,
}

/// The rank of a process. The fields are compared in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rank {
    /// How it was started.
    pub class: Class,
    /// Whether its template is the one that the document in force names. It stands before the generation because a
    /// roll-back raises the generation of the DaemonSet but not that of a pod that is still there, and because a DaemonSet
    /// that was created anew starts at generation 1 again.
    #[serde(default)]
    pub matches_document: bool,
    /// The DaemonSet's `pod-template-generation` of its pod; 0 where there is none.
    #[serde(default)]
    pub generation: u64,
}

impl Rank {
    /// Whether a process of this rank may take from one that serves with the rank `holder`. Equals never take from each
    /// other.
    pub fn may_take(self, holder: Self) -> bool {
        self.class != Class::Unknown && holder.class != Class::Unknown && self > holder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(class: Class, matches_document: bool, generation: u64) -> Rank {
        Rank {
            class,
            matches_document,
            generation,
        }
    }

    #[test]
    fn class_counts_before_the_template_and_the_template_before_the_generation() {
        let rising = [
            rank(Class::Static, false, 9),
            rank(Class::Static, true, 0),
            rank(Class::Unit, false, 0),
            rank(Class::DaemonSet, false, 1),
            rank(Class::DaemonSet, false, 7),
            rank(Class::DaemonSet, true, 1),
            rank(Class::DaemonSet, true, 2),
        ];
        for (index, own) in rising.iter().enumerate() {
            for (other, holder) in rising.iter().enumerate() {
                assert_eq!(own.may_take(*holder), index > other, "{own:?} {holder:?}");
            }
        }
    }

    #[test]
    fn a_roll_back_lets_the_pod_of_the_former_template_take_back() {
        let former = rank(Class::DaemonSet, true, 1);
        let rolled_back = rank(Class::DaemonSet, false, 2);
        assert!(former.may_take(rolled_back));
        assert!(!rolled_back.may_take(former));
    }

    #[test]
    fn a_class_of_a_later_release_takes_from_nothing_and_gives_to_nothing_by_rank() {
        let unknown: Rank = serde_json::from_str(r#"{"class": "Sidecar", "generation": 3}"#).unwrap();
        assert_eq!(unknown, rank(Class::Unknown, false, 3));
        for class in [Class::Unknown, Class::Static, Class::DaemonSet] {
            assert!(!unknown.may_take(rank(class, false, 0)));
            assert!(!rank(class, true, 9).may_take(unknown));
        }
    }
}
