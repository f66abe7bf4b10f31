//! The objects of the cluster, each as its writer makes it.

use jiff::Timestamp;
use serde_json::{Value, json};
use trivet_crds::report::{
    CertificateState, LastAnswer, ListenerState, ProxyRole, ReportContent, ReportedCertificate,
    ReportedHealth, ReportedListener, ReportedMember, ReportedStanding, StandbyState,
};

use super::cluster::MASTERS;

/// The pool.
pub(crate) const POOL: &str = "default";

/// The namespace of its objects.
pub(crate) const NAMESPACE: &str = "trivet-system";

/// The images that kubelet tells of at most.
const IMAGES: usize = 50;

/// The bytes of an object of each kind, as the API gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) node: usize,
    pub(crate) pod: usize,
    pub(crate) report: usize,
}

/// What the operator has made for the pool.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    /// The DaemonSet of the proxies.
    pub(crate) daemon_set: Value,
    /// The revision of the document.
    pub(crate) revision: u64,
    /// The hash of the template.
    pub(crate) template: String,
}

/// What the reports tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// All members are Up.
    None,
    /// The last one is Down.
    MemberLost,
}

/// The name of a node. The first ones are masters.
pub(crate) fn node_name(index: usize) -> String {
    if index < MASTERS.len() {
        format!("cp{}.example.internal", index + 1)
    } else {
        format!("worker-{index:05}.example.internal")
    }
}

/// A node as kubelet writes it, with its fifty images.
pub(crate) fn node(index: usize) -> Value {
    let name = node_name(index);
    let address = MASTERS.get(index).map_or_else(
        || {
            format!(
                "10.{}.{}.{}",
                100 + index / 60_000,
                index / 250 % 250,
                index % 250 + 1
            )
        },
        |address| (*address).to_owned(),
    );
    let mut labels = json!({
        "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
        "topology.kubernetes.io/region": "region-1", "topology.kubernetes.io/zone": format!("zone-{}", index % 3),
        "node.kubernetes.io/instance-type": "bare-metal.large", "example.com/rack": format!("rack-{}", index / 40),
    });
    if index < MASTERS.len() {
        labels["node-role.kubernetes.io/control-plane"] = "".into();
    }
    let image = |image: usize| {
        let repository = format!("registry.example.com/platform/component-{image}");
        let digest = format!("{:064x}", index * IMAGES + image);
        json!({ "names": [format!("{repository}@sha256:{digest}"), format!("{repository}:v1.{image}.0")], "sizeBytes": 52_428_800 + image })
    };
    let condition = |type_: &str, status: &str, reason: &str, message: &str| {
        json!({ "type": type_, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": now(), "lastTransitionTime": now() })
    };
    let resources = json!({
        "cpu": "32", "ephemeral-storage": "479151996Ki", "hugepages-1Gi": "0", "hugepages-2Mi": "0",
        "memory": "131891112Ki", "pods": "110",
    });
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name, "labels": labels,
            "annotations": {
                "node.alpha.kubernetes.io/ttl": "0", "volumes.kubernetes.io/controller-managed-attach-detach": "true",
                "csi.volume.kubernetes.io/nodeid": format!("{{\"csi.example.com\":\"{name}\"}}"),
            },
        },
        "spec": { "podCIDR": format!("10.{}.{}.0/24", 200 + index / 256, index % 256), "providerID": format!("bare://{name}") },
        "status": {
            "addresses": [{ "type": "InternalIP", "address": address }, { "type": "Hostname", "address": name }],
            "capacity": resources, "allocatable": resources,
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
            ],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": 10250 } },
            "images": (0..IMAGES).map(image).collect::<Vec<_>>(),
            "nodeInfo": {
                "architecture": "amd64", "bootID": "5b8f0f0c-4c5a-4d3e-9a39-1c2f5f0e9d11", "containerRuntimeVersion": "containerd://2.1.4",
                "kernelVersion": "6.12.0", "kubeProxyVersion": "", "kubeletVersion": "v1.34.4", "machineID": format!("{index:032x}"),
                "operatingSystem": "linux", "osImage": "Debian GNU/Linux 13", "systemUUID": format!("{index:032x}"),
            },
        },
    })
}

/// The name of a proxy's pod.
pub(crate) fn pod_name(index: usize) -> String {
    format!("trivet-{POOL}-{index:05}")
}

/// A proxy's pod as the DaemonSet controller makes it.
pub(crate) fn pod(index: usize, fleet: &Fleet) -> Value {
    let template = &fleet.daemon_set["spec"]["template"];
    let mut metadata = template["metadata"].clone();
    metadata["name"] = pod_name(index).into();
    metadata["namespace"] = NAMESPACE.into();
    metadata["labels"]["controller-revision-hash"] = "5d8f7c6b9".into();
    metadata["labels"]["pod-template-generation"] = "1".into();
    metadata["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "DaemonSet", "name": fleet.daemon_set["metadata"]["name"],
        "uid": fleet.daemon_set["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
    }]);
    let mut spec = template["spec"].clone();
    spec["nodeName"] = node_name(index).into();
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })
}

