//! The ways in which a scenario loses a master, and the time within which Trivet must notice.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use trivet_testbed::{Cluster, Component, Fault as WireFault};

/// A fault of one master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The apiserver dies; the kernel refuses connections.
    Kill,
    /// The apiserver hangs: the kernel acknowledges packets, but no answer comes.
    Stop,
    /// Its packets are lost both ways, as after a power cut.
    Blackhole,
}

impl Fault {
    /// The most common faults: those of the demo and of the long outages.
    pub const USUAL: [Self; 3] = [Self::Kill, Self::Stop, Self::Blackhole];

    /// The detection time: connections that start later must not fail.
    pub fn detection(self) -> Duration {
        Duration::from_millis(match self {
            Self::Kill => 100,
            Self::Blackhole => 2800,
            Self::Stop => 2900,
        })
    }

    /// What happens, for people.
    pub fn story(self) -> &'static str {
        match self {
            Self::Kill => {
                "its apiserver dies (SIGKILL); the kernel closes its connections and refuses new ones"
            }
            Self::Stop => {
                "its apiserver hangs (SIGSTOP); the kernel goes on to acknowledge, so TCP looks healthy"
            }
            Self::Blackhole => "its packets are lost both ways, as after a power cut; no peer is told",
        }
    }

    /// Makes it happen to `master`.
    pub fn inject(self, cluster: &Cluster, master: &str) -> Result<()> {
        let apiserver = Component::KubeApiserver.program();
        match self {
            Self::Kill => cluster.kill(master, apiserver),
            Self::Stop => cluster.stop(master, apiserver),
            Self::Blackhole => cluster.inject(master, WireFault::Blackhole),
        }
    }

    /// Takes it back.
    pub fn undo(self, cluster: &Cluster, master: &str) -> Result<()> {
        match self {
            // Continues an apiserver that is stopped, and starts one that is dead.
            Self::Kill | Self::Stop => cluster.start_component(master, Component::KubeApiserver),
            Self::Blackhole => cluster.heal(master),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kill => "killed",
            Self::Stop => "stopped",
            Self::Blackhole => "black-holed",
        })
    }
}
