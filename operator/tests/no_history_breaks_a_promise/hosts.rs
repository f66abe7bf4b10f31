//! The hosts of the cluster: nodes, apiservers, and the pods of proxies with what they report.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use trivet_crds::report::ReportContent;
use trivet_crds::wire::{Document, MemberState};
use trivet_operator::health::Answer;
use trivet_operator::plan::masters::{CONTROL_PLANE_LABELS, ZONE_LABEL};

/// The port of all apiservers.
pub(crate) const PORT: u16 = 6443;

/// What a host reports of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Families {
    V4,
    V6,
    Both,
    /// None yet, as while a cloud provider has not initialised the node.
    Neither,
    /// Another address of the host's, as after a change of `--node-ip`.
    Other,
    /// One that is nobody's.
    Wrong,
}

/// One machine.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) number: u8,
    pub(crate) has_node: bool,
    pub(crate) is_master: bool,
    pub(crate) is_ready: bool,
    pub(crate) families: Families,
    pub(crate) zone: &'static str,
    /// What its apiserver answers.
    pub(crate) answer: Answer,
    /// At which of its addresses nothing answers.
    pub(crate) deaf: [bool; 3],
    pub(crate) pods: Vec<Pod>,
}

/// A pod of the DaemonSet of the proxies.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) template: String,
    pub(crate) created: i64,
    pub(crate) ready_at: Option<i64>,
}

impl Host {
    /// Hosts 1 to 4 are masters at first.
    pub(crate) fn new(number: u8) -> Self {
        let is_master = number <= 4;
        Self {
            number,
            has_node: true,
            is_master,
            is_ready: true,
            families: Families::V4,
            zone: "",
            answer: if is_master { Answer::Ready } else { Answer::Silent },
            deaf: [false; 3],
            pods: Vec::new(),
        }
    }

    pub(crate) fn name(&self) -> String {
        let role = if self.number <= 4 { "cp" } else { "w" };
        format!("{role}{}", self.number)
    }

    fn v4(&self) -> IpAddr {
        IpAddr::from([10, 0, 0, self.number])
    }

    fn other(&self) -> IpAddr {
        IpAddr::from([10, 0, 1, self.number])
    }

    fn v6(&self) -> IpAddr {
        IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, self.number.into()))
    }

    /// Where its apiserver listens.
    pub(crate) fn addresses(&self) -> [IpAddr; 3] {
        [self.v4(), self.other(), self.v6()]
    }

    /// What its apiserver answers there.
    pub(crate) fn answer_at(&self, ip: IpAddr) -> Option<&Answer> {
        let index = self.addresses().iter().position(|own| *own == ip)?;
        Some(if self.deaf[index] {
            &Answer::Silent
        } else {
            &self.answer
        })
    }

    /// What its node reports.
    pub(crate) fn reported(&self) -> Vec<IpAddr> {
        match self.families {
            Families::V4 => vec![self.v4()],
            Families::V6 => vec![self.v6()],
            Families::Both => vec![self.v4(), self.v6()],
            Families::Neither => Vec::new(),
            Families::Other => vec![self.other()],
            Families::Wrong => vec![IpAddr::from([10, 0, 2, self.number])],
        }
    }

    pub(crate) fn node(&self) -> Arc<Node> {
        let mut labels = json!({ "kubernetes.io/os": "linux", "zone": self.zone, ZONE_LABEL: self.zone });
        if self.is_master {
            labels[CONTROL_PLANE_LABELS[0]] = json!("");
        }
        if self.number == 5 {
            labels["role"] = json!("x");
        }
        let internal = |ip: &IpAddr| json!({ "type": "InternalIP", "address": ip });
        let addresses: Vec<_> = self.reported().iter().map(internal).collect();
        let ready = if self.is_ready { "True" } else { "False" };
        let node = json!({
            "metadata": { "name": self.name(), "labels": labels },
            "status": { "addresses": addresses, "allocatable": { "pods": "110" },
                        "conditions": [{ "type": "Ready", "status": ready }] },
        });
        Arc::new(serde_json::from_value(node).unwrap())
    }

    pub(crate) fn is_ready_with(&self, template: &str) -> bool {
        let mut pods = self.pods.iter();
        pods.any(|pod| pod.template == template && pod.ready_at.is_some())
    }

    pub(crate) fn has_ready_pod(&self) -> bool {
        self.pods.iter().any(|pod| pod.ready_at.is_some())
    }
}

/// The EndpointSlice that the apiservers keep.
pub(crate) fn slices(hosts: &[Host]) -> Vec<EndpointSlice> {
    let serves = |host: &&Host| host.answer.is_verified();
    let endpoint = |host: &Host| json!({ "addresses": [host.v4()], "conditions": { "ready": true } });
    let endpoints: Vec<_> = hosts.iter().filter(serves).map(endpoint).collect();
    let slice = json!({
        "metadata": { "name": "kubernetes" }, "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{ "name": "https", "port": PORT }],
    });
    vec![serde_json::from_value(slice).unwrap()]
}

/// What the proxy of a node reports: it follows `document`, and sees the apiservers as they are.
pub(crate) fn report(pool: &str, host: &Host, document: &Document, hosts: &[Host], observed: &str) -> Value {
    let seen = |member: &trivet_crds::wire::Member| {
        let ip = member.addresses[0];
        let mut hosts = hosts.iter().filter(|_| member.port == PORT);
        let answer = hosts
            .find_map(|host| host.answer_at(ip))
            .unwrap_or(&Answer::Silent);
        let (health, last) = match answer {
            Answer::Ready | Answer::Withheld => ("Up", "Verified"),
            Answer::NotReady(_) => ("Unready", "Verified"),
            Answer::Refused(_) => ("Unready", "NoAnswer"),
            Answer::Untrusted(_) => ("Unready", "Unverified"),
            Answer::Silent => ("Down", "NoAnswer"),
        };
        let standing = match member.state {
            MemberState::Active => "Active",
            MemberState::Draining => "Draining",
        };
        json!({ "name": member.name, "address": format!("{}", member.sockets().next().unwrap()), "health": health,
                "standing": standing, "lastAnswer": last, "connections": host.number, "lastError": "why" })
    };
    let template = host.pods.iter().rev().find(|pod| pod.ready_at.is_some());
    let content = json!({
        "poolName": pool, "nodeName": host.name(), "revision": document.revision, "observedTime": observed,
        "template": template.map_or("", |pod| &pod.template), "standby": "Ready",
        "members": document.members.iter().map(seen).collect::<Vec<_>>(),
        "warnings": if host.number == 6 { json!([{ "reason": "CacheUnwritable", "message": "no" }]) } else { json!([]) },
    });
    let content: ReportContent = serde_json::from_value(content).unwrap();
    content.object().unwrap()
}
