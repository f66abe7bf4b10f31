//! Whether a node can do without its standby.

use std::fmt;

use crate::{
    cause,
    handover::{
        inquiry::{Error, Processes},
        rank::Class,
    },
};

/// Why a standby's manifest must stay: it may be what the node's only proxy comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The standby is the one that serves.
    StandbyServes,
    /// The proxy that serves is about to end.
    Leaves,
    /// What serves is of a class that a later release knows.
    UnknownClass,
    /// Nobody says who serves.
    Untold(String),
}

/// What the process that serves says against the removal.
pub fn obstacle(answer: Result<&Processes, &Error>) -> Option<Obstacle> {
    match answer.map(|processes| &processes.holder) {
        Err(error) => Some(Obstacle::Untold(cause::chain(error))),
        Ok(holder) if holder.is_leaving => Some(Obstacle::Leaves),
        Ok(holder) => match holder.rank.class {
            Class::DaemonSet | Class::Unit => None,
            Class::Static => Some(Obstacle::StandbyServes),
            Class::Unknown => Some(Obstacle::UnknownClass),
        },
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StandbyServes => f.write_str("the standby is the proxy that serves on this node"),
            Self::Leaves => f.write_str("the proxy that serves on this node is about to end"),
            Self::UnknownClass => f.write_str(
                "the proxy that serves on this node is of a class that this release does not know",
            ),
            Self::Untold(cause) => write!(f, "no proxy says that it serves on this node: {cause}"),
        }
    }
}

impl Obstacle {
    /// Where to look if it stays so.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::StandbyServes | Self::Leaves => {
                "look at the pod of the pool's DaemonSet on this node: it must run and be ready"
            }
            Self::UnknownClass => "use the release of that proxy",
            Self::Untold(_) => {
                "look at the pod of the pool's DaemonSet on this node, and whether --handover-dir is the directory of its hand-over"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn served_by(class: &str, is_leaving: bool) -> Option<Obstacle> {
        let holder = json!({"id": "a", "rank": {"class": class}, "isLeaving": is_leaving});
        let peer = json!({"id": "b", "rank": {"class": "DaemonSet"}});
        let processes = json!({"holder": holder, "peers": [peer]});
        obstacle(Ok(&serde_json::from_value(processes).unwrap()))
    }

    #[test]
    fn a_node_can_do_without_its_standby_while_another_proxy_serves_and_stays() {
        assert_eq!(served_by("DaemonSet", false), None);
        assert_eq!(served_by("Unit", false), None);
    }

    #[test]
    fn a_standby_that_serves_stays() {
        assert_eq!(served_by("Static", false), Some(Obstacle::StandbyServes));
    }

    #[test]
    fn a_standby_beside_a_proxy_of_an_unknown_class_stays() {
        assert_eq!(served_by("Later", false), Some(Obstacle::UnknownClass));
    }

    #[test]
    fn a_standby_of_a_proxy_that_ends_stays() {
        assert_eq!(served_by("DaemonSet", true), Some(Obstacle::Leaves));
    }

    #[test]
    fn a_standby_of_a_node_where_nobody_answers_stays() {
        let obstacle = obstacle(Err(&Error::NoHolder));
        assert_eq!(
            obstacle,
            Some(Obstacle::Untold("no process serves there".to_owned()))
        );
    }
}
