//! The programs of a Kubernetes cluster and how each is started: the flags of kubeadm's manifests, as processes.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;

use crate::address::{HostName, SERVICE_NETWORK};
use crate::state::State;

const PKI: &str = "/etc/kubernetes/pki";

/// A program that a host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names are the programs' own")]
pub enum Component {
    Etcd,
    KubeApiserver,
    KubeControllerManager,
    KubeScheduler,
    Containerd,
    Kubelet,
    KubeProxy,
}

impl Component {
    /// The components of a host, in the order in which they start.
    pub fn of(host: HostName) -> &'static [Self] {
        if host.is_master() {
            &[
                Self::Etcd,
                Self::KubeApiserver,
                Self::KubeControllerManager,
                Self::KubeScheduler,
                Self::Containerd,
                Self::Kubelet,
                Self::KubeProxy,
            ]
        } else {
            &[Self::Containerd, Self::Kubelet, Self::KubeProxy]
        }
    }

    /// The name of its program, by which people and processes know it.
    pub fn program(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
        }
    }

    /// Its log, as its host sees it.
    pub(crate) fn log(self) -> String {
        format!("/var/log/{}.log", self.program())
    }

    /// The termination grace period: how long it may take to end after SIGTERM before it is killed, as kubelet does. An
    /// apiserver waits for its shutdown delay and then for its requests. It would wait a minute for open watches; this period
    /// is shorter.
    pub(crate) fn termination_limit(self) -> Duration {
        Duration::from_secs(match self {
            Self::KubeApiserver => 15,
            Self::Etcd
            | Self::KubeControllerManager
            | Self::KubeScheduler
            | Self::Containerd
            | Self::Kubelet
            | Self::KubeProxy => 10,
        })
    }

    /// What starts it on a host.
    pub(crate) fn command_line(self, host: HostName, state: &State) -> Vec<String> {
        let program = |directory: &Path| directory.join(self.program()).display().to_string();
        let kubernetes = program(&state.programs.kubernetes);
        match self {
            Self::Etcd => flags(program(&state.programs.etcd), etcd(host, state)),
            Self::KubeApiserver => flags(kubernetes, apiserver(host)),
            Self::KubeControllerManager => flags(kubernetes, controller_manager()),
            Self::KubeScheduler => flags(kubernetes, scheduler()),
            Self::Containerd => flags(
                self.program().to_owned(),
                vec![("config", "/etc/kubernetes/containerd.toml".to_owned())],
            ),
            Self::Kubelet => flags(
                kubernetes,
                vec![
                    ("config", "/var/lib/kubelet/config.yaml".to_owned()),
                    ("kubeconfig", "/etc/kubernetes/kubelet.conf".to_owned()),
                    ("node-ip", host.ipv4().to_string()),
                ]
                .into_iter()
                .chain(host.is_master().then(|| {
                    (
                        "register-with-taints",
                        "node-role.kubernetes.io/control-plane=:NoSchedule".to_owned(),
                    )
                }))
                .collect(),
            ),
            Self::KubeProxy => flags(
                kubernetes,
                vec![("config", "/etc/kubernetes/kube-proxy.yaml".to_owned())],
            ),
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.program())
    }
}

