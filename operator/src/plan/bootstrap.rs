//! Decides what the writer of the standbys' manifests does on the nodes. Pure: what it does now, and how the proxies are, are
//! arguments.
//!
//! The writer is a DaemonSet whose pods write a manifest into kubelet's directory of static pods, or remove it. A node must
//! never lose its last way to the API by it. So a standby gets a new template only once the proxies of all nodes have run
//! with it for a while, and its removal begins only when every node has a proxy of the DaemonSet. Each node checks that once
//! more before it removes its own, because a removal in a large cluster takes hours. The deletion of a pool removes nothing.

mod soak;

use std::time::Duration;

use trivet_crds::pool::{BootstrapPolicy, NodeBootstrap, ProxyTemplate};

pub use self::soak::Soak;

/// What the writer's pods do on their nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// They write the manifest.
    Write,
    /// They remove it.
    Remove,
    /// There are none: the manifests are removed. The operator deletes no DaemonSet of a pool that exists, so this one is
    /// without nodes.
    Rest,
}

/// What the writer should do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its pods' task.
    pub task: Task,
    /// Kubelet's directory of static pods.
    pub directory: String,
}

/// The writer in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// What it does, and where.
    pub target: Target,
    /// The hash of the proxies' template that it was rendered with.
    pub template: String,
    /// Whether its pods have done their task on every node.
    pub is_done: bool,
}

/// The proxies of the DaemonSet, as the writer depends on them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Availability {
    /// The hash of the template in place; empty if there is none.
    pub template: String,
    /// Whether every Ready node has an available proxy of it.
    pub is_complete: bool,
    /// The nodes, Ready or not, without a ready proxy of any template; `None` while that is not known.
    pub without: Option<Vec<String>>,
}

/// What the decision depends on besides the pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootstrapFacts {
    /// Whether the installation of the operator allows it to place static pods on nodes.
    pub is_allowed: bool,
    /// Whether nodes pull the proxies' image with a secret, for pools that name none.
    pub has_pull_secrets: bool,
    /// How long the proxies must be available with a template before the standbys get it.
    pub soak: Duration,
    /// The writer in place.
    pub writer: Option<Writer>,
    /// The proxies.
    pub proxies: Availability,
}

/// How far the bootstrap of a pool's nodes is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// No node has a manifest, and none is wanted.
    #[default]
    Off,
    /// Manifests are wanted or in place, and the operator is not allowed to change them.
    Forbidden,
    /// The first manifests wait until every Ready node has an available proxy.
    AwaitsProxies,
    /// The standbys keep their template until the proxies' rollout is complete.
    AwaitsRollout,
    /// They keep it until the proxies have been available with the new one for long enough.
    Soaks,
    /// The manifests are written.
    Writes,
    /// The manifests stay until these nodes have another way to the API; empty if it is not known which.
    AwaitsWay(Vec<String>),
    /// The manifests are removed.
    Removes,
}

impl Phase {
    /// Whether the pool's nodes should have standbys now.
    pub fn expects_standbys(&self) -> bool {
        match self {
            Self::AwaitsRollout | Self::Soaks | Self::Writes => true,
            Self::Off | Self::Forbidden | Self::AwaitsProxies | Self::AwaitsWay(_) | Self::Removes => false,
        }
    }
}

/// What one pass decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// What the writer should do, with the template of the proxies that the spec asks for; `None` leaves it as it is.
    pub target: Option<Target>,
    /// How far the bootstrap is.
    pub phase: Phase,
    /// When something becomes due by itself.
    pub next_look: Option<Duration>,
}

impl Decision {
    fn keep(phase: Phase) -> Self {
        Self {
            phase,
            ..Self::default()
        }
    }

    fn put(task: Task, directory: &str, phase: Phase) -> Self {
        Self {
            target: Some(Target {
                task,
                directory: directory.to_owned(),
            }),
            phase,
            next_look: None,
        }
    }
}

