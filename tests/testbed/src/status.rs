//! The current status of a testbed, for people and for scripts.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use serde::Serialize;

use crate::address::{HostName, Role};
use crate::cgroup::Layout;
use crate::cluster::Cluster;
use crate::component::Component;
use crate::host::Host;
use crate::nodes::{self, Node};
use crate::{fault, output, pki, static_pod};

/// The whole testbed at one moment.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// As `v1.34.4`.
    pub kubernetes_version: String,
    /// Memory that the hosts hold, in bytes, without what the kernel could drop at once.
    pub memory_bytes: Option<u64>,
    /// Every host, masters first.
    pub hosts: Vec<HostStatus>,
}

/// One host at one moment.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostStatus {
    /// Its name, which its Node has too.
    pub name: HostName,
    /// Master or worker.
    pub role: Role,
    /// The address that its Node reports.
    pub ipv4: Ipv4Addr,
    /// Its other address.
    pub ipv6: Ipv6Addr,
    /// Whether it is booted.
    pub up: bool,
    /// What the cluster says about its Node.
    pub node: NodeStatus,
    /// The server that its kubelet uses.
    pub server: Option<String>,
    /// The faults on its wire.
    pub faults: Vec<String>,
    /// What it should run, and whether it does.
    pub components: Vec<ComponentStatus>,
}

/// One component at one moment.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentStatus {
    /// The program's name.
    pub name: &'static str,
    /// Whether it runs.
    pub state: RunState,
    /// Its pid as the machine sees it.
    pub pid: Option<i32>,
    /// Whether kubelet runs it, as a static pod.
    pub is_static_pod: bool,
}

/// Whether a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// It runs.
    Running,
    /// SIGSTOP holds it.
    Stopped,
    /// There is no such process.
    Dead,
}

/// What the cluster says about a Node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum NodeStatus {
    /// Its condition Ready is True.
    Ready,
    /// Its condition Ready is not True.
    NotReady,
    /// There is no such Node.
    Absent,
    /// No apiserver answers.
    Unknown,
}

impl Cluster {
    /// Looks at every host, and asks the cluster about their Nodes.
    pub fn status(&self) -> Result<Status> {
        let nodes = nodes::list(self).ok();
        let hosts = self.hosts();
        Ok(Status {
            kubernetes_version: self.state.kubernetes_version.clone(),
            memory_bytes: Layout::read()?.memory(),
            hosts: hosts
                .iter()
                .map(|host| self.host_status(host, nodes.as_deref()))
                .collect::<Result<_>>()?,
        })
    }

    /// The server that a host's kubelet uses, as its kubeconfig says.
    fn server(&self, host: &Host) -> Option<String> {
        let mut kubectl = self.kubectl_with(&host.file(pki::KUBELET_KUBECONFIG));
        kubectl.args([
            "config",
            "view",
            "--output",
            "jsonpath={.clusters[0].cluster.server}",
        ]);
        output::of(&mut kubectl).ok().filter(|server| !server.is_empty())
    }

    fn host_status(&self, host: &Host, nodes: Option<&[Node]>) -> Result<HostStatus> {
        let up = host.init()?.is_some();
        let faults = if up { fault::of(host)? } else { Vec::new() };
        let processes = host.all_processes()?;
        let component = |component: &Component| {
            let process = processes
                .iter()
                .find(|process| process.program == component.program());
            let state = match process {
                Some(process) if process.is_stopped() => RunState::Stopped,
                Some(_) => RunState::Running,
                None => RunState::Dead,
            };
            ComponentStatus {
                name: component.program(),
                state,
                pid: process.map(|process| process.pid),
                is_static_pod: static_pod::is_static(host, component.program()),
            }
        };
        Ok(HostStatus {
            name: host.name(),
            role: host.role(),
            ipv4: host.ipv4(),
            ipv6: host.ipv6(),
            up,
            node: node_status(host.name(), nodes),
            server: self.server(host),
            faults: faults.iter().map(ToString::to_string).collect(),
            components: Component::of(host.name()).iter().map(component).collect(),
        })
    }
}

fn node_status(host: HostName, nodes: Option<&[Node]>) -> NodeStatus {
    let Some(nodes) = nodes else {
        return NodeStatus::Unknown;
    };
    match nodes.iter().find(|node| node.name == host.to_string()) {
        Some(node) if node.ready => NodeStatus::Ready,
        Some(_) => NodeStatus::NotReady,
        None => NodeStatus::Absent,
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kubernetes {}", self.kubernetes_version)?;
        if let Some(memory) = self.memory_bytes {
            write!(f, ", {} MiB of memory", memory >> 20)?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "{:5} {:9} {:13} {:27} {:14} PROGRAMS",
            "HOST", "NODE", "ADDRESS", "KUBELET USES", "FAULTS"
        )?;
        for host in &self.hosts {
            writeln!(
                f,
                "{:5} {:9} {:13} {:27} {:14} {}",
                host.name,
                if host.up {
                    format!("{:?}", host.node)
                } else {
                    "(off)".to_owned()
                },
                host.ipv4.to_string(),
                host.server.as_deref().unwrap_or("-"),
                if host.faults.is_empty() {
                    "-".to_owned()
                } else {
                    host.faults.join(",")
                },
                programs(&host.components),
            )?;
        }
        Ok(())
    }
}

/// The components that do not run, or that all do.
fn programs(components: &[ComponentStatus]) -> String {
    let ailing: Vec<_> = components
        .iter()
        .filter_map(|component| match component.state {
            RunState::Running => None,
            RunState::Stopped => Some(format!("{} stopped", component.name)),
            RunState::Dead => Some(format!("{} dead", component.name)),
        })
        .collect();
    let static_pods = components
        .iter()
        .filter(|component| component.is_static_pod)
        .count();
    match (ailing.is_empty(), static_pods) {
        (true, 0) => "all running".to_owned(),
        (true, count) => format!("all running, {count} as static pods"),
        (false, _) => ailing.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ails_is_listed() {
        let component = |name, state| ComponentStatus {
            name,
            state,
            pid: None,
            is_static_pod: false,
        };
        let mut components = vec![
            component("etcd", RunState::Running),
            component("kubelet", RunState::Running),
        ];
        assert_eq!(programs(&components), "all running");
        components[0].is_static_pod = true;
        assert_eq!(programs(&components), "all running, 1 as static pods");
        components.push(component("kube-apiserver", RunState::Stopped));
        components.push(component("kube-proxy", RunState::Dead));
        assert_eq!(programs(&components), "kube-apiserver stopped, kube-proxy dead");
    }

    #[test]
    fn a_node_that_nobody_could_be_asked_about_is_unknown() {
        let host = "w1".parse().unwrap();
        assert_eq!(node_status(host, None), NodeStatus::Unknown);
        assert_eq!(node_status(host, Some(&[])), NodeStatus::Absent);
    }
}