type Flags = Vec<(&'static str, String)>;

fn flags(program: String, flags: Flags) -> Vec<String> {
    std::iter::once(program)
        .chain(flags.into_iter().map(|(flag, value)| format!("--{flag}={value}")))
        .collect()
}

fn etcd(host: HostName, state: &State) -> Flags {
    let founder = state.founders.contains(&host);
    let members: Vec<_> = if founder {
        state.founders.clone()
    } else {
        state.masters().collect()
    };
    let members: Vec<_> = members
        .iter()
        .map(|member| format!("{member}={}", member.etcd_peer()))
        .collect();
    let client = format!("https://{}:2379", host.ipv4());
    vec![
        ("name", host.to_string()),
        ("data-dir", "/var/lib/etcd".to_owned()),
        ("advertise-client-urls", client.clone()),
        ("initial-advertise-peer-urls", host.etcd_peer()),
        ("initial-cluster", members.join(",")),
        (
            "initial-cluster-state",
            if founder { "new" } else { "existing" }.to_owned(),
        ),
        ("listen-client-urls", format!("https://127.0.0.1:2379,{client}")),
        ("listen-metrics-urls", "http://127.0.0.1:2381".to_owned()),
        ("listen-peer-urls", host.etcd_peer()),
        ("client-cert-auth", "true".to_owned()),
        ("trusted-ca-file", format!("{PKI}/etcd/ca.crt")),
        ("cert-file", format!("{PKI}/etcd/server.crt")),
        ("key-file", format!("{PKI}/etcd/server.key")),
        ("peer-client-cert-auth", "true".to_owned()),
        ("peer-trusted-ca-file", format!("{PKI}/etcd/ca.crt")),
        ("peer-cert-file", format!("{PKI}/etcd/peer.crt")),
        ("peer-key-file", format!("{PKI}/etcd/peer.key")),
        ("snapshot-count", "10000".to_owned()),
        ("watch-progress-notify-interval", "5s".to_owned()),
        // Not kubeadm's: several etcds share one disk here, and this data is not kept.
        ("unsafe-no-fsync", "true".to_owned()),
    ]
}

fn apiserver(host: HostName) -> Flags {
    vec![
        ("advertise-address", host.ipv4().to_string()),
        ("allow-privileged", "true".to_owned()),
        ("authorization-mode", "Node,RBAC".to_owned()),
        ("client-ca-file", format!("{PKI}/ca.crt")),
        ("enable-admission-plugins", "NodeRestriction".to_owned()),
        ("enable-bootstrap-token-auth", "true".to_owned()),
        ("etcd-cafile", format!("{PKI}/etcd/ca.crt")),
        ("etcd-certfile", format!("{PKI}/apiserver-etcd-client.crt")),
        ("etcd-keyfile", format!("{PKI}/apiserver-etcd-client.key")),
        ("etcd-servers", "https://127.0.0.1:2379".to_owned()),
        // Not kubeadm's: pods are told their node's zone, as they are by default from Kubernetes 1.35 on.
        ("feature-gates", "PodTopologyLabelsAdmission=true".to_owned()),
        (
            "kubelet-client-certificate",
            format!("{PKI}/apiserver-kubelet-client.crt"),
        ),
        (
            "kubelet-client-key",
            format!("{PKI}/apiserver-kubelet-client.key"),
        ),
        (
            "kubelet-preferred-address-types",
            "InternalIP,ExternalIP,Hostname".to_owned(),
        ),
        ("proxy-client-cert-file", format!("{PKI}/front-proxy-client.crt")),
        ("proxy-client-key-file", format!("{PKI}/front-proxy-client.key")),
        ("requestheader-allowed-names", "front-proxy-client".to_owned()),
        (
            "requestheader-client-ca-file",
            format!("{PKI}/front-proxy-ca.crt"),
        ),
        ("requestheader-extra-headers-prefix", "X-Remote-Extra-".to_owned()),
        ("requestheader-group-headers", "X-Remote-Group".to_owned()),
        ("requestheader-username-headers", "X-Remote-User".to_owned()),
        ("secure-port", "6443".to_owned()),
        // Not kubeadm's, but every load balancer needs it: without it an apiserver closes its listener before a probe
        // can see that it is not ready.
        ("shutdown-delay-duration", "5s".to_owned()),
        (
            "service-account-issuer",
            "https://kubernetes.default.svc.cluster.local".to_owned(),
        ),
        ("service-account-key-file", format!("{PKI}/sa.pub")),
        ("service-account-signing-key-file", format!("{PKI}/sa.key")),
        ("service-cluster-ip-range", SERVICE_NETWORK.to_owned()),
        ("tls-cert-file", format!("{PKI}/apiserver.crt")),
        ("tls-private-key-file", format!("{PKI}/apiserver.key")),
        // Not kubeadm's: tests read which apiserver got which request.
        (
            "audit-policy-file",
            "/etc/kubernetes/audit-policy.yaml".to_owned(),
        ),
        ("audit-log-path", AUDIT_LOG.to_owned()),
        // One old file beside the current one: a day of tests must not fill the disk. All scenarios write 70 MB.
        ("audit-log-maxsize", "200".to_owned()),
        ("audit-log-maxbackup", "1".to_owned()),
    ]
}

/// The audit log of an apiserver, as its host sees it.
pub(crate) const AUDIT_LOG: &str = "/var/log/audit.log";

fn controller_manager() -> Flags {
    let kubeconfig = || "/etc/kubernetes/controller-manager.conf".to_owned();
    vec![
        ("authentication-kubeconfig", kubeconfig()),
        ("authorization-kubeconfig", kubeconfig()),
        ("bind-address", "127.0.0.1".to_owned()),
        ("client-ca-file", format!("{PKI}/ca.crt")),
        ("cluster-name", "kubernetes".to_owned()),
        ("cluster-signing-cert-file", format!("{PKI}/ca.crt")),
        ("cluster-signing-key-file", format!("{PKI}/ca.key")),
        ("controllers", "*,bootstrapsigner,tokencleaner".to_owned()),
        ("kubeconfig", kubeconfig()),
        ("leader-elect", "true".to_owned()),
        (
            "requestheader-client-ca-file",
            format!("{PKI}/front-proxy-ca.crt"),
        ),
        ("root-ca-file", format!("{PKI}/ca.crt")),
        ("service-account-private-key-file", format!("{PKI}/sa.key")),
        ("service-cluster-ip-range", SERVICE_NETWORK.to_owned()),
        ("use-service-account-credentials", "true".to_owned()),
    ]
}

fn scheduler() -> Flags {
    let kubeconfig = || "/etc/kubernetes/scheduler.conf".to_owned();
    vec![
        ("authentication-kubeconfig", kubeconfig()),
        ("authorization-kubeconfig", kubeconfig()),
        ("bind-address", "127.0.0.1".to_owned()),
        ("kubeconfig", kubeconfig()),
        ("leader-elect", "true".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Programs;

    fn state(hosts: &[&str], founders: &[&str]) -> State {
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        State {
            hosts: names(hosts),
            founders: names(founders),
            programs: Programs {
                kubernetes: "/k".into(),
                etcd: "/e".into(),
                helm: "/h".into(),
            },
            kubernetes_version: "v1.34.4".to_owned(),
            complete: true,
            mount_points: vec![],
        }
    }

    fn line(component: Component, host: &str, state: &State) -> String {
        component.command_line(host.parse().unwrap(), state).join(" ")
    }

    #[test]
    fn founders_begin_a_cluster_and_later_masters_join_it() {
        let state = state(&["cp1", "cp3", "cp4", "w1"], &["cp1", "cp3"]);
        let founder = line(Component::Etcd, "cp3", &state);
        assert!(founder.starts_with("/e/etcd --name=cp3 "), "{founder}");
        assert!(
            founder.contains("--initial-cluster=cp1=https://10.213.0.11:2380,cp3=https://10.213.0.13:2380 ")
        );
        assert!(founder.contains("--initial-cluster-state=new"));
        let later = line(Component::Etcd, "cp4", &state);
        assert!(
            later.contains("cp4=https://10.213.0.14:2380 --initial-cluster-state=existing"),
            "{later}"
        );
    }

    #[test]
    fn an_apiserver_advertises_its_own_host_and_uses_the_etcd_beside_it() {
        let apiserver = line(Component::KubeApiserver, "cp2", &state(&["cp2"], &["cp2"]));
        assert!(apiserver.starts_with("/k/kube-apiserver --advertise-address=10.213.0.12 "));
        assert!(apiserver.contains("--etcd-servers=https://127.0.0.1:2379 "));
        assert!(apiserver.contains("--audit-log-path="));
    }

    #[test]
    fn only_masters_register_with_the_taint() {
        let state = state(&["cp1", "w1"], &["cp1"]);
        assert!(line(Component::Kubelet, "cp1", &state).contains("--register-with-taints=node-role"));
        assert!(!line(Component::Kubelet, "w1", &state).contains("taint"));
    }

    #[test]
    fn a_worker_runs_no_control_plane() {
        let programs: Vec<_> = Component::of("w1".parse().unwrap())
            .iter()
            .map(|component| component.program())
            .collect();
        assert_eq!(programs, ["containerd", "kubelet", "kube-proxy"]);
    }
}