/// Decides what the writer does. `template` is the hash of the proxies' template that the spec asks for.
pub fn decide(wanted: &NodeBootstrap, template: &str, facts: &BootstrapFacts, soak: &Soak) -> Decision {
    let decision = if_allowed(wanted, template, facts, soak);
    if facts.is_allowed || (decision.phase == Phase::Off && decision.target.is_none()) {
        decision
    } else {
        Decision::keep(Phase::Forbidden)
    }
}

fn if_allowed(wanted: &NodeBootstrap, template: &str, facts: &BootstrapFacts, soak: &Soak) -> Decision {
    let directory = match wanted.policy {
        BootstrapPolicy::None => None,
        BootstrapPolicy::StaticPod => Some(wanted.manifest_path.as_str()),
    };
    let is_complete = facts.proxies.is_complete && facts.proxies.template == template;
    let Some(writer) = &facts.writer else {
        return first(directory, is_complete);
    };
    let place = &writer.target.directory;
    let is_place_wanted = directory == Some(place);
    match writer.target.task {
        Task::Rest => first(directory, is_complete),
        Task::Write if is_place_wanted => next(writer, template, is_complete, facts.soak, soak),
        Task::Write => removal(place, is_complete, &facts.proxies),
        // Some nodes may be without a manifest, and those that still have one may need it: each node keeps its earlier manifest
        // until the standby of the new one is warm. So this waits for no proxies.
        Task::Remove if is_place_wanted && !writer.is_done => {
            Decision::put(Task::Write, place, Phase::Writes)
        }
        Task::Remove if writer.is_done && directory.is_some() => first(directory, is_complete),
        Task::Remove if writer.is_done => Decision::put(Task::Rest, place, Phase::Off),
        Task::Remove if is_complete => Decision::put(Task::Remove, place, Phase::Removes),
        Task::Remove => Decision::keep(Phase::Removes),
    }
}

/// While no node has a manifest there is nothing that a new template could break.
fn first(directory: Option<&str>, is_complete: bool) -> Decision {
    match directory {
        None => Decision::default(),
        Some(directory) if is_complete => Decision::put(Task::Write, directory, Phase::Writes),
        Some(_) => Decision::keep(Phase::AwaitsProxies),
    }
}

/// The standbys run with an earlier template until the proxies have shown that the new one works.
fn next(writer: &Writer, template: &str, is_complete: bool, needed: Duration, soak: &Soak) -> Decision {
    let left = needed.saturating_sub(soak.passed(template));
    if writer.template == template || (is_complete && left.is_zero()) {
        Decision::put(Task::Write, &writer.target.directory, Phase::Writes)
    } else if is_complete {
        Decision {
            next_look: Some(left),
            ..Decision::keep(Phase::Soaks)
        }
    } else {
        Decision::keep(Phase::AwaitsRollout)
    }
}

/// A standby may be the only proxy of its node, also of one that is not Ready now.
fn removal(directory: &str, is_complete: bool, proxies: &Availability) -> Decision {
    match &proxies.without {
        Some(without) if without.is_empty() && is_complete => {
            Decision::put(Task::Remove, directory, Phase::Removes)
        }
        without => Decision::keep(Phase::AwaitsWay(without.clone().unwrap_or_default())),
    }
}

/// What the owner of a pool with standbys should know about pull secrets.
pub fn pull_secrets_note(
    wanted: &NodeBootstrap,
    proxy: &ProxyTemplate,
    facts: &BootstrapFacts,
) -> Option<String> {
    let own = proxy
        .image_pull_secrets
        .as_ref()
        .map(|secrets| !secrets.is_empty());
    let has_secrets = own.unwrap_or(facts.has_pull_secrets);
    (wanted.policy == BootstrapPolicy::StaticPod && has_secrets).then(|| {
        "spec.nodeBootstrap: the nodes pull the proxies' image with a secret, which a static pod cannot name; from \
         Kubernetes 1.35 on kubelet does not start a standby after a reboot with an image that was pulled so: preload the \
         image, or give kubelets a credential provider"
            .to_owned()
    })
}

#[cfg(test)]
mod tests;