/// The status of that pod, as kubelet writes it.
pub(crate) fn pod_status(index: usize) -> Value {
    let condition = |type_: &str| json!({ "type": type_, "status": "True", "lastTransitionTime": now() });
    let types = [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ];
    json!({ "status": {
        "phase": "Running", "qosClass": "Burstable", "startTime": now(),
        "conditions": types.map(condition),
        "containerStatuses": [{
            "name": "proxy", "ready": true, "started": true, "restartCount": 0,
            "image": "registry.example.com/trivet/trivet-proxy:0.1.0",
            "imageID": format!("registry.example.com/trivet/trivet-proxy@sha256:{:064x}", 7),
            "containerID": format!("containerd://{index:064x}"),
            "state": { "running": { "startedAt": now() } },
        }],
    } })
}

/// The status of the DaemonSet of so many proxies, all of them ready.
pub(crate) fn daemon_set_status(fleet: &Fleet, nodes: usize) -> Value {
    json!({ "status": {
        "observedGeneration": fleet.daemon_set["metadata"]["generation"],
        "desiredNumberScheduled": nodes, "currentNumberScheduled": nodes, "updatedNumberScheduled": nodes,
        "numberReady": nodes, "numberAvailable": nodes, "numberMisscheduled": 0,
    } })
}

/// The report of a node. `written` is how often it was written before: counts change.
pub(crate) fn report(index: usize, fleet: &Fleet, news: News, written: u32) -> ReportContent {
    let member = |number: usize, address: &str| {
        let is_lost = news == News::MemberLost && number + 1 == MASTERS.len();
        ReportedMember {
            name: node_name(number),
            address: format!("{address}:6443"),
            standing: Some(ReportedStanding::Active),
            health: if is_lost {
                ReportedHealth::Down
            } else {
                ReportedHealth::Up
            },
            last_answer: Some(if is_lost {
                LastAnswer::NoAnswer
            } else {
                LastAnswer::Verified
            }),
            last_probe_milliseconds: (!is_lost).then_some(3),
            connections: if is_lost { 0 } else { 4 + written % 3 },
            leaving_connections: 0,
            last_error: if is_lost {
                "no answer within 1 s".to_owned()
            } else {
                String::new()
            },
            certificate: Some(ReportedCertificate {
                state: CertificateState::Verified,
                not_after: "2027-11-29T00:00:00Z".to_owned(),
                uncovered_addresses: vec!["127.0.0.1:7443".to_owned(), "[::1]:7443".to_owned()],
            }),
        }
    };
    let members: Vec<_> = MASTERS
        .iter()
        .enumerate()
        .map(|(number, address)| member(number, address))
        .collect();
    let up = members
        .iter()
        .filter(|member| member.health == ReportedHealth::Up)
        .count();
    let summary = format!("{up}/{}", members.len());
    let listener = |address: &str| ReportedListener {
        listener_name: "apiserver".to_owned(),
        address: address.to_owned(),
        state: ListenerState::Listening,
        message: String::new(),
    };
    ReportContent {
        pool_name: POOL.to_owned(),
        node_name: node_name(index),
        proxy_version: "0.1.0".to_owned(),
        template: fleet.template.clone(),
        revision: fleet.revision,
        role: ProxyRole::Serving,
        standby: StandbyState::Absent,
        listeners: vec![listener("127.0.0.1:7443"), listener("[::1]:7443")],
        members_summary: summary.clone(),
        members_overview: summary,
        members,
        connections: 12 + written % 3,
        idle_seconds: 0,
        open_files: 60 + written % 3,
        memory_mebibytes: 7,
        warnings: Vec::new(),
        observed_time: now(),
    }
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_twelve_kilobytes() {
        let bytes = node(4999).to_string().len();
        assert!((10_000..=13_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_lost_member_is_the_last_one_alone() {
        use ReportedHealth::{Down, Up};
        let fleet = Fleet {
            daemon_set: json!({}),
            revision: 7,
            template: "abc".to_owned(),
        };
        let healths = |news| {
            let report = report(9, &fleet, news, 1);
            (
                report.members_summary,
                report
                    .members
                    .iter()
                    .map(|member| member.health)
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(healths(News::None), ("3/3".to_owned(), vec![Up, Up, Up]));
        assert_eq!(healths(News::MemberLost), ("2/3".to_owned(), vec![Up, Up, Down]));
    }
}
