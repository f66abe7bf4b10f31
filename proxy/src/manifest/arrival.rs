//! Whether kubelet has started a standby from its manifest.

use crate::{
    cause,
    handover::inquiry::{Error, Processes},
};

/// How far a standby is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It could serve at once, or serves already.
    Warm,
    /// It runs, and has not learned what the process that serves knows.
    Cold,
    /// Kubelet has not started it yet.
    Absent,
    /// Nobody says whether it runs.
    Untold(String),
}

impl Arrival {
    /// What the process that serves says about the standby with this template.
    pub fn of(answer: Result<&Processes, &Error>, template: &str) -> Self {
        match answer.map(|processes| processes.standby(template)) {
            Ok(Some(standby)) if standby.is_warm => Self::Warm,
            Ok(Some(_)) => Self::Cold,
            Ok(None) => Self::Absent,
            Err(error) => Self::Untold(cause::chain(error)),
        }
    }

    /// What is missing until it is warm.
    pub fn unless_warm(self) -> Option<Self> {
        (self != Self::Warm).then_some(self)
    }

    /// What is so, in a sentence without a subject.
    pub fn words(&self) -> String {
        match self {
            Self::Warm => "is warm".to_owned(),
            Self::Cold => "runs and has no document yet".to_owned(),
            Self::Absent => "has not been started by kubelet".to_owned(),
            Self::Untold(cause) => format!("may run or not: {cause}"),
        }
    }

    /// Where to look if it stays so.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Warm => "nothing is to be done",
            Self::Cold => "look at the log of its container (crictl logs)",
            Self::Absent => {
                "look whether this directory is the staticPodPath of kubelet's configuration, whether the image is on the node or can be pulled without a secret of the cluster, and into kubelet's log"
            }
            Self::Untold(_) => {
                "look at the pods of the proxy on this node, and whether --handover-dir is theirs"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn processes(class: &str, is_warm: bool) -> Processes {
        let peer = |class: &str, template: &str, is_warm| json!({"id": "a", "rank": {"class": class}, "template": template, "isWarm": is_warm});
        let peers = [peer(class, "new", is_warm), peer("Static", "old", true)];
        serde_json::from_value(json!({"holder": peer("DaemonSet", "x", true), "peers": peers})).unwrap()
    }

    #[test]
    fn a_standby_has_arrived_once_it_is_warm() {
        let of = |processes: &Processes| Arrival::of(Ok(processes), "new");
        assert_eq!(of(&processes("Static", true)), Arrival::Warm);
        assert_eq!(of(&processes("Static", false)), Arrival::Cold);
        assert_eq!(of(&processes("DaemonSet", true)), Arrival::Absent);
    }

    /// Kubelet starts it anew when it has ended, 10 s later or more.
    #[test]
    fn a_standby_that_ends_has_not_arrived() {
        let mut processes = processes("Static", true);
        processes.peers[0].is_leaving = true;
        assert_eq!(Arrival::of(Ok(&processes), "new"), Arrival::Absent);
    }

    #[test]
    fn a_standby_that_serves_has_arrived() {
        let serving = Processes {
            holder: processes("Static", true).peers.remove(0),
            peers: Vec::new(),
        };
        assert_eq!(Arrival::of(Ok(&serving), "new"), Arrival::Warm);
    }

    #[test]
    fn nobody_is_taken_for_arrived_while_nobody_serves() {
        let arrival = Arrival::of(Err(&Error::NoHolder), "new");
        assert_eq!(arrival, Arrival::Untold("no process serves there".to_owned()));
    }
}
