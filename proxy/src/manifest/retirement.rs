//! Whether a node can do without its standby, and what of a retired pool is still there.

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

/// Why the node of a retired pool is not without proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remains {
    /// A static pod is there.
    Standby,
    /// A proxy that is no static pod serves.
    Proxy(Class),
    /// Somebody serves, and does not say who is there.
    Untold(String),
}

/// Whether a standby is there, by what the process that serves says. Where nobody serves there is none.
pub fn standby_remains(answer: Result<&Processes, &Error>) -> Option<Remains> {
    match answer {
        Err(Error::NoHolder) => None,
        Err(error) => Some(Remains::Untold(cause::chain(error))),
        Ok(processes) => {
            let mut all = std::iter::once(&processes.holder).chain(&processes.peers);
            let has_standby = all.any(|process| process.rank.class == Class::Static);
            has_standby.then_some(Remains::Standby)
        }
    }
}

/// Whether any proxy is there.
pub fn proxy_remains(answer: Result<&Processes, &Error>) -> Option<Remains> {
    match answer {
        Err(Error::NoHolder) => None,
        Err(error) => Some(Remains::Untold(cause::chain(error))),
        Ok(processes) => Some(match processes.holder.rank.class {
            Class::Static => Remains::Standby,
            class @ (Class::DaemonSet | Class::Unit | Class::Unknown) => Remains::Proxy(class),
        }),
    }
}

impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standby => f.write_str(
                "a standby runs: kubelet has not ended it yet, or its manifest is not one that this pool has written",
            ),
            Self::Proxy(Class::Unit) => f.write_str(
                "a proxy serves that is no pod: a unit of systemd, or a program that was started by hand",
            ),
            Self::Proxy(_) => f.write_str("a proxy serves, or ends"),
            Self::Untold(cause) => write!(f, "nobody says whether a proxy is there: {cause}"),
        }
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

    fn processes(holder: &str, peers: &[&str]) -> Processes {
        let process = |class: &&str| json!({"id": "a", "rank": {"class": class}});
        let peers: Vec<_> = peers.iter().map(process).collect();
        serde_json::from_value(json!({"holder": process(&holder), "peers": peers})).unwrap()
    }

    #[test]
    fn a_standby_remains_until_nobody_knows_of_one() {
        for (holder, peers, remains) in [
            ("DaemonSet", &["Static"][..], Some(Remains::Standby)),
            ("Static", &[], Some(Remains::Standby)),
            ("DaemonSet", &["DaemonSet"], None),
        ] {
            assert_eq!(
                standby_remains(Ok(&processes(holder, peers))),
                remains,
                "{holder}"
            );
        }
        assert_eq!(standby_remains(Err(&Error::NoHolder)), None);
        assert!(matches!(
            standby_remains(Err(&Error::Silent)),
            Some(Remains::Untold(_))
        ));
    }

    #[test]
    fn a_proxy_remains_while_anybody_serves_or_hangs() {
        let remains = |holder| proxy_remains(Ok(&processes(holder, &[])));
        assert_eq!(remains("DaemonSet"), Some(Remains::Proxy(Class::DaemonSet)));
        assert_eq!(remains("Unit"), Some(Remains::Proxy(Class::Unit)));
        assert_eq!(remains("Static"), Some(Remains::Standby));
        assert!(matches!(
            proxy_remains(Err(&Error::Silent)),
            Some(Remains::Untold(_))
        ));
        assert_eq!(proxy_remains(Err(&Error::NoHolder)), None);
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
